"""A session's record as one reads it: what was said and done, in order, and what each step cost.

Made from ``trajectory.jsonl``; what was rewound is left out, as in the session itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.sessions.history import live_records
from agent.sessions.trajectory import message_from_json, read_records, step_from_json
from agent.types import Step
from model.messages import Message


@dataclass(frozen=True)
class Told:
    """Messages that went in before a step. Tool results are shown with the step that asked."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Checked:
    """A run of the check."""

    when: str
    exit_code: int | None
    output: str


@dataclass(frozen=True)
class Ended:
    """How the session ended."""

    status: str
    summary: str
    patch: str


Entry = Told | Step | Checked | Ended


@dataclass(frozen=True)
class Trace:
    """A session: what it was started with, and its entries."""

    about: Mapping[str, Any]
    entries: tuple[Entry, ...]

    @property
    def steps(self) -> list[Step]:
        """The steps alone."""
        return [entry for entry in self.entries if isinstance(entry, Step)]


def read_trace(path: Path) -> Trace:
    """The trace of a ``trajectory.jsonl``. Raises ``TrajectoryError``, ``OSError``."""
    return trace_of(read_records(path))


def trace_of(records: Iterable[Mapping[str, Any]]) -> Trace:
    """The trace that the records add up to."""
    about: Mapping[str, Any] = {}
    entries: list[Entry] = []
    for record in live_records(records):
        kind = record["type"]
        if kind == "session":
            about = record
        elif kind == "prompt":
            messages = tuple(
                message_from_json(item) for item in record["messages"] if item["role"] != "tool"
            )
            if messages:
                entries.append(Told(messages))
        elif kind == "step":
            entries.append(step_from_json(record))
        elif kind == "check":
            entries.append(Checked(record["when"], record["exit_code"], record["output"]))
        elif kind == "end":
            entries.append(
                Ended(str(record["status"]), str(record.get("summary", "")), record["patch"])
            )
    return Trace(about, tuple(entries))
