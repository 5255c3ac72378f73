"""Run language models of the Qwen3.5 family: tokens in, tokens out. Knows nothing of tools.

These names are what other programs may use; ``docs/python.md`` shows them at work. Importing the
package loads nothing: each name brings its module at its first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.chat.chat_format import ChatFormat
    from model.chat.tokenizer import Tokenizer
    from model.checkpoint.hub import resolve
    from model.engine import Engine
    from model.errors import (
        CheckpointError,
        ContextFull,
        MemoryFull,
        ModelError,
        ModelNotFound,
        SessionClosed,
        StateError,
    )
    from model.messages import Message, ToolCall
    from model.sampling import SamplingParams
    from model.session import Session, Snapshot, TokenEvent
    from model.usage import Usage

_HOMES = {
    "ChatFormat": "model.chat.chat_format",
    "Tokenizer": "model.chat.tokenizer",
    "resolve": "model.checkpoint.hub",
    "Engine": "model.engine",
    "CheckpointError": "model.errors",
    "ContextFull": "model.errors",
    "MemoryFull": "model.errors",
    "ModelError": "model.errors",
    "ModelNotFound": "model.errors",
    "SessionClosed": "model.errors",
    "StateError": "model.errors",
    "Message": "model.messages",
    "ToolCall": "model.messages",
    "SamplingParams": "model.sampling",
    "Session": "model.session",
    "Snapshot": "model.session",
    "TokenEvent": "model.session",
    "Usage": "model.usage",
}

__all__ = [
    "ChatFormat",
    "CheckpointError",
    "ContextFull",
    "Engine",
    "MemoryFull",
    "Message",
    "ModelError",
    "ModelNotFound",
    "SamplingParams",
    "Session",
    "SessionClosed",
    "Snapshot",
    "StateError",
    "TokenEvent",
    "Tokenizer",
    "ToolCall",
    "Usage",
    "resolve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
