"""The records of an attempt."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Message(BaseModel):
    """What one side said."""

    role: str
    content: list[dict[str, Any]]
    reasoning_content: str | None = None

    @property
    def text(self) -> str:
        """The words alone."""
        return "\n".join(block["text"] for block in self.content if block["type"] == "text")


class TraceMessage(BaseModel):
    """A message of the record."""

    trace_id: str
    message: Message


class ToolDispatch(BaseModel):
    """A call of a tool."""

    tool_use_id: str
    tool_name: str
    request_body: dict[str, Any]
    response_status: int
    response_body: Any = None


class MediaLoad(BaseModel):
    """A picture that was shown."""

    sha256: str


class DimensionScores(BaseModel):
    """The scores of an attempt, each in [0, 1]."""

    completion: float = 0.0
    robustness: float = 0.0
    safety: float = 1.0
