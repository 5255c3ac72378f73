"""Tell calls that a turn makes from calls that it only drafts or shows.

Each function decides only what no continuation of the text could change; it raises ``Undecided``
where more text may tell, so the outcome does not depend on how the text is cut into pieces.
"""

from __future__ import annotations

import re

_FENCE = re.compile(r"[ \t]*(```+|~~~+)")
_CALL_TAG = re.compile(r"^</?tool_call>", re.MULTILINE)
_CALL_END = re.compile(r"^[ \t]*(?:</tool_call>|</function>)", re.MULTILINE)
_OPENERS = ("<tool_call>", "</tool_call>", "<function=")
_BACKTICK = re.compile("`")
_QUOTED = re.compile(r" ?>[ \t>]*\Z")
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


class Examples:
    """Finds where examples end in the visible text of one turn, looking at each line once."""

    def __init__(self) -> None:
        self._section = 0
        self._line = 0  # up to here the fences are known
        self._fence: str | None = None
        self._looked: dict[int, int] = {}  # from each place, up to where there was no end

    def end(self, text: str, section: int, place: int, *, ended: bool) -> int | None:
        """Return where the example ends that the call at ``place`` is part of; None for a real one.

        ``section`` is where the visible text began. An example stands in a code fence that is
        closed after it, in an indented or quoted block that other text follows, or in backticks.
        """
        line = text.rfind("\n", section, place) + 1 or section
        if (mark := self._open_fence(text, section, line)) is not None:
            closing = re.compile(rf"^[ \t]*{mark}{mark[0]}*[ \t]*$(?=\n)", re.M)
            return self._after(closing, text, place, ended)
        before = text[line:place]
        if before.endswith("`") and before.count("`") % 2:
            return self._after(_BACKTICK, text, place, ended)
        if _INDENTED.match(before):
            return self._end_of_block((" " * 4, "\t"), text, place, ended)
        if _QUOTED.match(before):
            return self._end_of_block((">", " >"), text, place, ended)
        return None

    def _open_fence(self, text: str, section: int, line: int) -> str | None:
        """Return the mark of the code fence that is open before ``line``; None if none is."""
        if section != self._section:
            self._section, self._line, self._fence = section, section, None
        for at in text[self._line : line].split("\n"):
            found = _FENCE.match(at)
            if found is None:
                continue
            if self._fence is None:
                self._fence = found[1]
            elif found[1].startswith(self._fence) and not at.strip().strip(self._fence[0]):
                self._fence = None
        self._line = line
        return self._fence

    def _after(self, pattern: re.Pattern[str], text: str, place: int, ended: bool) -> int | None:
        """Return the end of the first match after ``place``; None if the text ended without one."""
        # At the very end a closing line needs no line feed after it.
        found = pattern.search(text + "\n" if ended else text, self._looked.get(place, place))
        if found is not None:
            return min(found.end(), len(text))
        if ended:
            return None
        self._looked[place] = max(place, text.rfind("\n") + 1)
        raise Undecided

    def _end_of_block(
        self, starts: tuple[str, str], text: str, place: int, ended: bool
    ) -> int | None:
        """Return where the block of lines with ``starts`` ends; None if the turn ends with it."""
        at = self._looked.get(place, text.find("\n", place))
        while at >= 0:
            end = text.find("\n", at + 1)
            line = text[at + 1 : end if end >= 0 else len(text)]
            if end < 0 and not ended and (not line.strip() or len(line) < 5):
                self._looked[place] = at
                raise Undecided
            if line.strip() and not line.startswith(starts):
                if _CALL_TAG.match(line) or line.startswith("<function="):
                    return None
                if end < 0 and not ended and any(tag.startswith(line) for tag in _OPENERS):
                    self._looked[place] = at
                    raise Undecided
                return at + 1
            at = end
        if ended:
            return None
        raise Undecided
