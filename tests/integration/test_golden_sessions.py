"""A session that version 0.1.0 saved goes on: its files are used, its state is rebuilt."""

from __future__ import annotations

import shutil
from pathlib import Path

from agent.run.resume import resume, stored_settings
from agent.sessions.history import history_of
from agent.sessions.trajectory import read_records

GOLDEN = Path(__file__).parents[1] / "golden" / "sessions" / "taken_back"


def test_a_session_of_version_0_1_0_goes_on(buggy_repo, script, placed_model, store) -> None:
    shutil.copytree(GOLDEN, store.root / GOLDEN.name)
    saved = store.get(GOLDEN.name).update(repo=buggy_repo)
    settings = stored_settings(saved, {"max_steps": 1, "warm_cache_mb": 0})
    report = resume(saved, "Is that all?", settings, placed_model(*script.repair()))
    steps = report.result.steps
    assert steps[:5] == history_of(list(read_records(GOLDEN / "trajectory.jsonl"))).steps
    assert len(steps) == 6
    assert "+    return a + b" in report.patch
