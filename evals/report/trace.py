"""A session's record as one reads it: what was said and done, in order, and what each step cost.

Made from ``trajectory.jsonl``; what was rewound is left out, as in the session itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from agent.sessions.history import live_records
from agent.sessions.info import SessionInfo
from agent.sessions.records import CheckRecord, EndRecord, PromptRecord, Record, SessionRecord
from agent.sessions.trajectory import read_records
from agent.types import Step
from model.messages import Message


@dataclass(frozen=True)
class TracePrompt:
    """Messages that went in before a step. Tool results are shown with the step that asked."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class TraceCheck:
    """A run of the check."""

    when: str
    exit_code: int | None
    output: str


@dataclass(frozen=True)
class TraceEnd:
    """The end of the session."""

    status: str
    summary: str
    patch: str


Entry = TracePrompt | Step | TraceCheck | TraceEnd


@dataclass(frozen=True)
class Trace:
    """A session: what it was started with, and its entries."""

    about: SessionInfo
    entries: tuple[Entry, ...]

    @property
    def steps(self) -> list[Step]:
        """The steps alone."""
        return [entry for entry in self.entries if isinstance(entry, Step)]


def read_trace(path: Path) -> Trace:
    """Read the trace of a ``trajectory.jsonl``. Raises ``TrajectoryError``, ``OSError``."""
    return trace_of(read_records(path))


def trace_of(records: Iterable[Record]) -> Trace:
    """Return the trace that the records add up to."""
    about = SessionInfo()
    entries: list[Entry] = []
    for record in live_records(records):
        match record:
            case SessionRecord(info):
                about = info
            case PromptRecord(messages):
                told = tuple(message for message in messages if message.role != "tool")
                if told:
                    entries.append(TracePrompt(told))
            case Step():
                entries.append(record)
            case CheckRecord(when, run):
                entries.append(TraceCheck(when, run.exit_code, run.output))
            case EndRecord():
                entries.append(TraceEnd(record.status, record.summary, record.patch))
            case _:
                pass
    return Trace(about, tuple(entries))
