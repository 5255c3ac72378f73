"""The record of a session: one JSON object a line, only ever appended to.

Each line is flushed and fsynced before the run goes on, so a kill at any moment loses at most the
step under way. A last line that was cut short is ignored by readers and cut off by the next writer.

Records, by their ``type``:

``session``  format, id, time, and what the session was started with
``prompt``   ``messages`` and ``ids``: the tokens prefilled before the next step;
             ``at`` if the session's ids were first cut to that length, and
             then ``tokenizer``, the fingerprint of what they belong to since;
             ``compacted`` if they took the place of a full context: ``before`` and
             ``after`` in tokens, ``kept`` (a session) and ``summary``
``step``     the fields of ``agent.types.Step``
``resume``   a process went on with the session: ``time``, ``version``, ``model``, ``thinking``,
             and ``messages`` if it was told any
``words``    the user spoke after an interrupt: ``messages`` are what the model is told next
``rewind``   ``to`` (a number of steps) and ``why``: what came after it is abandoned from here on
``check``    ``when`` (before, after), ``exit_code``, ``output``, ``duration_s``
``end``      ``status``, ``exit_status``, ``usage``, ``patch``

The ids of all ``prompt`` and ``step`` records, joined in order, are the session's ids, as long as
nothing was rewound or cut; ``agent.sessions.history`` knows how in any case.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agent.errors import TrajectoryError
from agent.types import Step
from model.messages import Message, ToolCall
from model.usage import Usage
from tools.types import Observation

FORMAT = 1


class TrajectoryWriter:
    """Appends records to ``path``. Raises ``OSError`` when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _cut_torn_line(self._descriptor)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one record of type ``kind`` and wait until it is on disk."""
        view = memoryview((_dump({"type": kind, **fields}) + "\n").encode("ascii"))
        start = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            os.fsync(self._descriptor)
        except OSError:
            # Half a record would spoil the next one if the disk has room again by then.
            with suppress(OSError):
                os.ftruncate(self._descriptor, start)
            raise

    def prompt(
        self,
        messages: Sequence[Message],
        ids: Sequence[int],
        *,
        at: int | None = None,
        tokenizer: str | None = None,
        compacted: Mapping[str, Any] | None = None,
    ) -> None:
        """The tokens that were just prefilled, and the messages they spell.

        ``at`` is the length to which the session was cut before that.
        """
        cut = {"at": at, "tokenizer": tokenizer, "compacted": compacted}
        fields = {key: value for key, value in cut.items() if value is not None}
        written = [message_to_json(message) for message in messages]
        self.write("prompt", messages=written, ids=list(ids), **fields)

    def words(self, messages: Sequence[Message]) -> None:
        """What a user said after an interrupt, with all that the model is told next."""
        self.write("words", messages=[message_to_json(message) for message in messages])

    def step(self, step: Step) -> None:
        """A finished turn."""
        self.write("step", **step_to_json(step))

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records in order. Raises ``TrajectoryError`` for a damaged line that is not the last."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or "type" not in record:
                raise TrajectoryError(f"{path} is damaged at line {number}; it cannot be read")
            yield record


def read_steps(path: Path) -> list[Step]:
    """The steps of a trajectory."""
    return [step_from_json(record) for record in read_records(path) if record["type"] == "step"]


def session_ids(path: Path) -> list[int]:
    """All token ids of the session, prefilled and sampled, in order."""
    ids: list[int] = []
    for record in read_records(path):
        if record["type"] == "prompt":
            ids += record["ids"]
        elif record["type"] == "step":
            ids += record["token_ids"]
    return ids


def message_to_json(message: Message) -> dict[str, Any]:
    """A message as JSON; empty parts are left out."""
    data: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        data["thinking"] = message.thinking
    if message.tool_calls:
        data["tool_calls"] = [
            {"name": call.name, "arguments": dict(call.arguments)}
            | ({} if call.error is None else {"error": call.error})
            for call in message.tool_calls
        ]
    return data


def message_from_json(data: Mapping[str, Any]) -> Message:
    """The inverse of ``message_to_json``."""
    calls = tuple(
        ToolCall(call["name"], call["arguments"], call.get("error"))
        for call in data.get("tool_calls", ())
    )
    return Message(data["role"], data["content"], data.get("thinking", ""), calls)


def step_to_json(step: Step) -> dict[str, Any]:
    """A step as JSON."""
    return {
        "index": step.index,
        "message": message_to_json(step.message),
        "observations": [dataclasses.asdict(seen) for seen in step.observations],
        "usage": step.usage.as_dict(),
        "token_ids": list(step.token_ids),
        "logprobs": [value if math.isfinite(value) else None for value in step.logprobs],
        "ended": step.ended,
        "tree": step.tree,
    }


def step_from_json(data: Mapping[str, Any]) -> Step:
    """The inverse of ``step_to_json``; a log-probability that was not finite comes back as -inf."""
    return Step(
        index=data["index"],
        message=message_from_json(data["message"]),
        observations=tuple(Observation(**seen) for seen in data["observations"]),
        usage=Usage(**data["usage"]),
        token_ids=tuple(data["token_ids"]),
        logprobs=tuple(-math.inf if value is None else value for value in data["logprobs"]),
        ended=data["ended"],
        tree=data.get("tree", ""),
    )


def _dump(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=True, allow_nan=False, default=str)


def _cut_torn_line(descriptor: int) -> None:
    """Drop what a killed writer left after the last newline."""
    end = os.lseek(descriptor, 0, os.SEEK_END)
    position = end
    while position > 0:
        start = max(0, position - 65_536)
        block = os.pread(descriptor, position - start, start)
        newline = block.rfind(b"\n")
        if newline >= 0:
            position = start + newline + 1
            break
        position = start
    if position < end:
        os.ftruncate(descriptor, position)
