"""Explain why a text is not in a file: what is nearest, and in what the two differ."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from tools.text.lookalikes import make_plain, name_character, name_odd_characters
from tools.text.nearest import LineSpan, count_lines, find_nearest_lines
from tools.text.replace import find_occurrences, line_number
from tools.text.truncate import cut_line

_CONTEXT_LINES = 2
_BLOCK_LINES = 40
_BLOCK_LINE_CHARACTERS = 500
_MIN_APPLIED_CHARACTERS = 4
_MIN_MATCHED_CHARACTERS = 4
_NAMED_PLACES = 3

_ESCAPED = re.compile(r"\\([nt\"'\\])")
_UNESCAPED = {"n": "\n", "t": "\t", '"': '"', "'": "'", "\\": "\\"}
_LINE_NUMBER = re.compile(r"^[^\S\n]*\d+(?:[:|→-]|\t) ?", re.MULTILINE)
_ELISION = re.compile(r"\s*(?:(?:#|//|--|/\*|<!--)\s*)?(?:\.\.\.|…)")
_TYPOGRAPHIC = "‘’‚‛“”„‟‐‑‒–—−…"
_TYPOGRAPHY = str.maketrans("‘’‚‛“”„‟‐‑‒–—−", "''''\"\"\"\"------")


def explain_missing(
    shown: str, text: str, old: str, new: str, *, old_name: str = "old_string"
) -> str:
    """Tell a model why ``old``, which is not in ``text``, was not found, and what to send instead.

    ``text`` and both strings have LF line ends. ``shown`` is the file's path, ``old_name`` what
    the model knows ``old`` as.
    """
    start = f"Nothing was changed: {old_name} is not in {shown}"
    new_name = "new_string" if old_name == "old_string" else "the text after the change"
    if not text.strip():
        return f"{start}, which is {'empty' if not text else 'blank'}."
    if not old.strip():
        return f"{start}: it is only whitespace. Take the lines around it into old_string."
    lines = text.split("\n")
    applied = _find_applied(text, new)
    if applied:
        places = _name_places(text, applied)
        return (
            f"{start}, but {new_name} is, at {places}: this edit seems to be applied already. "
            "Go on with the next step; read the file if you are in doubt."
        )
    for explain in (
        _find_spaces,
        _find_written_out,
        _find_numbered,
        _find_typographic,
        _find_elided,
    ):
        found = explain(text, old)
        if found is not None:
            reason, span = found
            if old_name != "old_string":
                reason = reason.replace("old_string", old_name)
                reason = reason[0].upper() + reason[1:]
            # That reason names the characters itself.
            odd = "" if explain is _find_typographic else _name_odd(text, span, old, old_name)
            return (
                f"{start}. {reason}{odd} Repeat the edit with "
                f"the text that the file has, {span.named()}:\n{_show_block(lines, span)}"
            )
    near = find_nearest_lines(lines, old)
    if near is None:
        return f"{start}, nor anything like it. Read the file and copy the text to replace from it."
    span, similarity = near
    around = LineSpan(
        max(span.first - _CONTEXT_LINES, 1), min(span.last + _CONTEXT_LINES, count_lines(lines))
    )
    return (
        f"{start}. The nearest text is in {span.named()} ({similarity:.0%} alike)."
        f"{_name_odd(text, span, old, old_name)}"
        f"{_say_difference(lines, span, old)} Repeat the edit with the text that the file has. "
        f"{around.named().capitalize()}:\n{_show_block(lines, around)}"
    )


def _name_odd(text: str, span: LineSpan, old: str, old_name: str) -> str:
    """Name the characters of a place that no eye tells from those of ``old``; "" if none are."""
    lines = text.split("\n")
    start = sum(len(line) + 1 for line in lines[: span.first - 1])
    end = start + sum(len(line) + 1 for line in lines[span.first - 1 : span.last])
    odd = name_odd_characters(text, start, min(end, len(text)), old)
    return f" Note: {odd.replace('old_string', old_name)}." if odd else ""


def _find_applied(text: str, new: str) -> list[int]:
    """Find where ``new`` is already in the file, if it is long enough to mean something."""
    if len(new.strip()) < _MIN_APPLIED_CHARACTERS:
        return []
    return find_occurrences(text, new, overlapping=False)


def _name_places(text: str, found: Sequence[int]) -> str:
    numbers = [str(line_number(text, start)) for start in found[:_NAMED_PLACES]]
    more = f" and {len(found) - _NAMED_PLACES} more" if len(found) > _NAMED_PLACES else ""
    return f"{'line' if len(found) == 1 else 'lines'} {', '.join(numbers)}{more}"


def _find_spaces(text: str, old: str) -> tuple[str, LineSpan] | None:
    """Find a place that differs from ``old`` in whitespace only."""
    spans = list(_match_ignoring_spaces(text, old))
    if not spans:
        return None
    first = spans[0]
    lines = text.split("\n")[first.first - 1 : first.last]
    reason = (
        f"{first.named().capitalize()} {'differs' if first.first == first.last else 'differ'} "
        f"from old_string only in {_name_spaces(lines, old)}."
    )
    if len(spans) > 1:
        reason += f" ({len(spans)} such places; this is the first.)"
    return reason, first


def _match_ignoring_spaces(text: str, part: str) -> Iterator[LineSpan]:
    """Yield the lines where ``part`` occurs if all whitespace is left out of both."""
    wanted = "".join(part.split())
    if len(wanted) < _MIN_MATCHED_CHARACTERS:
        return
    lines = text.split("\n")
    squeezed = ["".join(line.split()) for line in lines]
    starts: list[int] = []
    total = 0
    for line in squeezed:
        starts.append(total)
        total += len(line)
    whole = "".join(squeezed)
    at = whole.find(wanted)
    number = 0
    while at >= 0:
        while number + 1 < len(starts) and starts[number + 1] <= at:
            number += 1
        last = number
        while last + 1 < len(starts) and starts[last + 1] < at + len(wanted):
            last += 1
        yield LineSpan(number + 1, last + 1)
        at = whole.find(wanted, at + len(wanted))


def _name_spaces(lines: Sequence[str], old: str) -> str:
    """Name the kind of whitespace in which the file's ``lines`` and ``old`` differ."""
    theirs = old.strip("\n").split("\n")
    filled = [line.strip() for line in theirs if line.strip()]
    if len(lines) == len(theirs):
        pairs = list(zip(lines, theirs, strict=True))
        if all(ours.rstrip() == their.rstrip() for ours, their in pairs):
            if old.strip("\n") != old and all(ours == their for ours, their in pairs):
                return "line breaks at its start or end"
            return "whitespace at line ends"
        if all(ours.strip() == their.strip() for ours, their in pairs):
            return "indentation" + _tabs(lines, theirs)
        if all("".join(ours.split()) == "".join(their.split()) for ours, their in pairs):
            return "whitespace within lines"
    if [line for line in lines if line.strip()] == [line for line in theirs if line.strip()]:
        return "blank lines"
    if [line.strip() for line in lines if line.strip()] == filled:
        return "blank lines and indentation"
    return "whitespace and line breaks"


