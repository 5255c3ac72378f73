"""What a person at a terminal sees of a run, and that nothing in it can steer the terminal."""

from __future__ import annotations

import io
import os
import pty
import sys
from contextlib import suppress

import pytest
from rich.cells import cell_len
from rich.console import Console

from agent.cli.blocks import complete_blocks
from agent.cli.progress import Progress, terminal_listener
from agent.events import (
    CallDone,
    CallPlanned,
    CallRunning,
    CheckDone,
    CommandOutput,
    ContentDelta,
    Event,
    FromAttempt,
    ModelLoaded,
    Notice,
    Prefilled,
    RunEnded,
    RunStarted,
    StepDone,
    ThinkingDelta,
    Working,
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
        "",
        "check before: fails",
        "  boom",
        "I think.",
        "So:",
        "▸ edit file_path=a.py old_string=x⏎y",
        "  Edited a.py: 1 replacement.",
        "step 1: 20 prefilled, 10 generated, 30 in context",
        "",
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
    text = shown(
        ThinkingDelta("[red]x[/red] \x1b[2J"), Notice("[/]"), ContentDelta("\udcff"), Notice("")
    )
    assert text == "[red]x[/red] ␛[2J\n[/]\n\ufffd\n\n"


def test_long_output_is_shortened() -> None:
    call = ToolCall("read_file")
    lines = shown(CallDone(call, Observation("x" * 500 + "\n" + "line\n" * 99)), width=300)
    assert lines.splitlines()[0].endswith("x…")
    assert lines.splitlines()[-1] == "  … 89 more lines"
    assert len(lines.splitlines()) == 13


def test_of_a_long_command_the_end_is_shown_too() -> None:
    seen = Observation("\n".join(f"line {number}" for number in range(40)))
    lines = shown(CallDone(ToolCall("run_shell_command"), seen)).splitlines()
    assert lines[0] == "  line 0"
    assert lines[7] == "  … 28 more lines"
    assert lines[-1] == "  line 39"


@pytest.mark.parametrize("width", [40, 60])
def test_no_word_is_broken(width: int) -> None:
    words = "the constant in return number modulo two looks wrong " * 8
    text = shown(
        ThinkingDelta(words[:31]),
        ThinkingDelta(words[31:]),
        ContentDelta(words),
        Notice(words),
        CallDone(ToolCall("x"), Observation(words)),
        width=width,
    )
    assert set(text.replace("…", "").split()) <= set(words.split()) | {"the"[:n] for n in range(3)}
    assert max(map(len, text.splitlines())) <= width


def test_an_edit_is_a_diff_and_a_plan_is_a_list() -> None:
    edit = {"file_path": "a.py", "old_string": "a\nb\nc", "new_string": "a\nB\nc"}
    todos = [
        {"content": "look", "status": "completed"},
        {"content": "mend", "status": "in_progress"},
        {"content": "test", "status": "pending"},
    ]
    plan = ToolCall("todo_write", {"todos": todos})
    text = shown(
        CallPlanned(ToolCall("edit", edit)),
        CallPlanned(ToolCall("write_file", {"file_path": "b.py", "content": "x = 1\n"})),
        CallPlanned(plan),
        CallDone(plan, Observation("Todo list (1 of 3 completed): …")),
    )
    assert text.splitlines() == [
        "▸ edit a.py",
        "   a",
        "  -b",
        "  +B",
        "   c",
        "▸ write_file b.py",
        "  +x = 1",
        "▸ todo_write",
        "  [x] look",
        "  [>] mend",
        "  [ ] test",
    ]


def test_the_model_s_text_is_rendered_block_by_block() -> None:
    text = shown(
        ContentDelta("It is **wr"),
        ContentDelta("ong**.\n\n- one\n- two\n\n```\na\n\nb\n```"),
        Notice("end"),
    )
    assert "It is wrong." in text
    assert " • one" in text
    assert "**" not in text
    assert "```" not in text
    assert complete_blocks("a\n\n```\nb\n\nc") == ("a\n\n", "```\nb\n\nc")


def test_colours_are_there_unless_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = {"file_path": "a.py", "old_string": "a", "new_string": "b"}

    def sent() -> str:
        outer, inner = pty.openpty()
        with os.fdopen(inner, "w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            listen = terminal_listener()
            listen(ThinkingDelta("so"))
            listen(CallPlanned(ToolCall("edit", edit)))
        said = b""
        with os.fdopen(outer, "rb", buffering=0) as terminal, suppress(OSError):
            while piece := terminal.read(4096):
                said += piece
        return said.decode()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[31m-a\x1b[0m" in sent()
    monkeypatch.setenv("NO_COLOR", "1")
    said = sent()
    assert "-a" in said
    assert "\x1b[" not in said.replace("\r\x1b[K", "")


def test_a_step_tells_how_full_the_context_is_and_its_time() -> None:
    usage = Usage(30, 20, 10, prefill_s=1.0, decode_s=60.0, tool_s=4.0)
    text = shown(
        ModelLoaded("big", 120), StepDone(Step(0, Message("assistant"), (), usage)), width=99
    )
    assert text == "step 1: 20 prefilled, 10 generated, 30 in context (25%), 1 min 05 s\n\n"


def test_the_demo_model_is_named_as_one() -> None:
    assert "small demo model" in shown(ModelLoaded("embedded", 8192))
    assert "--model" in shown(ModelLoaded("embedded", 8192))
    assert shown(ModelLoaded("/models/other", 8192)) == ""


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def under_way(*events: tuple[float, Event], width: int = 100) -> list[str]:
    """Return what a terminal is shown on its last line as ``events`` come at their times."""
    file, clock = io.StringIO(), Clock()
    console = Console(
        file=file, width=width, color_system=None, force_terminal=True, _environ={"TERM": "xterm"}
    )
    progress = Progress(console)
    progress.status.clock = clock
    for at, event in events:
        clock.now = at
        progress(event)
        progress.status.draw()
    return [line for line in file.getvalue().split("\r\x1b[K") if line]


def test_what_takes_long_tells_its_time_and_its_last_line() -> None:
    call = ToolCall("run_shell_command", {"command": "make"})
    lines = under_way(
        (0.0, Working("loading big")),
        (5.0, Prefilled(1, 2)),
        (6.0, CallRunning(call)),
        (6.5, CommandOutput("one\ntw")),
        (8.5, CommandOutput("o\n\x1b[2J\n")),
    )
    assert lines[0] == "loading big"
    assert "loading big · 5 s" in lines
    assert lines[-2] == "run_shell_command command=make · tw"
    assert lines[-1] == "run_shell_command command=make · 2 s · ␛[2J"


def test_what_comes_after_a_step_is_told() -> None:
    submitted = Message("assistant", tool_calls=(ToolCall("submit"),))
    lines = under_way(
        (0.0, RunStarted("id", "m", "local")),
        (1.0, StepDone(Step(0, Message("assistant"), (), Usage()))),
        (2.0, StepDone(Step(1, submitted, (), Usage()))),
    )
    assert "preparing: the check, the map of the code, the first prompt" in lines
    assert "the model reads the results" in lines
    assert lines[-1] == "the patch and the check"


def test_a_long_prefill_is_a_bar_with_rate_and_remaining_time() -> None:
    lines = under_way(
        (0.0, Prefilled(0, 1000)), (5.0, Prefilled(250, 1000)), (20.0, Prefilled(1000, 1000))
    )
    assert lines[0] == "the model reads ░░░░░░░░░░░░░░░░░░░░ 0 of 1,000 tokens"
    assert "█████░░░░░░░░░░░░░░░ 250 of 1,000 tokens, 50 tokens/s, 15 s left" in lines[-2]
    assert lines[-1] == "read 1,000 tokens in 20 s (50 tokens/s)\n"


def test_small_prefills_are_passed_over() -> None:
    assert under_way((0.0, Prefilled(0, 499)), (9.0, Prefilled(499, 499))) == []


def test_the_status_line_fits_the_terminal() -> None:
    lines = under_way((0.0, Working("漢字 " * 40)), width=30)
    assert {cell_len(line) <= 29 for line in lines} == {True}


def test_only_a_terminal_has_a_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert terminal_listener() is nobody
    outer, inner = pty.openpty()
    with os.fdopen(inner, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert isinstance(terminal_listener(), Progress)
    os.close(outer)
