"""Best of n: several attempts at once over one shared prompt."""

from __future__ import annotations

import pytest

from agent.cli.json_events import event_as_json
from agent.client import Client
from agent.errors import ConfigError
from agent.events import (
    CheckDone,
    Event,
    FromAttempt,
    Prefilled,
    RunEnded,
    RunStarted,
    StepDone,
    Working,
)
from agent.loading import load_model
from agent.run import open_session
from agent.run.report import as_json, status_of
from agent.run.resume import resume, stored_settings
from agent.run.solve import solve
from agent.sessions.trajectory import read_lines, session_ids
from agent.settings.table import Settings
from agent.types import Task
from sandboxes.errors import SandboxUnavailable
from tests.support.stops import StopWhen

# Turns of the tiny model are noise; three short ones are enough to tell attempts apart.
NOISE = {"sandbox": "local", "max_steps": 3, "max_turn_tokens": 12, "temperature": 1.0}


def status(report) -> tuple[str, int]:
    return status_of(report.result, report.check)


def said(report) -> list[tuple[int, ...]]:
    return [step.token_ids for step in report.result.steps]


@pytest.fixture(scope="module")
def noisy(tiny_checkpoint):
    return load_model(str(tiny_checkpoint))


def test_the_first_whose_check_passes_wins_and_the_others_are_cancelled(
    buggy_repo, script, placed_model, store, leftovers, contents
) -> None:
    before = contents(buggy_repo)
    events: list[Event] = []
    task = Task("add subtracts", buggy_repo, check=script.CHECK)
    model = placed_model(*script.repair())
    settings = Settings(sandbox="local", n=3, temperature=0.5)
    report = solve(task, settings, model, store=store, client=Client(listen=events.append))
    assert status(report) == ("submitted", 0)
    assert len(report.attempts) == 3
    won = [a for a in report.attempts if a.session == report.session]
    assert [a.status for a in won] == ["submitted"]
    assert {a.status for a in report.attempts} <= {"submitted", "cancelled"}
    sessions = store.sessions()
    assert [s.id for s in sessions] == [a.session for a in report.attempts]
    assert [s.status for s in sessions] == [a.status for a in report.attempts]
    assert [s.info.attempt for s in sessions] == [1, 2, 3]
    assert [s.info.parent for s in sessions] == [None, sessions[0].id, sessions[0].id]
    assert [s.info.seed for s in sessions] == [0, 1, 2]
    assert leftovers() == []
    assert contents(buggy_repo) == before

    common = (CheckDone, Prefilled, Working)
    assert all(isinstance(e, FromAttempt) for e in events if not isinstance(e, common))
    told = [e for e in events if isinstance(e, FromAttempt)]
    assert {e.number for e in told if isinstance(e.event, RunStarted)} == {1, 2, 3}
    assert {e.number for e in told if isinstance(e.event, RunEnded)} == {1, 2, 3}
    checks = [e for e in events if isinstance(e, CheckDone)]
    assert [e.when for e in checks] == ["before"], "the check before is run once for all"
    line = event_as_json(next(e for e in told if isinstance(e.event, StepDone)))
    assert line["attempt"] in (1, 2, 3)
    assert as_json(report)["attempts"][0]["session"] == sessions[0].id


def test_a_running_command_is_stopped_when_another_wins_and_the_attempt_can_go_on(
    buggy_repo, script, placed_model, store, tmp_path
) -> None:
    """Whichever comes second waits in a command for ever."""
    wait = f"mkdir {tmp_path}/taken || sleep 1000"
    turns = (script.turn(script.call("run_shell_command", command=wait)), *script.repair()[1:])
    task = Task("add subtracts", buggy_repo, check=script.CHECK)
    model = placed_model(*turns)
    report = solve(task, Settings(sandbox="local", n=2, temperature=0.5), model, store=store)
    assert status(report) == ("submitted", 0)
    (lost,) = [a for a in report.attempts if a.session != report.session]
    assert (lost.status, lost.passed) == ("cancelled", False)
    saved = store.find(lost.session)
    assert saved.status == "cancelled"
    assert "passed the check first" in saved.info.summary
    again = resume(saved, None, stored_settings(saved, {}), model)
    assert status(again) == ("submitted", 0)
    assert again.patch == report.patch
    assert again.result.usage.repeated_tokens == 0


@pytest.mark.parametrize("sandbox", ["bubblewrap", "local"])
def test_attempts_share_the_prompt_and_equal_single_runs(sandbox, buggy_repo, noisy, store) -> None:
    """Attempt i says bit for bit what a run of its own with that seed says."""
    task = Task("add subtracts", buggy_repo, check="false")
    fields = NOISE | {"sandbox": sandbox, "warm_cache_mb": 0}
    report = solve(task, Settings(n=3, **fields), noisy, store=store)
    assert status(report)[1] in (3, 4)
    chosen = report.attempts
    assert len({tuple(a.session for a in chosen)}) == 1
    first, *others = chosen
    assert first.usage.shared_tokens == 0
    turns, prompts = {}, {}
    for attempt in chosen:
        saved = store.find(attempt.session)
        usage = attempt.usage
        assert usage.repeated_tokens == 0
        assert usage.context_tokens == len(session_ids(saved.trajectory))
        assert noisy.engine.resume(saved.path).ids == tuple(session_ids(saved.trajectory))
        records = list(read_lines(saved.trajectory))
        turns[attempt.number] = [r["token_ids"] for r in records if r["type"] == "step"]
        assert next(r["when"] for r in records if r["type"] == "check") == "before"
        prompts[attempt.number] = next(r["ids"] for r in records if r["type"] == "prompt")
    for attempt in others:
        own, shared = prompts[attempt.number], attempt.usage.shared_tokens
        assert own == prompts[first.number], "no folder of an attempt's own is in it"
        # All but the opening of the model's own turn.
        assert len(own) - 10 <= shared < len(own)
    assert len({str(t) for t in turns.values()}) == 3
    for number in (1, 3):
        alone = solve(task, Settings(seed=number - 1, **fields), noisy, store=store)
        assert [list(ids) for ids in said(alone)] == turns[number]


