"""The words the model gets: the user's are the task and its check, and nothing else."""

from __future__ import annotations

from pathlib import Path

from agent.loop.prompts import first_messages, user_text
from agent.types import Task


def test_the_user_message_is_the_task_and_its_check_alone() -> None:
    assert user_text(Task("\n fix it \n", Path())) == "fix it"
    assert user_text(Task("fix it\n", Path(), "pytest -q")) == "fix it\n\nCheck: pytest -q"


def test_the_system_message_says_where_the_repository_is_and_what_can_be_reached() -> None:
    system, user = first_messages(Task("fix {it}", Path()), root="/workspace")
    assert (system.role, user.role, user.content) == ("system", "user", "fix {it}")
    assert "/workspace" in system.content
    assert "no network" in system.content
    assert "{" not in system.content
    online, _ = first_messages(Task("x", Path()), root="/r", network=True)
    assert "can reach the network" in online.content
