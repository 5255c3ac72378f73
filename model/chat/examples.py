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
_TICKS = re.compile("`+")
_QUOTED = re.compile(r" ?>[ \t>]*\Z")
_INDENTED = re.compile(r"(?: {4}|\t)[ \t]*\Z")
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}
_ELEMENT = re.compile(
    r"<(/?)(pre|code|samp|kbd|xmp|blockquote|examples?|details|textarea)\b[^<>\n]*>|<!--|-->", re.I
)
_ONLY_TAGS = re.compile(r"(?:\s|<[^<>\n]*>)*\Z")
_VALUE_OR_CALL = re.compile(r"</parameter|<tool_call>")


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


def in_opened_draft(text: str, section: int, place: int, *, ended: bool) -> bool:
    """Tell whether the call at ``place`` lies in reasoning that visible text opened."""
    opened = text.rfind("<think>", section, place)
    if opened < 0 or text.find("</think>", opened, place) >= 0:
        return False
    return draft_ends(text, place, ended=ended)


def is_mention(text: str, place: int, after: int, *, ended: bool) -> bool:
    """Tell whether the ``</think>`` at ``place`` stands in backticks and another one follows."""
    if text[place - 1 : place] != "`":
        return False
    if after == len(text) and not ended:
        raise Undecided
    if not text.startswith("`", after):
        return False
    follows = text.find("</think>", after) >= 0
    if not follows and not ended:
        raise Undecided
    return follows


class Examples:
    """Finds where examples end in the visible text of one turn, looking at each line once."""

    def __init__(self) -> None:
        self._section = 0
        self._line = 0  # up to here the fences are known
        self._fence: str | None = None
        self._looked: dict[int, int] = {}  # from each place, up to where there was no end

    def end(self, text: str, section: int, place: int, *, ended: bool) -> int | None:
        """Return where the example ends that the call at ``place`` is part of; None for a real one.

        ``section`` is where the text began. An example stands in a code fence, in backticks, in
        quotes, in a comment or an element such as ``<pre>``, each closed after it and outside of
        its values, or in an indented or quoted block that text goes before or follows.
        """
        line = text.rfind("\n", section, place) + 1 or section
        before = text[line:place]
        closing = None
        if (mark := self._open_fence(text, section, line)) is not None:
            closing = re.compile(rf"^[ \t]*{mark}{mark[0]}*[ \t]*$(?=\n)", re.M)
        elif ticks := _open_ticks(before):
            closing = re.compile(f"(?<!`){ticks}(?!`)")
        elif before[-1:] in _QUOTES and before:
            closing = re.compile(_QUOTES[before[-1]])
        elif element := _open_element(text, section, place):
            closing = re.compile("-->" if element == "!" else rf"</{element}\s*>", re.I)
        if closing is not None:
            return self._after(closing, text, place, ended)
        if _INDENTED.match(before):
            return self._end_of_block((" " * 4, "\t"), text, section, place, ended)
        if _QUOTED.match(before):
            return self._end_of_block((">", " >"), text, section, place, ended)
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
        looked = text + "\n" if ended else text
        for found in pattern.finditer(looked, self._looked.get(place, place)):
            if not _in_value(text, place, found.start(), ended):
                return min(found.end(), len(text))
            self._looked[place] = found.end()
        if ended:
            return None
        self._looked[place] = max(self._looked.get(place, place), text.rfind("\n") + 1)
        raise Undecided

    def _end_of_block(
        self, starts: tuple[str, str], text: str, section: int, place: int, ended: bool
    ) -> int | None:
        """Return where the block of lines with ``starts`` ends; None if it is the whole turn."""
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
        if ended:  # a turn of nothing but its block is a call that a model indented
            return (
                len(text) if text[section : text.rfind("\n", section, place) + 1].strip() else None
            )
        raise Undecided


def _open_ticks(before: str) -> str:
    """Return the backticks that open a code span in the line ``before`` and do not close it."""
    opened = ""
    for ticks in _TICKS.findall(before):
        opened = ticks if not opened else "" if ticks == opened else opened
    return opened


def _open_element(text: str, section: int, place: int) -> str:
    """Return the element around ``place`` that shows text, ``!`` for a comment, or nothing.

    It counts where it begins a line or nothing but tags stand between it and ``place``.
    """
    opened = ""
    for tag in _ELEMENT.finditer(text, section, place):
        name = "!" if tag[2] is None else tag[2].lower()
        if tag[0] == "-->" or tag[1]:
            opened = "" if name == opened else opened
        elif not opened:
            line = text.rfind("\n", section, tag.start()) + 1 or section
            begins = _ONLY_TAGS.match(text, line, tag.start())
            opened = name if begins or _ONLY_TAGS.match(text, tag.end(), place) else ""
    return opened


def _in_value(text: str, call: int, place: int, ended: bool) -> bool:
    """Tell whether ``place`` lies in a value of the call that begins at ``call``."""
    if text.count("<parameter=", call, place) <= text.count("</parameter", call, place):
        return False
    following = _VALUE_OR_CALL.search(text, place)
    if following is None and not ended:
        raise Undecided
    return following is not None and following[0] == "</parameter"