def test_without_a_winner_the_likeliest_of_the_best_is_chosen(buggy_repo, noisy, store) -> None:
    task = Task("add subtracts", buggy_repo, check="false")
    report = solve(task, Settings(n=3, **NOISE), noisy, store=store)
    (chosen,) = [a for a in report.attempts if a.session == report.session]
    assert chosen.logprob == max(a.logprob for a in report.attempts)
    assert len({a.logprob for a in report.attempts}) == 3


def test_an_interrupt_stops_and_saves_all(buggy_repo, noisy, store, leftovers) -> None:
    seen: list[Event] = []
    task = Task("add subtracts", buggy_repo, check="false")
    report = solve(
        task,
        Settings(n=3, **NOISE),
        noisy,
        store=store,
        client=Client(
            listen=seen.append,
            stop=StopWhen(
                lambda: any(
                    isinstance(e, FromAttempt) and isinstance(e.event, StepDone) for e in seen
                )
            ),
        ),
    )
    assert status(report) == ("interrupted", 130)
    assert "interrupted" in {s.status for s in store.sessions()}
    assert {s.status for s in store.sessions()} <= {"interrupted", "limit_steps"}
    for saved in store.sessions():
        ids = session_ids(saved.trajectory)
        if ids:
            assert noisy.engine.resume(saved.path).ids == tuple(ids)
    assert leftovers() == []


def test_one_broken_attempt_does_not_break_the_others(
    buggy_repo, script, placed_model, store, monkeypatch
) -> None:
    def open_box(settings, workspace, name):
        found = store.get(name)
        if found is not None and found.info.attempt == 2:
            raise SandboxUnavailable("no room for a second box")
        return real(settings, workspace, name)

    real = open_session.open_box
    monkeypatch.setattr(open_session, "open_box", open_box)
    task = Task("add subtracts", buggy_repo, check="false")
    settings = Settings(sandbox="local", n=3, temperature=0.5)
    report = solve(task, settings, placed_model(*script.repair()), store=store)
    ends = {a.number: (a.status, a.error) for a in report.attempts}
    assert ends[2] == ("failed", "no room for a second box")
    assert ends[1][0] == ends[3][0] == "check_failed"
    assert store.sessions()[1].status == "failed"
    assert status(report) == ("check_failed", 3)
    assert "+    return a + b" in report.patch


def test_a_prompt_that_does_not_fit_is_a_limit(buggy_repo, scripted_model, script, store) -> None:
    model = scripted_model(*script.repair(), context_length=400)
    task = Task("x", buggy_repo, check=script.CHECK)
    report = solve(task, Settings(sandbox="local", n=2, temperature=0.5), model, store=store)
    assert status(report) == ("limit_context", 4)
    assert {a.status for a in report.attempts} == {"limit_context"}


def test_it_needs_a_check_and_a_temperature(buggy_repo, scripted_model, script, store) -> None:
    model = scripted_model(*script.repair())
    with pytest.raises(ConfigError, match="needs --check"):
        solve(Task("x", buggy_repo), Settings(sandbox="local", n=2, temperature=1), model)
    with pytest.raises(ConfigError, match="greedy attempts are all equal"):
        solve(
            Task("x", buggy_repo, check="true"),
            Settings(sandbox="local", n=2, temperature=0),
            model,
        )


@pytest.mark.docker
def test_attempts_in_docker(docker_engine, buggy_repo, script, placed_model, store, leftovers):
    task = Task("add subtracts", buggy_repo, check=script.CHECK)
    model = placed_model(*script.repair())
    report = solve(task, Settings(n=2, temperature=0.5), model, store=store, apply=True)
    assert status(report) == ("submitted", 0)
    assert report.applied
    assert (buggy_repo / "calc.py").read_text() == "def add(a, b):\n    return a + b\n"
    assert leftovers() == []


def test_equal_patches_are_checked_once(buggy_repo, script, placed_model, store, tmp_path) -> None:
    """All attempts end with the same patch, which fails: one run of the check answers for all."""
    events: list[Event] = []
    ran = tmp_path / "ran"
    check = f"echo x >> {ran}; false"
    turns = [t for t in script.repair() if "run_shell_command" not in t]
    settings = Settings(sandbox="local", n=3, temperature=0.5)
    model = placed_model(*turns)
    task = Task("add subtracts", buggy_repo, check=check)
    report = solve(task, settings, model, store=store, client=Client(listen=events.append))
    assert [a.status for a in report.attempts] == ["check_failed"] * 3
    assert ran.read_text().count("x") == 2  # before the model, and once after it
    done = [
        e.event for e in events if isinstance(e, FromAttempt) and isinstance(e.event, CheckDone)
    ]
    assert [(e.when, e.run.passed) for e in done] == [("after", False)] * 3
