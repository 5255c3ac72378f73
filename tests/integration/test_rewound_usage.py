"""What a user went back from is abandoned; what of it comes back from a saved state is not."""

from __future__ import annotations

import pytest

from agent.loading import load_model
from agent.run.resume import resume
from agent.run.rewind import rewind
from agent.run.solve import solve
from agent.settings.table import Settings
from agent.types import Task


@pytest.mark.parametrize("cache_mb", [0, 4096])
def test_nothing_is_counted_twice_after_going_back_to_the_start(
    buggy_repo, store, cache_mb
) -> None:
    model = load_model("embedded")
    settings = Settings(
        sandbox="local", max_steps=1, max_turn_tokens=24, temperature=0.0, warm_cache_mb=cache_mb
    )
    first = solve(Task("repair it", buggy_repo), settings, model, store=store)
    assert first.result.usage.repeated_tokens == 0
    saved = store.find(first.session)
    rewind(saved, 0, model)
    usage = resume(store.find(saved.id), "go on", settings, model).result.usage
    assert usage.abandoned_tokens > 0
    assert usage.repeated_tokens == 0
