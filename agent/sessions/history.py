"""History of a session: the live conversation of a trajectory, whatever was abandoned on the way.

A ``rewind`` record takes back what came after its step: those records stay readable in the file and
are not live any more. A prompt with ``at`` replaces the ids from there on (old reasoning dropped,
or another tokenizer); the steps before it stay live.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agent.errors import StoreError
from agent.sessions.records import (
    ASKED_FOR,
    CheckRecord,
    PromptRecord,
    Record,
    ResumeRecord,
    RewindRecord,
    SessionRecord,
    WordsRecord,
)
from agent.sessions.store import SavedSession
from agent.sessions.trajectory import read_records
from agent.types import CheckRun, Step
from model.messages import Message
from model.usage import Usage


@dataclass(frozen=True)
class History:
    """A session up to the end of its last live step.

    ``ids`` are the session's tokens there, ``earlier`` those at the end of the step before.
    ``messages`` are the conversation, the assistant's turns included; ``turn_ids`` are the tokens
    of its last turn, which may be several steps if it was stopped. ``usage`` adds up all steps
    ever taken, abandoned ones too. ``loose`` says that records follow the last live step which no
    step completed. ``check`` is the check as it was before the model began.
    ``system`` are the system messages it began with, ``asked`` what else it was told as a user, and
    ``since_compaction`` how many steps were taken since the context was last given up.
    ``pending`` are messages that a user sent and no step answered; ``tokenizer`` is what the ids
    belong to, "" if the record does not say, and ``thinking`` how the last turn was generated.
    """

    steps: tuple[Step, ...] = ()
    ids: tuple[int, ...] = ()
    earlier: tuple[int, ...] = ()
    messages: tuple[Message, ...] = ()
    turn_ids: tuple[int, ...] = ()
    usage: Usage = field(default_factory=Usage)
    loose: bool = False
    check: CheckRun | None = None
    pending: tuple[Message, ...] = ()
    tokenizer: str = ""
    thinking: str = "preserve"
    system: tuple[Message, ...] = ()
    asked: tuple[str, ...] = ()
    since_compaction: int = 0

    @property
    def tree(self) -> str:
        """The checkpoint of the files after the last step; "" before the first."""
        return self.steps[-1].tree if self.steps else ""


def live_records(records: Iterable[Record]) -> list[Record]:
    """Return the records without those that a later rewind took back, and without the rewinds."""
    live: list[Record] = []
    for record in records:
        if isinstance(record, RewindRecord):
            live = live[: _end_of_step(live, record.to)]
        else:
            live.append(record)
    return live


def records_of(saved: SavedSession) -> list[Record]:
    """Read all records of a session that can go on. Raises ``StoreError`` if it cannot."""
    info = saved.info
    if not info.complete or not saved.files.is_dir():
        why = f" ({', '.join(info.wrong)} in session.json)" if info.wrong else ""
        raise StoreError(
            f"session {saved.id} cannot go on: it is damaged{why}, of an older version, or was "
            "killed before its files were saved; start anew with agent solve"
        )
    records = list(read_records(saved.trajectory)) if saved.trajectory.exists() else []
    there = sum(isinstance(record, Step) for record in records)
    if there < (info.steps or 0):  # none is ever removed
        raise cut_error(saved, f"{there} of at least {info.steps} steps are there")
    return records


def cut_error(saved: SavedSession, left: str) -> StoreError:
    """Return the error for a trajectory that lacks what the rest of the session shows."""
    return StoreError(
        f"session {saved.id} cannot go on: its {saved.trajectory.name} was cut, {left}; "
        "put back a copy of it, or start anew with agent solve"
    )


def history_of(records: Sequence[Record], steps: int | None = None) -> History:
    """Return the history that ``records`` add up to, or as it was at the end of step ``steps``.

    Raises ``StoreError`` if they do not fit together.
    """
    live = live_records(records)
    if steps is not None:
        live = live[: _end_of_step(live, steps)]
    fold = _Fold()
    try:
        for record in live:
            fold.add(record)
    except IndexError as error:
        raise StoreError("the trajectory is damaged; it cannot go on") from error
    return fold.history(_spent(records))


def _spent(records: Iterable[Record]) -> Usage:
    """Return what all steps cost. What a user went back from is abandoned, not computed twice."""
    every, live = Usage(), list[Usage]()
    for record in records:
        if isinstance(record, Step):
            every += record.usage
            live.append(record.usage)
        elif isinstance(record, RewindRecord):
            dropped = sum(live[record.to :], start=Usage())
            del live[record.to :]
            paid = dropped.prefilled_tokens + dropped.generated_tokens + dropped.shared_tokens
            left = paid if record.why == ASKED_FOR else 0
            regained = -dropped.compacted_tokens
            every += Usage(compacted_tokens=regained, abandoned_tokens=left)
    return every


def most_tokens(records: Iterable[Record]) -> int:
    """Return how many tokens the session had at the end of any step, abandoned ones too."""
    ends, most = [0], 0
    prompt: PromptRecord | None = None
    for record in records:
        match record:
            case RewindRecord(to):
                prompt, ends = None, ends[: to + 1]
            case PromptRecord():
                prompt = record
            case Step():
                length = ends[-1]
                if prompt is not None:
                    at = length if prompt.at is None else min(prompt.at, length)
                    length = at + len(prompt.ids)
                ends.append(length + len(record.token_ids))
                prompt, most = None, max(most, ends[-1])
            case _:
                pass
    return most


@dataclass
class _Fold:
    """The history of the live records so far; the fields are those of ``History``."""

    taken: list[Step] = field(default_factory=list)
    ids: tuple[int, ...] = ()
    earlier: tuple[int, ...] = ()
    messages: list[Message] = field(default_factory=list)
    prompt: PromptRecord | None = None
    turn: tuple[int, ...] = ()
    check: CheckRun | None = None
    pending: tuple[Message, ...] = ()
    tokenizer: str = ""
    mode: str = "preserve"
    thinking: str = "preserve"
    system: tuple[Message, ...] = ()
    asked: list[str] = field(default_factory=list)
    since: int = 0

    def add(self, record: Record) -> None:
        match record:
            case SessionRecord(info):
                self.tokenizer = info.tokenizer or self.tokenizer
                self.mode = info.thinking or self.mode
                self.pending = ()
            case ResumeRecord():
                self.mode = record.thinking or self.mode
                self.pending = record.messages or ()
            case WordsRecord(messages):
                self.pending = messages
            case PromptRecord():
                self.prompt = record
            case CheckRecord("before", run):
                self.check = run
            case Step():
                self._step(record)
            case _:
                pass

    def _step(self, step: Step) -> None:
        self.earlier = self.ids
        if self.prompt is None:
            # The same turn goes on: its message is written whole again.
            self.messages.pop()
        else:
            self._heard(self.prompt)
        self.ids += step.token_ids
        self.turn += step.token_ids
        self.messages.append(step.message)
        self.taken.append(step)
        self.since += 1
        self.prompt, self.pending, self.thinking = None, (), self.mode

    def _heard(self, prompt: PromptRecord) -> None:
        self.ids = self.ids[: prompt.at] + prompt.ids
        told = prompt.messages
        if prompt.compacted is not None:
            self.messages, self.since = [], 0
        else:
            self.asked += (message.content for message in told if message.said)
        self.system = self.system or tuple(m for m in told if m.role == "system")
        self.messages += told
        self.turn = ()
        self.tokenizer = prompt.tokenizer or self.tokenizer

    def history(self, spent: Usage) -> History:
        return History(
            steps=tuple(self.taken),
            ids=self.ids,
            earlier=self.earlier,
            messages=tuple(self.messages),
            turn_ids=self.turn,
            usage=spent,
            loose=self.prompt is not None,
            check=self.check,
            pending=self.pending,
            tokenizer=self.tokenizer,
            thinking=self.thinking,
            system=self.system,
            asked=tuple(self.asked),
            since_compaction=self.since,
        )


def _end_of_step(live: Sequence[Record], steps: int) -> int:
    """Return how many of ``live`` there are up to the end of step ``steps``.

    For 0 it is those before the first prompt.
    """
    seen = 0
    for number, record in enumerate(live):
        if steps == 0 and isinstance(record, PromptRecord):
            return number
        seen += isinstance(record, Step)
        if steps and seen == steps:
            return number + 1
    return len(live)
