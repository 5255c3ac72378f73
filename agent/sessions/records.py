"""The records of a trajectory, one class for each type of line, and their JSON.

``session``  what ``session.json`` said when the session began
``prompt``   the tokens prefilled before the next step, and the messages they spell
``step``     ``agent.types.Step``
``resume``   a process went on with the session, with messages if it was told any
``words``    the user spoke after an interrupt
``rewind``   what came after a step is abandoned from here on
``check``    the check ran: ``when`` is before, after (the model's work), or asked (by the user)
``pulled``   the user changed files, and they were carried into the workspace
``end``      how a run ended
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from agent.errors import TrajectoryError
from agent.sessions.info import SessionInfo, info_from_json, usage_from_json
from agent.sessions.pictures import picture_from_json, picture_to_json
from agent.sessions.typed_json import Fields
from agent.types import CheckRun, Compaction, Spans, Step
from model.messages import Message, ToolCall
from model.usage import Usage
from model.vision.picture import Picture
from tools.types import Observation

ROLES = ("system", "user", "assistant", "tool")
ASKED_FOR = "asked for"
"""Why a user's rewind was written."""

AUTHORS = ("user", "agent")
ENDS = ("stop", "length", "interrupted")
CLOSED = ("", "budget", "circles")


@dataclass(frozen=True)
class SessionRecord:
    """Start of the session, with what it was started with."""

    info: SessionInfo


@dataclass(frozen=True)
class PromptRecord:
    """The tokens ``ids`` were prefilled; they spell ``messages``.

    ``at`` is the length to which the session's ids were cut before that, and ``tokenizer`` the
    fingerprint of what they belong to since. ``compacted`` says that they took the place of a full
    context.
    """

    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    at: int | None = None
    tokenizer: str | None = None
    compacted: Compaction | None = None


@dataclass(frozen=True)
class ResumeRecord:
    """A process went on with the session at ``time``; ``messages`` are what it is told, if any.

    None leaves what was to be told as it is; an empty tuple takes it back.
    """

    time: str = ""
    version: str = ""
    model: str = ""
    fingerprint: str = ""
    thinking: str | None = None
    messages: tuple[Message, ...] | None = None


@dataclass(frozen=True)
class WordsRecord:
    """The user spoke after an interrupt; ``messages`` are all that the model is told next."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class RewindRecord:
    """Rewind to live step ``to``: what came after it is abandoned; 0 is before the first."""

    to: int
    why: str = ""
    time: str = ""


@dataclass(frozen=True)
class CheckRecord:
    """The check ran. ``when`` is ``before``, ``after`` or ``asked``."""

    when: str
    run: CheckRun


@dataclass(frozen=True)
class PulledRecord:
    """The user changed ``paths``, and they were carried into the workspace."""

    paths: tuple[str, ...]
    time: str = ""


@dataclass(frozen=True)
class EndRecord:
    """A run ended. ``status`` and ``exit_status`` are those of ``agent.run.report``."""

    status: str
    exit_status: int = 0
    summary: str = ""
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    patch: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what ``session.json`` has of it: all but the patch."""
        return {
            "status": self.status,
            "exit_status": self.exit_status,
            "summary": self.summary,
            "steps": self.steps,
            "usage": self.usage.as_dict(),
        }


@dataclass(frozen=True)
class OtherRecord:
    """A record of a type that this version does not know."""

    fields: Mapping[str, Any]


Record = (
    SessionRecord
    | PromptRecord
    | Step
    | ResumeRecord
    | WordsRecord
    | RewindRecord
    | CheckRecord
    | PulledRecord
    | EndRecord
    | OtherRecord
)


def record_from_json(data: Mapping[str, Any]) -> Record:
    """Read one record. Raises ``TrajectoryError`` if it is not what its type says."""
    try:
        fields = Fields(data)
        read = _READERS.get(fields.text("type"))
        return OtherRecord(data) if read is None else read(fields, data)
    except (LookupError, TypeError, ValueError) as error:
        raise TrajectoryError(
            f"the trajectory is damaged; it cannot go on ({type(error).__name__}: {error})"
        ) from error


