"""What the model reads and writes: messages, and the tool calls inside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
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
    """

    role: Role
    content: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
