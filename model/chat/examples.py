"""Tell calls that a turn makes from calls that it only drafts or shows.

Each function decides only what no continuation of the text could change; it raises ``Undecided``
where more text may tell, so the outcome does not depend on how the text is cut into pieces.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"[ \t]*(```+|~~~+)")
_CALL_TAG = re.compile(r"^</?tool_call>", re.MULTILINE)
_CALL_END = re.compile(r"^[ \t]*(?:</tool_call>|</function>)", re.MULTILINE)
_INDENTED = re.compile(r"(?: {4}|\t)[ \t]*\Z")


class Undecided(Exception):
    """The text so far can go on in ways that read differently; more of it or the end will tell."""


def draft_ends(text: str, place: int, *, ended: bool) -> bool:
    """Tell whether the call at ``place`` of open reasoning is a draft that ``</think>`` follows.

    A ``</think>`` in a value of a call that goes on after it closes nothing.
    """
    close = text.find("</think>", place)
    if close < 0:
        if ended:
            return False
        raise Undecided
    if _CALL_END.search(text, place, close):
        return True
    tag = _CALL_TAG.search(text, close)
    if tag is not None:
        return tag[0] == "<tool_call>"
    if ended:
        return True
    raise Undecided


def example_end(text: str, section: int, place: int, *, ended: bool) -> int | None:
    """Return where the example ends that the call at ``place`` is part of; None for a real call.

    ``section`` is where the visible text began. An example stands in a code fence that is closed
    after it, in an indented block that other text follows, or in backticks.
    """
    line = text.rfind("\n", section, place) + 1 or section
    if (mark := _open_fence(text[section:line])) is not None:
        return _after(
            re.compile(rf"^[ \t]*{mark}{mark[0]}*[ \t]*$(?=\n)", re.M), text, place, ended
        )
    before = text[line:place]
    if before.endswith("`") and before.count("`") % 2:
        return _after(re.compile("`"), text, place, ended)
    if _INDENTED.match(before):
        return _end_of_block(text, place, ended)
    return None


def _open_fence(text: str) -> str | None:
    """Return the mark of the code fence that is open at the end of ``text``; None if none is."""
    mark: str | None = None
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found is None:
            continue
        if mark is None:
            mark = found[1]
        elif found[1].startswith(mark) and not line.strip().strip(mark[0]):
            mark = None
    return mark


def _after(pattern: re.Pattern[str], text: str, place: int, ended: bool) -> int | None:
    """Return the end of the first match after ``place``; None if the text ended without one."""
    # At the very end a closing line needs no line feed after it.
    found = pattern.search(text + "\n" if ended else text, place)
    if found is not None:
        return min(found.end(), len(text))
    if ended:
        return None
    raise Undecided


def _end_of_block(text: str, place: int, ended: bool) -> int | None:
    """Return where the indented block around ``place`` ends; None if the turn ends with it."""
    at = text.find("\n", place)
    while at >= 0:
        end = text.find("\n", at + 1)
        line = text[at + 1 : end if end >= 0 else len(text)]
        if line.strip() and not line.startswith(("    ", "\t")):
            if _CALL_TAG.match(line) or line.startswith("<function="):
                return None
            return at + 1
        if end < 0 and not ended and (not line.strip() or len(line) < 5):
            raise Undecided
        at = end
    if ended:
        return None
    raise Undecided
