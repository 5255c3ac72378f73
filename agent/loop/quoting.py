"""Files as drafts: what the model read or wrote last is what it will quote next."""

from __future__ import annotations

from dataclasses import dataclass

from agent.loop.conversation import Conversation
from model.messages import ToolCall
from tools.files.seen import SeenFiles
from tools.registry import Registry
from tools.text.text_file import decode
from tools.types import Observation

_MOST_BYTES = 200_000
"""Larger files are not offered: encoding them would hold up the run."""


@dataclass(frozen=True)
class OfferedFiles:
    """An overseer that offers the files of ``seen`` to ``conversation``, as they are now.

    They change how fast the model writes, and nothing of what it writes (``docs/speculation.md``).
    """

    seen: SeenFiles
    conversation: Conversation

    def before(self, call: ToolCall, registry: Registry) -> Observation | None:
        return None

    def after(self, call: ToolCall, seen: Observation) -> Observation:
        for data in self.seen.take_news():
            file = decode(data) if len(data) <= _MOST_BYTES else None
            if file is not None:
                self.conversation.offer(file.text)
        return seen
