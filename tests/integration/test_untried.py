"""Attempts test no guess twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.client import Client
from agent.events import Event, Notice
from agent.loading import load_model
from agent.loop.loop import AGAIN
from agent.loop.untried import MOST_AGAIN, Tried, blob_id, texts_after
from agent.run.open_session import OpenSession
from agent.settings.table import Settings
from agent.types import Task
from evals.suites.repair import EXAMPLES
from model.messages import Message, ToolCall
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.errors import ToolFailure

STATES = st.frozensets(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=2)


@given(asked=st.lists(st.tuples(STATES, st.integers(1, 3), st.booleans()), max_size=30))
def test_a_state_is_tested_by_one_attempt_once(asked) -> None:
    tried, tested = Tried(), {}
    for state, attempt, tests in asked:
        taken = tried.takes(state, attempt, tests=tests)
        if not state:
            assert taken != tests, "the files of the beginning were tested by all"
        elif state in tested:
            assert taken == (tested[state] == attempt and not tests)
        else:
            assert taken
            if tests:
                tested[state] = attempt


def edit(old: str, new: str, path: str = "calc.py") -> ToolCall:
    return ToolCall("edit", {"file_path": path, "old_string": old, "new_string": new})


def test_edits_are_foreseen_as_the_tools_make_them(buggy_repo, tmp_path) -> None:
    run = ToolCall("run_shell_command", {"command": "true"})
    with Workspace.create(buggy_repo) as workspace, open_sandbox("local", workspace) as box:
        calls = (edit("a - b", "a * b"), edit("a * b", "b + a"), run, edit("b + a", "0"))
        texts, tests = texts_after(Message("assistant", tool_calls=calls), box)
        assert texts == {"calc.py": b"def add(a, b):\n    return b + a\n"}
        assert tests
        before = workspace.checkpoint()
        (workspace.path / "calc.py").write_bytes(texts["calc.py"])
        after = workspace.checkpoint()
        assert workspace.changed_blobs(after) == {"calc.py": blob_id(texts["calc.py"])}
        assert workspace.changed_blobs(before) == {}
        assert workspace.first_blob("calc.py") == blob_id((buggy_repo / "calc.py").read_bytes())
        assert workspace.first_blob("none.py") == ""
        texts, tests = texts_after(Message("assistant", tool_calls=(run, *calls)), box)
        assert (texts, tests) == ({}, True)
        for refused in (edit("missing", "x"), edit("a", "x"), edit("b + a", "b + a")):
            texts, _ = texts_after(Message("assistant", tool_calls=(refused,)), box)
            assert texts == {"calc.py": (workspace.path / "calc.py").read_bytes()}
        with pytest.raises(ToolFailure, match=r"none\.py"):
            texts_after(Message("assistant", tool_calls=(edit("x", "y", "none.py"),)), box)


@pytest.fixture(scope="module")
def embedded():
    return load_model("embedded")


@pytest.fixture
def parity(git_repo) -> Path:
    folder = EXAMPLES / "parity"
    return git_repo({path.name: path.read_text() for path in folder.iterdir()}, name="parity")


def test_what_another_attempt_has_tested_is_not_tested_again(parity, embedded, store) -> None:
    """With the same random numbers, but the first guess taken, the model makes another one."""
    task = Task((parity / "ISSUE.md").read_text().strip(), parity)
    settings = Settings(sandbox="local", max_steps=2)
    tried, notices = Tried(), []

    def listen(event: Event) -> None:
        notices.extend([event.text] if isinstance(event, Notice) else [])

    steps, states, abandoned = [], [], []
    for attempt in (1, 2):
        with OpenSession.new(task, settings, embedded, Client(listen), store=store) as session:
            session.parts.search_with(tried, attempt)
            report = session.turn()
            steps.append(session.steps[-1])
            states.append(session.parts.workspace.changed_blobs(steps[-1].tree))
            abandoned.append(report.cost.abandoned_tokens)
    assert all(states), "both guesses were made"
    assert states[0] != states[1]
    assert steps[0].token_ids != steps[1].token_ids
    assert abandoned[1] > 0
    assert 1 <= notices.count(AGAIN) < 2 * MOST_AGAIN
    for state in states:
        assert not tried.takes(frozenset(state.items()), 3, tests=True)
