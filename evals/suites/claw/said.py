"""Write down what was said and done, in the records that the makers' graders read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.types import Step
from evals.suites.claw.task_files import OURS
from model.messages import Message, ToolCall
from tools.types import Observation

TRACE = "tenuto"
_THEIRS = {ours: theirs for theirs, ours in reversed(OURS.items())}
_ARGUMENTS = {"path": "file_path", "absolute_path": "file_path", "timeout": "timeout_seconds"}
Record = dict[str, Any]


def write_down(
    said: Sequence[Message | Step], answered: Iterable[Record]
) -> tuple[list[Record], list[Record]]:
    """Return the messages and the calls of an attempt.

    ``answered`` are the records of the calls of the task's own tools, in order. Our own tools stand
    under the names of the makers'.
    """
    waiting = list(answered)
    messages: list[Record] = []
    calls: list[Record] = []
    for item in said:
        if isinstance(item, Message):
            messages.append(_message("user", [_text(item.content)]))
            continue
        blocks = [_text(item.message.content)] if item.message.content else []
        results = []
        for number, call in enumerate(item.message.tool_calls):
            seen = _seen(item.observations, number)
            if seen is not None and seen.submitted:
                blocks.append(_text(str(call.arguments.get("summary", ""))))
                continue
            key = f"call-{item.index}-{number}"
            own = _own(waiting, call) if seen is not None and call.error is None else None
            name = call.name if own is not None else _THEIRS.get(call.name, call.name)
            body = dict(call.arguments) if own is not None else _arguments(call)
            blocks.append({"type": "tool_use", "id": key, "name": name, "input": body})
            results.append(_result(key, seen))
            if call.error is None and seen is not None:
                calls.append({**(own or _ours(name, body, seen)), "tool_use_id": key})
        messages.append(_message("assistant", blocks, item.message.thinking))
        if results:
            messages.append(_message("user", results))
    return messages, calls


def spoken(said: Sequence[Message | Step]) -> list[tuple[str, str]]:
    """Return what the two sides said to each other, without calls: the role and the words."""
    found = []
    for item in said:
        if isinstance(item, Message):
            found.append(("user", item.content))
        elif words := _words(item):
            found.append(("assistant", words))
    return found


def call_record(name: str, url: str, body: Mapping[str, Any], answer: Mapping[str, Any]) -> Record:
    """Return the record of one call of a task's own tool."""
    return {
        "type": "tool_dispatch",
        "trace_id": TRACE,
        "tool_use_id": "",
        "tool_name": name,
        "endpoint_url": url,
        "request_body": dict(body),
        "response_status": answer["status"],
        "response_body": answer["body"],
        "latency_ms": answer["latency_ms"],
    }


def _words(step: Step) -> str:
    parts = [step.message.content.strip()]
    for number, call in enumerate(step.message.tool_calls):
        seen = _seen(step.observations, number)
        if seen is not None and seen.submitted:
            parts.append(str(call.arguments.get("summary", "")).strip())
    return "\n".join(part for part in parts if part)


def _seen(observations: Sequence[Observation], number: int) -> Observation | None:
    return observations[number] if number < len(observations) else None


def _own(waiting: list[Record], call: ToolCall) -> Record | None:
    """Take the record of a call of the task's own tool, if it is one."""
    if waiting and waiting[0]["tool_name"] == call.name:
        return waiting.pop(0)
    return None


def _ours(name: str, body: Mapping[str, Any], seen: Observation) -> Record:
    answer = {"status": 200 if seen.ok else 500, "body": {"output": seen.text}, "latency_ms": 0.0}
    return call_record(name, "sandbox", body, answer)


def _arguments(call: ToolCall) -> Record:
    return {_ARGUMENTS.get(key, key): value for key, value in call.arguments.items()}


def _result(key: str, seen: Observation | None) -> Record:
    text = "Not run." if seen is None else seen.text
    failed = seen is None or not seen.ok
    return {
        "type": "tool_result",
        "tool_use_id": key,
        "content": [_text(text)],
        "is_error": failed,
    }


def _text(text: str) -> Record:
    return {"type": "text", "text": text}


def _message(role: str, blocks: Sequence[Record], thinking: str = "") -> Record:
    message = {"role": role, "content": list(blocks), "reasoning_content": thinking or None}
    return {"type": "message", "trace_id": TRACE, "message": message}
