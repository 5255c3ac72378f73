"""What a trajectory adds up to: the conversation that is live, whatever was abandoned on the way.

A ``rewind`` record takes back what came after its step: those records stay readable in the file and
are not live any more. A prompt with ``at`` replaces the ids from there on (old reasoning dropped,
or another tokenizer); the steps before it stay live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.errors import StoreError
from agent.sessions.store import SavedSession
from agent.sessions.trajectory import message_from_json, read_records, step_from_json
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


def live_records(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records without those that a later rewind took back, and without the rewinds."""
    live: list[Mapping[str, Any]] = []
    for record in records:
        if record["type"] == "rewind":
            live = live[: _end_of_step(live, record["to"])]
        else:
            live.append(record)
    return live


def records_of(saved: SavedSession) -> list[dict[str, Any]]:
    """All records of a session that can go on. Raises ``StoreError`` if it cannot."""
    lost = saved.data.get("steps") and not saved.trajectory.exists()
    if not saved.complete or not saved.files.is_dir() or lost:
        raise StoreError(
            f"session {saved.id} cannot go on: it is damaged, of an older version, or was killed "
            "before its files were saved; start anew with agent solve"
        )
    return list(read_records(saved.trajectory)) if saved.trajectory.exists() else []


def history_of(records: Sequence[Mapping[str, Any]], steps: int | None = None) -> History:
    """The history that ``records`` add up to, or as it was at the end of live step ``steps``.

    Raises ``StoreError`` if a record is not what its type says.
    """
    try:
        return _added_up(records, steps)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise StoreError(
            f"the trajectory is damaged; it cannot go on ({type(error).__name__}: {error})"
        ) from error


def _added_up(records: Sequence[Mapping[str, Any]], steps: int | None) -> History:
    live = live_records(records)
    if steps is not None:
        live = live[: _end_of_step(live, steps)]
    taken: list[Step] = []
    ids: tuple[int, ...] = ()
    earlier: tuple[int, ...] = ()
    messages: list[Message] = []
    prompt: Mapping[str, Any] | None = None
    turn: tuple[int, ...] = ()
    check = None
    pending: tuple[Message, ...] = ()
    tokenizer, mode, thinking = "", "preserve", "preserve"
    system: tuple[Message, ...] = ()
    asked: list[str] = []
    since = 0
    for record in live:
        if record["type"] in ("session", "resume", "words"):
            tokenizer = record.get("tokenizer", tokenizer)
            mode = record.get("thinking", mode)
            pending = tuple(map(message_from_json, record.get("messages", ())))
        elif record["type"] == "prompt":
            prompt = record
        elif record["type"] == "check" and record["when"] == "before":
            check = CheckRun(record["exit_code"], record["output"], record["duration_s"])
        elif record["type"] == "step":
            step = step_from_json(record)
            earlier = ids
            if prompt is None:
                # The same turn goes on: its message is written whole again.
                messages.pop()
            else:
                ids = ids[: prompt.get("at", len(ids))] + tuple(map(int, prompt["ids"]))
                told = [message_from_json(message) for message in prompt["messages"]]
                if "compacted" in prompt:
                    messages, since = [], 0
                else:
                    asked += (message.content for message in told if message.role == "user")
                system = system or tuple(m for m in told if m.role == "system")
                messages += told
                turn = ()
                tokenizer = prompt.get("tokenizer", tokenizer)
            ids += tuple(map(int, step.token_ids))
            turn += step.token_ids
            messages.append(step.message)
            taken.append(step)
            since += 1
            prompt, pending, thinking = None, (), mode
    spent = Usage()
    for record in records:
        if record["type"] == "step":
            spent += Usage(**record["usage"])
    return History(
        steps=tuple(taken),
        ids=ids,
        earlier=earlier,
        messages=tuple(messages),
        turn_ids=turn,
        usage=spent,
        loose=prompt is not None,
        check=check,
        pending=pending,
        tokenizer=tokenizer,
        thinking=thinking,
        system=system,
        asked=tuple(asked),
        since_compaction=since,
    )


def _end_of_step(live: Sequence[Mapping[str, Any]], steps: int) -> int:
    """How many of the records ``live`` there are up to the end of the step numbered ``steps``.

    For 0 it is those before the first prompt.
    """
    seen = 0
    for number, record in enumerate(live):
        if steps == 0 and record["type"] == "prompt":
            return number
        seen += record["type"] == "step"
        if steps and seen == steps:
            return number + 1
    return len(live)
