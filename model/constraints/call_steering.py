"""Steers a turn so that every call in it is well formed."""

from __future__ import annotations

from model.constraints.text_state import TextState
from model.constraints.token_table import TokenTable
from model.constraints.turn_text import TurnTexts
from model.steering import ANY, TokenMask


class CallSteering:
    """Follows one turn and says what its next token may be.

    A turn that was sampled without it, and is told to it in its middle, may have left what it
    allows: then it is ``lost`` and allows everything.
    """

    def __init__(
        self, table: TokenTable, texts: TurnTexts, stop_ids: frozenset[int], *, thinking: bool
    ) -> None:
        """Begin a turn; ``thinking`` says that the prompt has opened the reasoning."""
        self._table, self._texts, self._stop_ids = table, texts, stop_ids
        self._thinking = thinking
        self._state: TextState | None = texts.reasoning if thinking else texts.begun

    @property
    def lost(self) -> bool:
        """True if the turn has left what is allowed."""
        return self._state is None

    @property
    def in_call(self) -> bool:
        """True inside a call."""
        return self._state is not None and self._state.call

    def push(self, token: int, *, thinking: bool) -> None:
        """Take the turn's next token, after which its reasoning is open if it is ``thinking``."""
        if thinking != self._thinking:
            self._thinking = thinking
            self._state = self._texts.reasoning if thinking else self._texts.begun
        elif self._state is not None:
            self._state = self._state.feed(self._table.bytes_of(token))

    def mask(self) -> TokenMask:
        """Return what may come next."""
        if self._state is None:
            return ANY
        return self._state.mask(self._table, self._stop_ids)
