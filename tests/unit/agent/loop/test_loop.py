"""Ends of the loop that a whole run hardly reaches: a full disk, a lost copy, a halted prefill."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.client import Client
from agent.events import Event, Prefilled
from agent.loop.budget import Budget, RunLimits
from agent.loop.conversation import Conversation
from agent.loop.journal import Journal
from agent.loop.limits import Limits
from agent.loop.loop import Loop
from agent.loop.overseer import OverseenTools
from agent.sessions.info import SessionInfo
from agent.sessions.store import SavedSession
from agent.sessions.trajectory import TrajectoryWriter, read_lines
from agent.types import Failed, Interrupted, RunResult
from model.messages import Message
from sandboxes.base import Sandbox
from sandboxes.open import open_sandbox
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace
from tests.support.stops import StopWhen
from tools.registry import Registry
from tools.types import ToolContext

SUBMIT = "Done.\n</think>\n\n<tool_call>\n<function=submit>\n</function>\n</tool_call>"
FIRST = [Message("system", "s"), Message("user", "u")]


@pytest.fixture
def sandbox(git_repo: Callable[..., Path], tmp_path: Path) -> Iterator[Sandbox]:
    workspace = Workspace.create(git_repo({"a.py": "x = 1\n"}), parent=tmp_path / "workspaces")
    with open_sandbox("local", workspace) as opened:
        yield opened


@pytest.fixture
def make(sandbox: Sandbox, tmp_path: Path) -> Callable[..., Loop]:
    def build(model, *, trajectory=None, listen=lambda event: None, stop=None):
        stop = stop or Stop()
        registry = Registry(ToolContext(sandbox, stop=stop))
        session = model.engine.session()
        conversation = Conversation(
            session,
            model.chat,
            registry.schemas(),
            model.engine.generation,
            listen=listen,
            stop=stop,
        )
        journal = Journal(
            SavedSession(tmp_path, SessionInfo()),
            sandbox.workspace,
            TrajectoryWriter(trajectory or tmp_path / "t.jsonl"),
            keeps_state=False,
        )
        limits = Limits(Budget(RunLimits(), model.engine.context_length), stop)
        client = Client(listen=listen, stop=stop)
        return Loop(conversation, OverseenTools(registry), journal, limits, client)

    return build


def run(loop: Loop, messages: list[Message]) -> RunResult:
    return loop.run(loop.conversation.prompt(messages))


def test_a_full_disk_ends_the_run_with_one_line(make, scripted_model) -> None:
    result = run(make(scripted_model(SUBMIT), trajectory=Path("/dev/full")), FIRST)
    assert isinstance(result.outcome, Failed)
    assert "No space left on device" in result.outcome.reason


def test_a_copy_that_is_gone_is_a_failure_and_no_empty_patch(make, scripted_model, sandbox) -> None:
    shutil.rmtree(sandbox.workspace.path.parent)
    result = run(make(scripted_model(SUBMIT)), FIRST)
    assert isinstance(result.outcome, Failed)
    assert result.outcome.reason
    assert "\n" not in result.outcome.reason


def test_an_interrupt_in_a_prefill_changes_nothing(make, tiny_checkpoint, tmp_path) -> None:
    """The real network reads a long prompt in parts; after one of them the user interrupts."""
    from agent.loading import load_model

    seen: list[Event] = []
    loop = make(
        load_model(str(tiny_checkpoint)),
        listen=seen.append,
        stop=StopWhen(lambda: any(isinstance(event, Prefilled) for event in seen)),
    )
    result = run(loop, [Message("system", "s"), Message("user", "word " * 200)])
    assert isinstance(result.outcome, Interrupted)
    assert seen[0].done < seen[0].total
    assert len(seen) == 1
    assert loop.conversation.session.ids == ()
    assert result.usage.context_tokens == result.usage.prefilled_tokens == 0
    assert list(read_lines(tmp_path / "t.jsonl")) == []
