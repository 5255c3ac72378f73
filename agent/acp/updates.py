"""The events of a run, told as session updates while they happen."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from acp.schema import (
    AgentMessageChunk,
    AgentPlanUpdate,
    AgentThoughtChunk,
    ImageContentBlock,
    TerminalToolCallContent,
    TextContentBlock,
    ToolCallProgress,
    ToolCallStart,
    UsageUpdate,
    UserMessageChunk,
)

from agent.acp.calls import (
    Places,
    diffs,
    kind_of,
    locations_of,
    picture_blocks,
    plan_of,
    result_content,
    text_content,
    title_of,
)
from agent.events import (
    CallDone,
    CallPlanned,
    CallRunning,
    CallWriting,
    CommandOutput,
    Compacted,
    ContentDelta,
    Event,
    Notice,
    StepDone,
    ThinkingDelta,
)
from model.messages import ToolCall
from tools.edits.preview import Change
from tools.registry import Registry
from tools.types import Observation

OUTPUT_EVERY_S = 0.1
OUTPUT_SHOWN = 8_000
META = "tenuto"

Put = Callable[[Any], None]
Preview = Callable[[ToolCall], Sequence[Change]]


def thought(text: str) -> AgentThoughtChunk:
    """Make an update of a piece of reasoning."""
    block = TextContentBlock(type="text", text=text)
    return AgentThoughtChunk(session_update="agent_thought_chunk", content=block)


def message(text: str) -> AgentMessageChunk:
    """Make an update of a piece of what the agent says."""
    block = TextContentBlock(type="text", text=text)
    return AgentMessageChunk(session_update="agent_message_chunk", content=block)


def user_message(text: str, pictures: Iterable[object] = ()) -> Iterator[UserMessageChunk]:
    """Make the updates of what the user said and showed, when a session is replayed."""
    blocks: list[TextContentBlock | ImageContentBlock] = [TextContentBlock(type="text", text=text)]
    for content in (*blocks, *picture_blocks(pictures)):
        yield UserMessageChunk(session_update="user_message_chunk", content=content)


def usage(used: int, size: int) -> UsageUpdate:
    """Make an update that tells how full the context is, in tokens."""
    return UsageUpdate(session_update="usage_update", used=used, size=size)


def plan(call: ToolCall) -> AgentPlanUpdate | None:
    """Make an update of the plan that a call of ``todo_write`` sets; None if it has none."""
    entries = plan_of(call.arguments)
    return None if entries is None else AgentPlanUpdate(session_update="plan", entries=entries)


def compacted_line(before: int, after: int, kept: str) -> str:
    """Return the line which says that the context was given up."""
    where = f"; as it was before it is session {kept}" if kept else ""
    return f"[context emptied: {after:,} of {before:,} tokens are left{where}]\n"


def call_id(step: int, number: int) -> str:
    """Return a call's id, the same when the session is replayed: its step and place, from 1."""
    return f"call-{step + 1}-{number + 1}"


def _exit_code(text: str) -> int | None:
    """Return the exit code at the end of what a command gave; None if it did not end by itself."""
    found = re.search(r"\[exit code (\d+)[^\]\n]*\]\s*\Z", text)
    return int(found.group(1)) if found else None


