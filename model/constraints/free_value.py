"""A value that may hold any text: where it ends is told by the parser's own rules.

Nothing is escaped in a call, so a value may spell markup. The parser (``model.chat.parser``) looks
at marks that start a line; this state follows it byte by byte. What it would take for the end of
the value in any form but the template's own is refused, so that what is written is what is read.
Calls that the value spells from their beginning to their end are part of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from model.chat.markup import END_OF_VALUE, NAME, clean_name
from model.constraints.text_state import TextState
from model.constraints.token_table import TokenTable

CLOSE = b"\n</parameter>\n"
_OPENINGS = ("<tool_call>", "<function=")
_MARKS = (*_OPENINGS, "</parameter", "<parameter=", "</function>", "</tool_call>")
_TAG = re.compile(rf"<(?:function|parameter)=({NAME})(>|\r?\n)")
_OPEN_TAG = re.compile(r"<(?:function|parameter)=[^<>\r\n]{0,200}\r?\Z")
_OPEN_END = re.compile(r"</parameter(?:=[^<>\n]{0,200})?[ \t]*\r?\Z", re.IGNORECASE)
_FOLLOW = {
    "</parameter": ("<parameter=", "</function", "</tool_call"),
    "</function>": ("</tool_call>", "<tool_call>", "<function="),
    "</tool_call>": ("<tool_call>", "<function="),
}
_WHOLE = (*(mark.encode() for mark in _MARKS), b"</function", b"</tool_call")
_TEXT, _OPEN, _REFUSED, _ENDED = "text", "open", "refused", "ended"

Ending = Callable[[bytes], TextState | None]
"""Gives the state after a value and ``<parameter=`` or ``</function``, None if it may not come."""


class FreeValue(TextState):
    """Inside a value. ``awaited`` are the parameters that were not given yet.

    ``tail`` are the bytes from a line break on that may still become markup, ``spelled`` the end
    tags of calls that the value spells.
    """

    free = True

    def __init__(
        self,
        ending: Ending,
        awaited: frozenset[str],
        tail: bytes = b"\n",
        spelled: tuple[str, ...] = (),
        known: dict[tuple[bytes, tuple[str, ...]], FreeValue] | None = None,
    ) -> None:
        super().__init__()
        self._ending, self._awaited = ending, awaited
        self.tail, self._spelled = tail, spelled
        self._known = {} if known is None else known
        self._known[tail, spelled] = self

    def suspects(self, table: TokenTable) -> Iterable[int]:
        """Return the marked tokens, and those with which a mark would be whole."""
        found = set(table.marked)
        begun = self.tail[self.tail.rfind(b"<") :] if b"<" in self.tail else b""
        if begun:
            # The last byte that decides is that of a mark, or the end of an opening tag.
            for mark in _WHOLE:
                if mark.startswith(begun) and mark != begun:
                    found.update(table.starting(mark[len(begun) :]))
            if b"=" in begun:
                found.update(table.ending_tags)
        return found

    def _step(self, byte: int) -> TextState | None:
        if not self.tail:
            return self._at(b"\n", self._spelled) if byte == 10 else self
        tail, spelled = self.tail + bytes([byte]), self._spelled
        while True:
            verdict, spelled_now = self._judge(tail, spelled)
            if verdict == _OPEN:
                return self._at(tail, spelled)
            if verdict == _REFUSED:
                return None
            if verdict == _ENDED:
                return self._ending(tail[len(CLOSE) :])
            if spelled_now != spelled:
                return self._at(b"\n" if tail.endswith(b"\n") else b"", spelled_now)
            later = tail.find(b"\n", 1)
            if later < 0:
                return self._at(b"", spelled)
            tail = tail[later:]

    def _at(self, tail: bytes, spelled: tuple[str, ...]) -> FreeValue:
        known = self._known.get((tail, spelled))
        return known or FreeValue(self._ending, self._awaited, tail, spelled, self._known)

    def _judge(self, tail: bytes, spelled: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """Return what ``tail`` is, and the calls that are spelled after it."""
        text = _decoded(tail)[1:]
        low = text.lower()
        if any(mark.startswith(low) for mark in _MARKS if mark != low):
            return _OPEN, spelled
        mark = next((mark for mark in _MARKS if low.startswith(mark)), None)
        if mark is None:
            return _TEXT, spelled
        rest = text[len(mark) :]
        if mark == "<tool_call>":
            verdict = _follows(rest, ("<function=",))
            opened = (*spelled, "</tool_call>") if verdict == _ENDED else spelled
            return (_OPEN if verdict == _OPEN else _TEXT), opened
        if mark == "<function=":
            return self._judge_function(text, spelled)
        if spelled:
            return _TEXT, spelled[:-1] if mark == spelled[-1] else spelled
        if mark == "<parameter=":
            return self._judge_parameter(text), spelled
        if mark == "</parameter":
            return self._judge_end(tail, text), spelled
        verdict = _follows(rest, _FOLLOW[mark])
        return (_REFUSED if verdict == _ENDED else verdict), spelled

    def _judge_function(self, text: str, spelled: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        if _OPEN_TAG.match(text):
            return _OPEN, spelled
        tag = _TAG.match(text)
        if tag is None:
            return _TEXT, spelled
        if tag[2] == ">" and len(text) == tag.end():
            return _OPEN, spelled
        opens = tag[2] != ">" or text[tag.end()] in "\r\n<"
        return _TEXT, (*spelled, "</function>") if opens else spelled

    def _judge_parameter(self, text: str) -> str:
        if _OPEN_TAG.match(text):
            return _OPEN
        tag = _TAG.match(text)
        return _REFUSED if tag and clean_name(tag[1]) in self._awaited else _TEXT

    def _judge_end(self, tail: bytes, text: str) -> str:
        if _OPEN_END.match(text):
            return _OPEN
        found = END_OF_VALUE.match(text)
        if found is None:
            return _TEXT
        verdict = _follows(text[found.end() :], _FOLLOW["</parameter"])
        if verdict != _ENDED:
            return verdict
        own = tail in (CLOSE + b"<parameter=", CLOSE + b"</function")
        return _ENDED if own else _REFUSED


def _follows(rest: str, marks: tuple[str, ...]) -> str:
    """Tell whether one of ``marks`` comes after space, may still come, or does not."""
    rest = rest.lstrip()
    if any(rest.startswith(mark) for mark in marks):
        return _ENDED
    return _OPEN if any(mark.startswith(rest) for mark in marks) else _TEXT


def _decoded(tail: bytes) -> str:
    """Return ``tail`` as text, without the beginning of a character at its end."""
    text = tail.decode("utf-8", "replace")
    return text.rstrip("\ufffd") if text.endswith("\ufffd") else text
