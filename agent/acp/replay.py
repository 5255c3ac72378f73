"""A saved session told again, from its record alone: nothing is computed for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from acp.schema import ToolCallStart

from agent.acp.calls import (
    Places,
    kind_of,
    locations_of,
    result_content,
    text_content,
    title_of,
    written_diff,
)
from agent.acp.updates import call_id, message, plan, thought, user_message
from agent.sessions.history import live_records
from agent.sessions.records import PromptRecord, Record, ResumeRecord, WordsRecord
from agent.types import Step
from model.messages import Message, ToolCall
from tools.registry import default_tools
from tools.types import Observation, ToolKind


def replay(records: Iterable[Record], places: Places) -> Iterator[Any]:
    """Yield the updates that tell the live ``records``: each user message, then what was done.

    A turn that was stopped and gone on with is several steps of one message; it is told once.
    """
    kinds = {tool.name: tool.kind for tool in default_tools()}
    pending: Sequence[Message] = ()
    steps: list[Step] = []
    for record in live_records(records):
        match record:
            case ResumeRecord() | WordsRecord():
                pending = record.messages or ()
            case PromptRecord():
                yield from _turn(steps, kinds, places)
                # The summary of an emptied context stands in place of what the user said last.
                yield from _said(pending if record.compacted else record.messages)
                steps, pending = [], ()
            case Step():
                steps.append(record)
                pending = ()
            case _:
                pass
    yield from _turn(steps, kinds, places)
    yield from _said(pending)


def _said(messages: Sequence[Message]) -> Iterator[Any]:
    """Yield what the user said; what the agent itself adds in the user's name is left out."""
    for said in messages:
        if text := said.said:
            yield from user_message(text, said.pictures)


def _turn(steps: Sequence[Step], kinds: Mapping[str, ToolKind], places: Places) -> Iterator[Any]:
    if not steps:
        return
    last = steps[-1]
    said = last.message
    seen = [observation for step in steps for observation in step.observations]
    if said.thinking.strip():
        yield thought(said.thinking)
    if said.content.strip():
        yield message(said.content)
    for number, call in enumerate(said.tool_calls):
        observation = seen[number] if number < len(seen) else None
        yield from _call(call_id(last.index, number), call, observation, kinds, places)


def _call(
    name: str,
    call: ToolCall,
    seen: Observation | None,
    kinds: Mapping[str, ToolKind],
    places: Places,
) -> Iterator[Any]:
    if call.name == "submit" and call.error is None:
        if seen is not None and seen.submitted:
            yield message(str(call.arguments.get("summary", "")).strip())
        return
    ok = seen is not None and seen.ok
    if call.name == "todo_write" and ok and (update := plan(call)) is not None:
        yield update
    content: list[Any] = list(written_diff(call, places)) if ok else []
    if not content:
        content = [text_content("not run")] if seen is None else list(result_content(seen))
    yield ToolCallStart(
        session_update="tool_call",
        tool_call_id=name,
        title=title_of(call, places),
        kind=kind_of(call.name, kinds.get(call.name)),
        status="completed" if ok else "failed",
        locations=locations_of(call, places),
        content=content,
        raw_input=dict(call.arguments),
    )
