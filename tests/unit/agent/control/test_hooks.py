"""Hooks are real commands: what they are told, what they may say, and when they are stopped."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from agent.control.hooks import MAX_WORDS, Hooks
from agent.control.policy import Hook, HookLists
from agent.events import Event, Notice
from model.messages import ToolCall
from tools.registry import Registry
from tools.types import Observation

CALL = ToolCall("edit", {"file_path": "a.py", "old_string": "é\n"})
SEEN = Observation("Edited a.py: 1 replacement.")


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def hooks(heard: list[Event]) -> Callable[..., Hooks]:
    def make(**lists: Hook) -> Hooks:
        each = {name: (hook,) for name, hook in lists.items()}
        return Hooks(HookLists(**each), Path("/repo"), "id", heard.append)

    return make


def before(hooks: Hooks) -> Observation | None:
    return hooks.before(CALL, cast(Registry, None))


def test_a_hook_is_told_of_the_call_and_lets_it_run(hooks, tmp_path, heard) -> None:
    told = tmp_path / "told"
    hook = Hook(command=f"cat > {told}; echo fine >&2; pwd > {tmp_path}/place")
    assert before(hooks(before=hook)) is None
    assert json.loads(told.read_text()) == {
        "event": "before",
        "session": "id",
        "repo": "/repo",
        "tool": "edit",
        "arguments": {"file_path": "a.py", "old_string": "é\n"},
    }
    assert (tmp_path / "place").read_text().strip() == str(Path.home())
    assert heard == []


def test_exit_code_2_blocks_with_its_words(hooks) -> None:
    refused = before(hooks(before=Hook(command="echo no such edits >&2; exit 2")))
    assert refused == Observation(
        "Not run: the user's hook forbids this call: no such edits", ok=False
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo broken >&2; exit 1", "ended with exit code 1: broken"),
        ("no-such-program", "ended with exit code 127: "),
        ("kill -9 $$", "ended with exit code -9"),
    ],
)
def test_a_hook_that_fails_otherwise_is_a_notice_and_no_refusal(
    hooks, heard, command, said
) -> None:
    assert before(hooks(before=Hook(command=command))) is None
    (notice,) = heard
    assert isinstance(notice, Notice)
    assert said in notice.text


def test_a_hook_that_hangs_is_killed_with_what_it_started_and_blocks(hooks, tmp_path) -> None:
    pid = tmp_path / "pid"
    hook = Hook(command=f"sleep 1000 & echo $! > {pid}; wait", timeout=0.3)
    refused = before(hooks(before=hook))
    assert refused is not None
    assert refused.text.endswith("it did not answer within 0.3 s")
    assert _ends(int(pid.read_text()))


def test_an_interrupt_stops_a_hook(hooks) -> None:
    made = hooks(before=Hook(command="sleep 1000", timeout=1000))
    made.stop.cancel()
    assert before(made) is not None


def test_only_the_tools_that_are_named(hooks) -> None:
    hook = Hook(command="exit 2", tools=("run_*", "write_file"))
    assert before(hooks(before=hook)) is None


def test_after_a_call_the_words_are_added_to_what_it_gave(hooks, tmp_path) -> None:
    told = tmp_path / "told"
    made = hooks(after=Hook(command=f"cat > {told}; echo format it >&2; exit 2"))
    assert made.after(CALL, SEEN).text == f"{SEEN.text}\n\n[the user's hook] format it"
    assert json.loads(told.read_text())["result"] == {
        "text": SEEN.text,
        "ok": True,
        "truncated": False,
    }
    assert hooks(after=Hook(command="true")).after(CALL, SEEN) == SEEN


def test_words_are_cut_and_need_not_be_text(hooks) -> None:
    refused = before(hooks(before=Hook(command="head -c 5000000 /dev/urandom >&2; exit 2")))
    assert refused is not None
    assert len(refused.text) < MAX_WORDS + 100


def test_the_end_is_told(hooks, tmp_path) -> None:
    told = tmp_path / "told"
    hooks(end=Hook(command=f"cat > {told}")).end({"status": "submitted", "patch": "p"})
    data: dict[str, Any] = json.loads(told.read_text())
    assert (data["event"], data["status"], data["patch"]) == ("end", "submitted", "p")


def _ends(pid: int) -> bool:
    """Whether a process that was killed dies."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ready, _, _ = select.select([descriptor], [], [], 10)
    os.close(descriptor)
    return bool(ready)
