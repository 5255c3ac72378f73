"""The visible text of a turn: free, but a call can only begin as the template writes it.

What the parser would take for a call, or for the rest of one, in any other form is refused:
``<function=`` at the start of a line, and after a call an end tag there. Reasoning cannot begin
anew, and a call is not begun inside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from model.constraints.call_grammar import Bounds, CallGrammar
from model.constraints.text_state import TextState
from model.constraints.token_table import TokenTable
from model.messages import ToolSchema

_CALL, _FUNCTION, _THINK = b"<tool_call>", b"<function=", b"<think>"
_ENDS = (b"</parameter>", b"</function>")
_MARKS = (_CALL, _FUNCTION, _THINK, *_ENDS)
_SPACE = b" \t\r\n"


class VisibleText(TextState):
    """Outside of calls. ``tail`` may become a mark; ``blank`` says that only space comes before it
    in its line; ``ticks`` that a backtick is open in it; ``called`` that a call came before."""

    free, call = True, False

    def __init__(
        self,
        texts: TurnTexts,
        tail: bytes = b"",
        *,
        blank: bool = True,
        ticks: bool = False,
        called: bool = False,
    ) -> None:
        super().__init__()
        self._texts, self._tail = texts, tail
        self._blank, self._ticks, self._called = blank, ticks, called

    def suspects(self, table: TokenTable) -> Iterable[int]:
        """Return the marked tokens, and those with which a mark would be whole."""
        found = set(table.marked)
        for mark in _MARKS:
            if self._tail and mark.startswith(self._tail):
                found.update(table.starting(mark[len(self._tail) :]))
        return found

    def _step(self, byte: int) -> TextState | None:
        tail = self._tail + bytes([byte])
        if not any(mark.startswith(tail) for mark in _MARKS):
            if self._tail:
                # The mark failed: it is plain text, and this byte may begin another one.
                return self._plain(blank=False).step(byte)
            return self._past(byte)
        if tail == _CALL:
            start = self._texts.grammar.start
            return MentionedTag(self._plain(blank=False)) if self._ticks else start
        if tail == _THINK or (tail == _FUNCTION and self._blank):
            return None
        if tail in _ENDS and self._blank and self._called:
            return None
        if tail in _MARKS:
            return self._plain(blank=True)
        return self._texts.visible(tail, self._blank, self._ticks, self._called)

    def _plain(self, *, blank: bool) -> TextState:
        return self._texts.visible(b"", blank, self._ticks, self._called)

    def _past(self, byte: int) -> TextState:
        if byte == 10:
            return self._texts.visible(b"", True, False, self._called)
        # After other markup a line counts as begun anew; a byte of a character may be space.
        blank = byte == ord(">") or (self._blank and (byte in _SPACE or byte >= 128))
        ticks = self._ticks != (byte == ord("`"))
        return self._texts.visible(b"", blank, ticks, self._called)


class MentionedTag(TextState):
    """After ``<tool_call>`` inside backticks: whatever does not make a call of it."""

    free, call = True, False

    def __init__(self, then: TextState) -> None:
        super().__init__()
        self._then = then

    def suspects(self, table: TokenTable) -> Iterable[int]:
        """Return the tokens that begin with what would make it a call."""
        places = [table.starting(bytes([byte])) for byte in (*_SPACE, *b"<{", *range(128, 256))]
        return {at for found in places for at in found}.union(table.marked)

    def _step(self, byte: int) -> TextState | None:
        return None if byte in (*_SPACE, *b"<{") or byte >= 128 else self._then.step(byte)


class Reasoning(TextState):
    """Inside open reasoning, in which no call begins."""

    free, call = True, False

    def __init__(self, known: dict[bytes, Reasoning] | None = None, tail: bytes = b"") -> None:
        super().__init__()
        self._known, self._tail = {} if known is None else known, tail
        self._known[tail] = self

    def suspects(self, table: TokenTable) -> Iterable[int]:
        """Return the marked tokens, and those with which the mark would be whole."""
        found = set(table.marked)
        if self._tail:
            found.update(table.starting(_CALL[len(self._tail) :]))
        return found

    def _step(self, byte: int) -> TextState | None:
        tail = self._tail + bytes([byte])
        if not _CALL.startswith(tail):
            tail = b"<" if byte == ord("<") else b""
        if tail == _CALL:
            return None
        return self._known.get(tail) or Reasoning(self._known, tail)


class TurnTexts:
    """The states of a turn's text with given tools; several turns may share it."""

    def __init__(self, tools: Sequence[ToolSchema], bounds: Bounds | None = None) -> None:
        self._known: dict[tuple[bytes, bool, bool, bool], VisibleText] = {}
        self.reasoning = Reasoning()
        self.begun = self.visible(b"", True, False, False)
        after = self.visible(b"", True, False, True)
        self.grammar = CallGrammar(tools, after, bounds)

    def visible(self, tail: bytes, blank: bool, ticks: bool, called: bool) -> TextState:
        """Return the state of visible text with these facts."""
        key = (tail, blank, ticks, called)
        if key not in self._known:
            self._known[key] = VisibleText(self, tail, blank=blank, ticks=ticks, called=called)
        return self._known[key]
