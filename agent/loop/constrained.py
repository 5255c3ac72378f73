"""Steering by ``--constrain`` for one conversation: every call is well formed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from model.chat.chat_format import ChatFormat
from model.constraints.call_grammar import Bounds
from model.constraints.call_steering import CallSteering
from model.constraints.turn_text import TurnTexts
from model.messages import ToolSchema


class ConstrainedCalls:
    """Gives each turn its steering.

    Without ``bounds`` the states are kept from turn to turn; with it they are made anew, since what
    it bounds by (files) has changed.
    """

    def __init__(
        self,
        chat: ChatFormat,
        tools: Sequence[ToolSchema],
        bounds: Callable[[], Bounds] | None = None,
    ) -> None:
        self._chat, self._tools, self._bounds = chat, tools, bounds
        self._texts = TurnTexts(tools) if bounds is None else None

    def begin(self, *, thinking: bool) -> CallSteering:
        """Return the steering of a turn; ``thinking`` says that the prompt opened its reasoning."""
        texts = self._texts
        if texts is None:
            texts = TurnTexts(self._tools, self._bounds() if self._bounds else None)
        table, stops = self._chat.token_table, self._chat.stop_ids
        return CallSteering(table, texts, stops, thinking=thinking)
