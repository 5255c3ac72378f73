"""The events that the parser finds in a turn, in order."""

from __future__ import annotations

from dataclasses import dataclass

from model.messages import ToolCall


@dataclass(frozen=True)
class ThinkingText:
    """More reasoning."""

    text: str


@dataclass(frozen=True)
class ContentText:
    """More visible text."""

    text: str


@dataclass(frozen=True)
class CallStarted:
    """A call's function name is known; its parameters are still being written."""

    name: str


@dataclass(frozen=True)
class CallParsed:
    """A call is complete, or known to be malformed (``call.error``)."""

    call: ToolCall


@dataclass(frozen=True)
class CallRefused:
    """A sign after the last parsed call that it is malformed; ``call`` replaces it."""

    call: ToolCall


TurnEvent = ThinkingText | ContentText | CallStarted | CallParsed | CallRefused
