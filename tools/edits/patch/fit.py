"""Find the place of each hunk in a file and make its change; never guess between two places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.edits.patch.hunks import Hunk, PatchError
from tools.text.explain import explain_missing
from tools.text.lookalikes import make_plain
from tools.text.text_file import find_dominant_newline

_PLACES_NAMED = 100
_MAX_PLACES = 1000


@dataclass(frozen=True)
class Fitted:
    """The text after the change, how many lines came and went, and notes for the reader."""

    text: str
    added: int
    removed: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Way:
    """A way to compare lines: ``key`` is equal for lines that count as the same."""

    key: Callable[[str], str]
    raw: bool = False
    lookalike: bool = False


_WAYS = (
    _Way(lambda line: line, raw=True),
    _Way(lambda line: line.removesuffix("\r")),
    _Way(lambda line: line.rstrip()),
    _Way(lambda line: make_plain(line).rstrip(), lookalike=True),
)


def fit(shown: str, text: str, hunks: Sequence[Hunk]) -> Fitted:
    """Apply ``hunks`` in order to ``text``. Raises ``PatchError`` if one has no single place.

    Lines that a hunk keeps stay as the file has them, with their line endings; new lines end as
    those around them. The file ends with a line feed if it did before, unless the hunk says so.
    """
    lines = text.split("\n")
    ends_with_newline = lines[-1] == ""
    if ends_with_newline:
        lines.pop()
    newline = find_dominant_newline(text) or "\n"
    if newline == "\r\n" and not ends_with_newline:
        lines[-1] += "\r"  # as the others, while it may get a line after it
    result: list[str] = []
    notes: list[str] = []
    done = drift = added = removed = 0
    for hunk in hunks:
        at, way = _find_place(shown, lines, hunk, done, drift, len(hunks))
        if hunk.start is not None and hunk.old:
            drift = at - (hunk.start - 1)
            if drift:
                notes.append(f"hunk {hunk.number} fits at line {at + 1}, not {hunk.start}")
        result += lines[done:at]
        end = at + len(hunk.old)
        if way.lookalike:
            name = f"hunk {hunk.number}" if len(hunks) > 1 else "it"
            notes.append(f"{name} was matched by characters that look alike, from line {at + 1}")
        made = _make_lines(lines[at:end], hunk, way, newline, empty=not text)
        result += made
        if end == len(lines) and hunk.ended_bare != hunk.ends_bare:
            ends_with_newline = not hunk.ends_bare
        done = end
        added += sum(line.kind == "+" for line in hunk.lines)
        removed += sum(line.kind == "-" for line in hunk.lines)
    result += lines[done:]
    if not text and hunks:
        ends_with_newline = not hunks[-1].ends_bare
    new = "\n".join(result) + ("\n" if ends_with_newline and result else "")
    if newline == "\r\n" and not ends_with_newline:
        new = new.removesuffix("\r")
    return Fitted(new, added, removed, tuple(notes))


def _make_lines(
    old: Sequence[str], hunk: Hunk, way: _Way, newline: str, *, empty: bool
) -> list[str]:
    """Make the new lines; kept ones stay as the file has them. ``empty``: the file has none."""
    ending = ""
    if not way.raw or not old:
        with_return = sum(line.endswith("\r") for line in old)
        crlf = with_return * 2 > len(old) if old else newline == "\r\n"
        ending = "\r" if crlf else ""
    made: list[str] = []
    at = 0
    for line in hunk.lines:
        if line.kind == "+":
            as_it_is = empty or (way.raw and old)
            made.append(line.text if as_it_is else line.text.removesuffix("\r") + ending)
            continue
        if line.kind == " ":
            made.append(old[at])
        at += 1
    return made


def _find_place(
    shown: str, lines: list[str], hunk: Hunk, done: int, drift: int, count: int
) -> tuple[int, _Way]:
    """Find the hunk's old lines. Returns their first line, from 0, and how lines were compared."""
    name = "the patch" if count == 1 else f"hunk {hunk.number} of the patch"
    if not hunk.old:
        return _find_insertion(shown, lines, hunk, done, name), _WAYS[0]
    for way in _WAYS:
        found = _find_matches(lines, hunk, done, way)
        if not found:
            continue
        return _choose(shown, lines, hunk, found, done, drift, name, way), way
    if any(_find_matches(lines, hunk, 0, way) for way in _WAYS):
        raise PatchError(
            f"{name} fits {shown} only before the hunk that precedes it: put the hunks in the "
            "order of their places in the file"
        )
    text = "\n".join(line.removesuffix("\r") for line in lines)
    old = "\n".join(line.removesuffix("\r") for line in hunk.old)
    # Whole lines only: a part of a line says nothing of a patch that was applied before.
    there = any(_find_matches(lines, hunk, 0, way, new=True) for way in _WAYS)
    new = "\n".join(line.removesuffix("\r") for line in hunk.new) if there else ""
    raise PatchError(
        explain_missing(shown, text, old, new, old_name=f"the text that {name} changes")
    )