def _tabs(lines: Sequence[str], theirs: Sequence[str]) -> str:
    ours_have = any("\t" in _indent(line) for line in lines)
    theirs_have = any("\t" in _indent(line) for line in theirs)
    if ours_have and not theirs_have:
        return " (the file has tabs, old_string spaces)"
    if theirs_have and not ours_have:
        return " (the file has spaces, old_string tabs)"
    return ""


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _find_written_out(text: str, old: str) -> tuple[str, LineSpan] | None:
    """Find a place equal to ``old`` once its escapes or entities are resolved."""
    plain = _ESCAPED.sub(lambda match: _UNESCAPED[match[1]], old)
    span = _find_variant(text, old, plain)
    if span is not None:
        return (
            r"old_string has escapes (\n, \t, \") where the file has the characters themselves.",
            span,
        )
    span = _find_variant(text, old, html.unescape(old))
    if span is not None:
        return (
            "old_string has entities (&lt;, &amp;) where the file has the characters themselves.",
            span,
        )
    return None


def _find_numbered(text: str, old: str) -> tuple[str, LineSpan] | None:
    """Find a place equal to ``old`` without the line numbers at its line starts."""
    span = _find_variant(text, old, _LINE_NUMBER.sub("", old))
    if span is None:
        return None
    return "old_string has line numbers that are not part of the file.", span


def _find_typographic(text: str, old: str) -> tuple[str, LineSpan] | None:
    """Find a place that differs from ``old`` only in the form of its quotes and dashes."""
    plain = "\n".join(make_plain(line).translate(_TYPOGRAPHY) for line in text.split("\n"))
    span = next(_match_ignoring_spaces(plain, make_plain(old).translate(_TYPOGRAPHY)), None)
    if span is None:
        return None
    reason = "old_string has other quotes or dashes (straight or typographic) than the file."
    named = {
        char: f"{name_character(char)} at line {number}, column {column}"
        for number, line in reversed(list(enumerate(text.split("\n")[: span.last], 1)))
        for column, char in reversed(list(enumerate(line, 1)))
        if number >= span.first and char in _TYPOGRAPHIC and char not in old
    }
    if named:
        reason += f" The file has {', '.join(list(named.values())[:-4:-1])}."
    return reason, span


def _find_elided(text: str, old: str) -> tuple[str, LineSpan] | None:
    """Find the lines between the first and the last of ``old``, which has ``...`` between."""
    theirs = [line.strip() for line in old.strip("\n").split("\n")]
    if not any(_ELISION.match(line) for line in theirs[1:-1]):
        return None
    lines = [line.strip() for line in text.split("\n")]
    if theirs[0] not in lines:
        return None
    first = lines.index(theirs[0])
    if theirs[-1] not in lines[first:]:
        return None
    last = lines.index(theirs[-1], first)
    return "old_string leaves lines out (...), but it must have every line.", LineSpan(
        first + 1, last + 1
    )


def _find_variant(text: str, old: str, variant: str) -> LineSpan | None:
    if variant == old or not variant.strip():
        return None
    return next(_match_ignoring_spaces(text, variant), None)


def _say_difference(lines: Sequence[str], span: LineSpan, old: str) -> str:
    theirs = old.strip("\n").split("\n")
    if len(theirs) == 1:
        return ""
    for number, line in enumerate(theirs, span.first):
        if number > span.last or lines[number - 1] != line:
            return f" They first differ in line {number}."
    return ""


def _show_block(lines: Sequence[str], span: LineSpan) -> str:
    """Return the lines as they are; of very many, the first."""
    shown = [cut_line(line, _BLOCK_LINE_CHARACTERS) for line in lines[span.first - 1 : span.last]]
    if len(shown) > _BLOCK_LINES:
        left = len(shown) - _BLOCK_LINES
        shown = [*shown[:_BLOCK_LINES], f"[... {left} more lines, see them with read_file ...]"]
    return "\n".join(shown)
