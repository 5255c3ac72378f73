"""A turn in which the model only repeats itself is stopped inside the turn."""

from __future__ import annotations

from agent.client import Client
from agent.events import Notice
from agent.run.solve import solve
from agent.settings.table import Settings
from agent.types import Task


def test_a_turn_that_repeats_itself_is_stopped(buggy_repo, scripted_model, store) -> None:
    said: list[str] = []

    def listen(event: object) -> None:
        if isinstance(event, Notice):
            said.append(event.text)

    model = scripted_model("Well.\n</think>\n\n" + "on and on " * 3000)
    settings = Settings(sandbox="local", max_steps=1)
    report = solve(
        Task("x", buggy_repo), settings, model, store=store, client=Client(listen=listen)
    )
    (step,) = report.result.steps
    assert len(step.token_ids) < 1000
    assert step.ended == "length"
    assert said == [f"the model repeats itself: stopped after {len(step.token_ids):,} tokens"]
    usage = report.result.usage
    assert usage.prefilled_tokens + usage.generated_tokens == usage.context_tokens