def _find_matches(
    lines: list[str], hunk: Hunk, first: int, way: _Way, *, new: bool = False
) -> list[int]:
    """Find every place at or after ``first`` that has the old (or the new) lines."""
    old = [way.key(line) for line in (hunk.new if new else hunk.old)]
    if not old:
        return []
    keys = [way.key(line) for line in lines]
    last = len(lines) - len(old)
    if hunk.at_end or hunk.ended_bare or hunk.ends_bare:
        first = max(first, last)
    # As one text, so that searching is the string type's work however often lines repeat.
    keys = [way.key(line) for line in lines[first:]]
    text = "\n" + "\n".join(keys) + "\n"
    wanted = "\n" + "\n".join(old) + "\n"
    found: list[int] = []
    line = first
    counted = 0
    at = text.find(wanted)
    while at >= 0 and len(found) < _MAX_PLACES:
        line += text.count("\n", counted, at)
        counted = at
        found.append(line)
        at = text.find(wanted, at + 1)
    return found


def _choose(
    shown: str,
    lines: list[str],
    hunk: Hunk,
    found: list[int],
    done: int,
    drift: int,
    name: str,
    way: _Way,
) -> int:
    """Choose the one place that is meant. Raises ``PatchError`` if that cannot be told."""
    if hunk.anchored and hunk.anchors:
        after = _find_after_anchors(lines, hunk.anchors, done)
        places = {next(at for at in found if at >= a) for a in after if any(b >= a for b in found)}
        if len(places) == 1:
            return places.pop()
        if places:
            found = sorted(places)
    if len(found) == 1:
        return found[0]
    if hunk.start is not None:
        expected = hunk.start - 1 + drift
        keys = [way.key(line) for line in lines[max(expected, 0) :][: len(hunk.old)]]
        if expected >= done and keys == [way.key(line) for line in hunk.old]:
            return expected
        after = _find_after_anchors(lines, hunk.anchors, done) if hunk.anchors else []
        places = {next(at for at in found if at >= a) for a in after if any(b >= a for b in found)}
        if len(places) == 1:
            return places.pop()
    numbers = [str(at + 1) for at in found[:_PLACES_NAMED]]
    more = f" and {len(found) - _PLACES_NAMED} more" if len(found) > _PLACES_NAMED else ""
    raise PatchError(
        f"{name} fits {shown} in {len(found)} places, at lines {', '.join(numbers)}{more}. Add "
        "lines around the change, or a line '@@ ' with the function or class that it is in"
    )


def _find_after_anchors(lines: list[str], anchors: Sequence[str], first: int) -> list[int]:
    """Find the lines after each place where the anchors follow each other."""
    bare = [line.strip() for line in lines]
    places = [first]
    for anchor in anchors:
        wanted = anchor.strip()
        places = sorted(
            {
                at + 1
                for place in places
                for at in range(place, len(bare))
                if bare[at] == wanted or bare[at].rstrip("{: ") == wanted.rstrip("{: ")
            }
        )
    return places


def _find_insertion(shown: str, lines: list[str], hunk: Hunk, done: int, name: str) -> int:
    """Find the place for added lines that have no lines around them."""
    if not lines:
        return 0
    if hunk.anchored:
        if not hunk.anchors:
            return len(lines)
        after = _find_after_anchors(lines, hunk.anchors, done)
        if len(after) == 1:
            return after[0]
        places = ", ".join(map(str, after[:_PLACES_NAMED]))
        where = f"more than once, at lines {places}" if after else "nowhere"
        raise PatchError(
            f"{name} only adds lines, and '@@ {hunk.anchors[-1][:80]}' is in {shown} {where}: "
            "give the lines around the new ones"
        )
    raise PatchError(
        f"{name} has no line that is in {shown}, so its place cannot be checked: give some lines "
        "around the new ones"
    )
