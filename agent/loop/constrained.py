"""Steering by ``--constrain`` for one conversation: every call is well formed."""

from __future__ import annotations

from collections.abc import Sequence

from agent.loop.file_bounds import FileBounds
from model.chat.chat_format import ChatFormat
from model.constraints.call_steering import CallSteering
from model.constraints.turn_text import TurnTexts
from model.messages import ToolSchema
from tools.registry import Registry


class ConstrainedCalls:
    """Gives each turn its steering.

    The states are kept from turn to turn. With ``files``, the tools that edit and read them, they
    are made anew, since the files have changed that bound what is written.
    """

    def __init__(
        self,
        chat: ChatFormat,
        tools: Sequence[ToolSchema],
        files: Registry | None = None,
    ) -> None:
        self._chat, self._tools, self._files = chat, tools, files
        self._texts = TurnTexts(tools) if files is None else None

    def begin(self, *, thinking: bool) -> CallSteering:
        """Return the steering of a turn; ``thinking`` says that the prompt opened its reasoning."""
        texts = self._texts
        if texts is None:
            assert self._files is not None
            texts = TurnTexts(self._tools, FileBounds.of(self._files))
        table, stops = self._chat.token_table, self._chat.stop_ids
        return CallSteering(table, texts, stops, thinking=thinking)
