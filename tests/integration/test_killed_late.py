"""A session whose process was killed after the model submitted and before its end was told."""

from __future__ import annotations

import json

import pytest

from agent.client import Client
from agent.run.report import status_of
from agent.run.resume import resume, stored_settings
from agent.run.solve import solve
from agent.sessions.trajectory import read_lines
from agent.settings.table import Settings
from agent.types import Task


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("lost", ["end of both", "end in session.json", "check and ends"])
def test_resume_gives_what_the_unbroken_run_would_have_given(
    buggy_repo, script, placed_model, store, check, lost
) -> None:
    model = placed_model(*script.repair())
    settings = Settings(sandbox="local", warm_cache_mb=0)
    task = Task("add subtracts", buggy_repo, check=script.CHECK if check else None)
    before = {}

    def listen(event) -> None:
        (saved,) = store.sessions()
        if saved.status == "running":
            before.update(saved.info.stored)

    whole = solve(task, settings, model, store=store, client=Client(listen=listen))
    (saved,) = store.sessions()
    lines = saved.trajectory.read_bytes().splitlines(keepends=True)
    kinds = [line["type"] for line in read_lines(saved.trajectory)]
    cut = {"end of both": -1, "end in session.json": None, "check and ends": kinds.index("end")}
    if lost == "check and ends" and check:
        cut[lost] -= 1
    saved.trajectory.write_bytes(b"".join(lines[: cut[lost]]))
    (saved.path / "session.json").write_text(json.dumps({**before, "status": "killed"}))
    saved = store.find(saved.id)
    assert "exit_status" not in saved.info.stored
    report = resume(saved, None, stored_settings(saved, {}), model)
    assert status_of(report.result, report.check) == status_of(whole.result, whole.check)
    assert report.patch == whole.patch
    assert report.result.outcome == whole.result.outcome
    assert len(report.result.steps) == 5
