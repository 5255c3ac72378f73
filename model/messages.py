"""The messages that the model reads and writes, and the tool calls inside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from model.vision.picture import Picture

Role = Literal["system", "user", "assistant", "tool"]
Author = Literal["user", "agent"]
ToolSchema = Mapping[str, Any]
"""A function schema as the chat template takes it: ``{"type": "function", "function": {...}}``."""


@dataclass(frozen=True)
class ToolCall:
    """One call as the model wrote it.

    ``error`` is None for a well-formed call. A malformed call (cut off, unknown tool, a parameter
    that does not fit its schema) is still data: ``error`` then says in one sentence what is wrong,
    in words that the model can act on, and ``arguments`` holds what could be read.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    ``content`` is the visible text, ``thinking`` the reasoning before it (assistant only), and
    ``tool_calls`` the calls after it (assistant only). A tool message answers one call, in order.
    ``author`` says who wrote a user message: the user, or the agent in the user's name. ``notes``
    are the paragraphs at the end of ``content`` that the agent added to the user's words.
    ``pictures`` stand before the text, in user and tool messages.
    """

    role: Role
    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    author: Author = "user"
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def said(self) -> str:
        """The user's own words in it."""
        if self.role != "user" or self.author != "user":
            return ""
        return self.content.removesuffix("".join(f"\n\n{note}" for note in self.notes))