class Updates:
    """A listener of one session. Everything is called on the session's thread.

    ``terminals`` says that the client shows output that comes in ``_meta`` as a terminal, which
    several editors have agreed on (``terminal_info``, ``terminal_output``, ``terminal_exit``).
    """

    def __init__(self, put: Put, *, terminals: bool = False) -> None:
        self._put = put
        self._terminals = terminals
        self._places: Places | None = None
        self._registry: Registry | None = None
        self._size = 0
        self._step = 0
        self._written: list[str] = []
        self._done = 0
        self._current: ToolCall | None = None
        self._open: dict[str, ToolCall | None] = {}
        self._output = ""
        self._shown_at = 0.0

    def enter(self, places: Places, registry: Registry, step: int, size: int) -> None:
        """Enter an open session: its paths, tools, number of steps and context length."""
        self._places, self._registry = places, registry
        self._size = size
        self.begin(step)

    def begin(self, step: int) -> None:
        """Begin the step of number ``step``, from 0."""
        self._step, self._written, self._done = step, [], 0
        self._open.clear()

    def close(self) -> None:
        """End the turn: what was announced and never ran is said to have failed."""
        for name in list(self._open):
            self._finish(name, "failed", [text_content("not run: the turn was stopped")])

    def __call__(self, event: Event) -> None:
        match event:
            case ThinkingDelta(text):
                self._put(thought(text))
            case ContentDelta(text):
                self._put(message(text))
            case Compacted(before, after, kept):
                self._put(thought(compacted_line(before, after, kept)))
            case Notice(text):
                self._put(thought(f"[{text}]\n"))
            case CallWriting(name):
                self._writing(name)
            case CallPlanned(call):
                self._planned(call)
            case CallRunning(call):
                self._running(call)
            case CommandOutput(text):
                self._piece(text)
            case CallDone(call, seen):
                self._called(call, seen)
            case StepDone(step):
                self.close()
                self.begin(step.index + 1)
                self._put(usage(step.usage.context_tokens, self._size))
            case _:
                pass

    def permission_call(self, call: ToolCall, changes: Sequence[Change]) -> dict[str, Any]:
        """Return the fields of the call that the person is asked about."""
        assert self._places is not None and self._registry is not None
        return {
            "tool_call_id": self._id(self._done),
            "title": title_of(call, self._places),
            "kind": kind_of(call.name, self._registry.kind(call.name, call.arguments)),
            "status": "pending",
            "locations": locations_of(call, self._places, changes),
            "content": diffs(changes, self._places) or None,
            "raw_input": dict(call.arguments),
        }

    def _id(self, number: int) -> str:
        return call_id(self._step, number)

    def _writing(self, name: str) -> None:
        """Show a call that the model has begun, before anything of it is known."""
        number = len(self._written)
        self._written.append(name)
        if name == "submit":
            return
        kind = kind_of(name, self._registry.kind(name) if self._registry else None)
        self._open[self._id(number)] = None
        self._put(
            ToolCallStart(
                session_update="tool_call",
                tool_call_id=self._id(number),
                title=name,
                kind=kind,
                status="pending",
            )
        )

    def _planned(self, call: ToolCall) -> None:
        """Show the complete call; it may be asked about next."""
        if call.name == "submit" or self._places is None or self._registry is None:
            return
        changes = self._registry.preview(call.name, call.arguments) or ()
        name = self._announced(call)
        self._put(
            ToolCallProgress(
                session_update="tool_call_update",
                tool_call_id=name,
                title=title_of(call, self._places),
                locations=locations_of(call, self._places, changes) or None,
                content=list(diffs(changes, self._places)) or None,
                raw_input=dict(call.arguments),
            )
        )

    def _announced(self, call: ToolCall) -> str:
        """Return the call's id, after its beginning was shown."""
        while len(self._written) <= self._done:
            self._writing(call.name)
        name = self._id(self._done)
        self._open[name] = call
        return name

    def _running(self, call: ToolCall) -> None:
        if call.name == "submit":
            return
        self._current, self._output = call, ""
        name = self._id(self._done)
        update = ToolCallProgress(
            session_update="tool_call_update", tool_call_id=name, status="in_progress"
        )
        if call.name == "run_shell_command" and self._terminals and self._places is not None:
            update.content = [TerminalToolCallContent(type="terminal", terminal_id=name)]
            folder = str(self._places.folder)
            update.field_meta = {"terminal_info": {"terminal_id": name, "cwd": folder}}
        self._put(update)

    def _piece(self, text: str) -> None:
        """Show some output of the command that runs; at most ten updates a second."""
        if self._current is None:
            return
        self._output += text
        if time.monotonic() - self._shown_at >= OUTPUT_EVERY_S:
            self._show_output()

    def _show_output(self) -> None:
        self._shown_at = time.monotonic()
        name = self._id(self._done)
        update = ToolCallProgress(session_update="tool_call_update", tool_call_id=name)
        if self._terminals:
            data = {"terminal_id": name, "data": self._output}
            update.field_meta = {"terminal_output": data}
            self._output = ""
        else:
            self._output = self._output[-OUTPUT_SHOWN:]
            update.content = [text_content(self._output)]
        self._put(update)

    def _called(self, call: ToolCall, seen: Observation) -> None:
        """Show that the call ended, was refused, or was none."""
        name = self._id(self._done)
        ran, self._current = self._current, None
        if call.name == "submit":
            if seen.submitted and (summary := str(call.arguments.get("summary", "")).strip()):
                self._put(message(summary))
            self._done += 1
            return
        if call.error is not None:
            name = self._announced(call)
        if call.name == "todo_write" and seen.ok and (update := plan(call)) is not None:
            self._put(update)
        status = "completed" if seen.ok else "failed"
        if call.name == "run_shell_command" and ran is not None and self._terminals:
            if self._output:
                self._show_output()
            end = {"terminal_id": name, "exit_code": _exit_code(seen.text), "signal": None}
            self._finish(name, status, None, meta={"terminal_exit": end}, text=seen.text)
        elif self._registry is not None and self._registry.kind(call.name) == "edit" and seen.ok:
            self._finish(name, status, None, text=seen.text)
        else:
            self._finish(name, status, result_content(seen), text=seen.text)
        self._done += 1

    def _finish(
        self,
        name: str,
        status: Any,
        content: Sequence[Any] | None,
        *,
        meta: dict[str, Any] | None = None,
        text: str | None = None,
    ) -> None:
        self._open.pop(name, None)
        update = ToolCallProgress(
            session_update="tool_call_update",
            tool_call_id=name,
            status=status,
            content=None if content is None else list(content),
            raw_output=None if text is None else {"text": text},
        )
        update.field_meta = meta
        self._put(update)