def records_from_json(lines: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Read several records. Raises ``TrajectoryError``."""
    return [record_from_json(data) for data in lines]


def record_to_json(record: Record) -> dict[str, Any]:
    """Return the inverse of ``record_from_json``."""
    match record:
        case SessionRecord(info):
            return {"type": "session", **info.stored}
        case PromptRecord():
            return {"type": "prompt", **_prompt_to_json(record)}
        case Step():
            return {"type": "step", **step_to_json(record)}
        case ResumeRecord():
            data = {"type": "resume", **dataclasses.asdict(record)}
            del data["messages"]
            if record.messages is not None:
                data["messages"] = [message_to_json(message) for message in record.messages]
            return data
        case WordsRecord(messages):
            return {"type": "words", "messages": [message_to_json(item) for item in messages]}
        case RewindRecord(to, why, time):
            return {"type": "rewind", "to": to, "why": why, "time": time}
        case CheckRecord(when, run):
            return {"type": "check", "when": when, **dataclasses.asdict(run)}
        case PulledRecord(paths, time):
            return {"type": "pulled", "paths": list(paths), "time": time}
        case EndRecord():
            return {"type": "end", **record.facts(), "patch": record.patch}
        case OtherRecord(fields):
            return dict(fields)


def message_to_json(message: Message) -> dict[str, Any]:
    """Return a message as JSON; empty parts are left out."""
    data: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        data["thinking"] = message.thinking
    if message.tool_calls:
        data["tool_calls"] = [
            {"name": call.name, "arguments": dict(call.arguments)}
            | ({} if call.error is None else {"error": call.error})
            for call in message.tool_calls
        ]
    if message.author != "user":
        data["author"] = message.author
    if message.notes:
        data["notes"] = list(message.notes)
    if message.pictures:
        data["pictures"] = [picture_to_json(picture) for picture in message.pictures]
    return data


def message_from_json(data: Any) -> Message:
    """Return the inverse of ``message_to_json``. Raises ``LookupError``, ``TypeError``."""
    fields = Fields(data)
    calls = tuple(
        ToolCall(call.text("name"), call.object("arguments"), call.maybe_text("error"))
        for call in map(Fields, fields.list("tool_calls", []))
    )
    role = _one_of(fields.text("role"), ROLES)
    author = _one_of(fields.text("author", "user"), AUTHORS)
    return Message(
        cast(Any, role),
        fields.text("content"),
        fields.text("thinking", ""),
        calls,
        cast(Any, author),
        tuple(map(str, fields.list("notes", []))),
        tuple(map(picture_from_json, fields.list("pictures", []))),
    )


def step_to_json(step: Step) -> dict[str, Any]:
    """Return a step as JSON."""
    return {
        "index": step.index,
        "message": message_to_json(step.message),
        "observations": [_observation_to_json(seen) for seen in step.observations],
        "usage": step.usage.as_dict(),
        "token_ids": list(step.token_ids),
        "logprobs": _finite(step.logprobs),
        "ended": step.ended,
        "tree": step.tree,
        **({"forced": list(step.forced)} if step.forced else {}),
        **({"closed": step.closed} if step.closed else {}),
        **({"masked_logprobs": _finite(step.masked_logprobs)} if step.masked_logprobs else {}),
        **({"spans": [_spans_to_json(spans) for spans in step.spans]} if any(step.spans) else {}),
    }


def step_from_json(data: Mapping[str, Any]) -> Step:
    """Return the inverse of ``step_to_json``; a logprob that was not finite comes back as -inf.

    Raises ``LookupError``, ``TypeError``, ``ValueError``.
    """
    fields = Fields(data)
    return Step(
        index=fields.number("index"),
        message=message_from_json(fields.object("message")),
        observations=tuple(map(_observation, fields.list("observations"))),
        usage=usage_from_json(fields.object("usage")),
        token_ids=fields.ids("token_ids"),
        logprobs=_logprobs(fields.list("logprobs")),
        ended=cast(Literal["stop"], _one_of(fields.text("ended"), ENDS)),
        tree=fields.text("tree", ""),
        forced=() if fields.is_null("forced") else fields.ids("forced"),
        masked_logprobs=_logprobs(fields.list("masked_logprobs", [])),
        spans=tuple(map(_spans, fields.list("spans", []))),
        closed=cast(Literal["budget"], _one_of(fields.text("closed", ""), CLOSED)),
    )


def _finite(values: Iterable[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _logprobs(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(-math.inf if value is None else float(value) for value in values)


def _spans(data: Any) -> dict[str, Spans]:
    """Read one call's values in pieces. Raises ``TypeError``, ``ValueError``."""
    if not isinstance(data, Mapping):
        raise TypeError("spans is a list of objects")
    return {str(k): tuple((int(n), float(p)) for n, p in pieces) for k, pieces in data.items()}


def _spans_to_json(spans: Mapping[str, Spans]) -> dict[str, list[list[float]]]:
    return {name: [[length, p] for length, p in pieces] for name, pieces in spans.items()}


def _observation(data: Any) -> Observation:
    fields = Fields(data)
    return Observation(
        fields.text("text"),
        ok=fields.flag("ok", True),
        truncated=fields.flag("truncated", False),
        submitted=fields.flag("submitted", False),
        pictures=tuple(map(picture_from_json, fields.list("pictures", []))),
    )


def _observation_to_json(seen: Observation) -> dict[str, Any]:
    data = {"text": seen.text, "ok": seen.ok, "truncated": seen.truncated}
    data["submitted"] = seen.submitted
    pictures = [picture_to_json(p) for p in seen.pictures if isinstance(p, Picture)]
    return data | ({"pictures": pictures} if pictures else {})


def _one_of(value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"{value!r:.40} is none of {', '.join(known)}")
    return value


def _messages(fields: Fields) -> tuple[Message, ...]:
    return tuple(map(message_from_json, fields.list("messages")))


def _prompt_to_json(record: PromptRecord) -> dict[str, Any]:
    data: dict[str, Any] = {
        "messages": [message_to_json(message) for message in record.messages],
        "ids": list(record.ids),
    }
    compacted = record.compacted and dataclasses.asdict(record.compacted)
    cut = {"at": record.at, "tokenizer": record.tokenizer, "compacted": compacted}
    return data | {key: value for key, value in cut.items() if value is not None}


def _session(_fields: Fields, data: Mapping[str, Any]) -> SessionRecord:
    info = info_from_json({key: value for key, value in data.items() if key != "type"})
    if info.wrong:
        raise TypeError(f"{info.wrong[0]} has the wrong type")
    return SessionRecord(info)


def _prompt(fields: Fields, _data: Any) -> PromptRecord:
    compacted = None
    if not fields.is_null("compacted"):
        told = Fields(fields.object("compacted"))
        compacted = Compaction(
            told.number("before"), told.number("after"), told.text("kept"), told.text("summary")
        )
    return PromptRecord(
        _messages(fields),
        fields.ids("ids"),
        fields.maybe_number("at"),
        fields.maybe_text("tokenizer"),
        compacted,
    )


def _resume(fields: Fields, _data: Any) -> ResumeRecord:
    return ResumeRecord(
        fields.text("time", ""),
        fields.text("version", ""),
        fields.text("model", ""),
        fields.text("fingerprint", ""),
        fields.maybe_text("thinking"),
        None if fields.is_null("messages") else _messages(fields),
    )


def _check(fields: Fields, _data: Any) -> CheckRecord:
    code, output = fields.maybe_number("exit_code"), fields.text("output")
    return CheckRecord(fields.text("when"), CheckRun(code, output, fields.decimal("duration_s")))


def _pulled(fields: Fields, _data: Any) -> PulledRecord:
    return PulledRecord(tuple(map(str, fields.list("paths"))), fields.text("time", ""))


def _end(fields: Fields, _data: Any) -> EndRecord:
    return EndRecord(
        fields.text("status"),
        fields.number("exit_status", 0),
        fields.text("summary", ""),
        fields.number("steps", 0),
        usage_from_json(fields.object("usage")),
        fields.text("patch"),
    )


_READERS: Mapping[str, Callable[[Fields, Mapping[str, Any]], Record]] = {
    "session": _session,
    "prompt": _prompt,
    "step": lambda _fields, data: step_from_json(data),
    "resume": _resume,
    "words": lambda fields, _data: WordsRecord(_messages(fields)),
    "rewind": lambda fields, _data: RewindRecord(
        fields.number("to"), fields.text("why", ""), fields.text("time", "")
    ),
    "check": _check,
    "pulled": _pulled,
    "end": _end,
}
