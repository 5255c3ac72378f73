"""What a person at a terminal sees of a run, and that nothing in it can steer the terminal."""

from __future__ import annotations

import io
import os
import pty
import sys

import pytest
from rich.console import Console

from agent.cli.progress import Progress, terminal_listener
from agent.events import (
    CallDone,
    CallPlanned,
    CheckDone,
    ContentDelta,
    Event,
    FromAttempt,
    Notice,
    Prefilled,
    RunEnded,
    RunStarted,
    StepDone,
    ThinkingDelta,
    nobody,
)
from agent.types import CheckRun, Step
from model.messages import Message, ToolCall
from model.session import Usage
from tools.types import Observation


def shown(*events: Event, width: int = 60) -> str:
    file = io.StringIO()
    progress = Progress(Console(file=file, width=width, color_system=None, highlight=False))
    for event in events:
        progress(event)
    return file.getvalue()


def test_a_step_reads_from_top_to_bottom() -> None:
    call = ToolCall("edit", {"file_path": "a.py", "old_string": "x\ny"})
    step = Step(0, Message("assistant"), (), Usage(30, 20, 10))
    text = shown(
        RunStarted("id", "embedded", "docker"),
        CheckDone("before", CheckRun(1, "boom\n", 0.1)),
        ThinkingDelta("I th"),
        ThinkingDelta("ink."),
        ContentDelta("So:"),
        CallPlanned(call),
        CallDone(call, Observation("Edited a.py: 1 replacement.")),
        StepDone(step),
        CheckDone("after", CheckRun(0, "", 0.1)),
    )
    assert text.splitlines() == [
        "session id: model embedded, sandbox docker",
        "check before: fails",
        "  boom",
        "I think.",
        "So:",
        "▸ edit file_path=a.py old_string=x⏎y",
        "  Edited a.py: 1 replacement.",
        "step 1: 20 prefilled, 10 generated, 30 in context",
        "check after: passes",
    ]


def test_attempts_at_once_have_whole_lines_with_their_number() -> None:
    call = ToolCall("edit", {"file_path": "a.py"})
    step = Step(0, Message("assistant"), (), Usage(30, 20, 10))
    text = shown(
        FromAttempt(1, RunStarted("one", "embedded", "docker", 1, 2)),
        FromAttempt(2, RunStarted("two", "embedded", "docker", 2, 2)),
        FromAttempt(1, ThinkingDelta("I th")),
        FromAttempt(2, ContentDelta("So")),
        FromAttempt(2, CallPlanned(call)),
        FromAttempt(1, CallDone(call, Observation("fine"))),
        FromAttempt(2, CallDone(call, Observation("No such file.\nMore.", ok=False))),
        FromAttempt(1, StepDone(step)),
        FromAttempt(2, CheckDone("after", CheckRun(0, "much\n", 0.1))),
        FromAttempt(2, RunEnded("two", "submitted", 0, None)),
        FromAttempt(1, RunEnded("one", "cancelled", 130, None)),
    )
    assert text.splitlines() == [
        "[1] session one",
        "[2] session two",
        "[2] ▸ edit file_path=a.py",
        "[2]   No such file.",
        "[1] step 1: 20 prefilled, 10 generated, 30 in context",
        "[2] check: passes",
        "[2] submitted",
        "[1] cancelled",
    ]


def test_text_is_neither_markup_nor_control() -> None:
    text = shown(ThinkingDelta("[red]x[/red] \x1b[2J"), Notice("[/]"), ContentDelta("\udcff"))
    assert text == "[red]x[/red] ␛[2J\n[/]\n\ufffd"


def test_long_output_is_shortened() -> None:
    call = ToolCall("read_file")
    lines = shown(CallDone(call, Observation("x" * 500 + "\n" + "line\n" * 99))).splitlines()
    assert lines[0].endswith("x…")
    assert lines[-1] == "  … 89 more lines"
    assert len(lines) == 13


def test_a_long_line_is_not_broken() -> None:
    assert shown(Notice("word " * 40), width=40).count("\n") == 1


def test_small_prefills_are_passed_over() -> None:
    assert shown(Prefilled(10, 10)) == ""
    assert shown(Prefilled(1024, 5000)) == "read 1,024 of 5,000 tokens\n"


def test_only_a_terminal_has_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert terminal_listener() is nobody
    outer, inner = pty.openpty()
    with os.fdopen(inner, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert isinstance(terminal_listener(), Progress)
    os.close(outer)
