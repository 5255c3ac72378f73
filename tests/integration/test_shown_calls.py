"""A model that only shows its calls in code fences is told that they were not made."""

from __future__ import annotations

import pytest

from agent.client import Client, OnDisk
from agent.loop.prompts import NO_CALL, SHOWN, shows_a_call, shows_only_calls
from agent.run.open_session import OpenSession
from agent.run.solve import solve
from agent.settings.table import Settings
from agent.types import Answered, Submitted, Task

SETTINGS = Settings(sandbox="local")


def fenced(call: str) -> str:
    return f"```xml\n{call}\n```"


def test_solve_tells_it_and_the_next_call_is_made(buggy_repo, scripted_model, script) -> None:
    submit = script.call("submit", summary="done")
    model = scripted_model(
        script.turn(content=fenced(submit)), script.turn(content="Done."), script.turn(submit)
    )
    report = solve(Task("repair it", buggy_repo), SETTINGS, model)
    assert isinstance(report.result.outcome, Submitted)
    assert [len(step.message.tool_calls) for step in report.result.steps] == [0, 0, 1]
    session = next(iter(buggy_repo.parent.glob("own/state/tenuto/sessions/*/trajectory.jsonl")))
    heard = session.read_text().splitlines()
    assert sum("is only shown" in line for line in heard) == 1
    assert sum(NO_CALL in line for line in heard) == 1


@pytest.mark.parametrize(("around", "answers"), [("", False), ("So it looks:\n\n", True)])
def test_with_a_person_only_words_end_the_turn(
    around: str, answers: bool, buggy_repo, scripted_model, script, store
) -> None:
    submit = script.call("submit", summary="done")
    model = scripted_model(script.turn(content=around + fenced(submit)), script.turn(submit))
    client = Client(files=OnDisk, talks=True)
    with OpenSession.new(Task("", buggy_repo), SETTINGS, model, client, store=store) as session:
        outcome = session.turn("look").result.outcome
    assert isinstance(outcome, Answered if answers else Submitted)


@pytest.mark.parametrize(
    ("content", "only"),
    [
        ("```\n<tool_call>\n<function=x>\n</function>\n```", True),
        ("~~~xml\n<function=x>\n~~~\n\n```\nls\n```\n", True),
        ("```\nls\n```", False),
        ("`<function=x>`", False),
        ("See:\n```\n<function=x>\n```", False),
    ],
)
def test_what_counts_as_nothing_but_calls(content: str, only: bool) -> None:
    assert shows_only_calls(content) is only
    assert shows_a_call(content) is ("<function=" in content)
    assert "<tool_call>" in SHOWN
