"""``agent resume``, ``fork`` and ``rewind`` as programs: after a kill, in use, with wrong flags."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import app
from agent.cli.resume import run as resume
from agent.cli.solve import Output, run
from agent.sessions.history import history_of
from agent.sessions.trajectory import read_records

ROOT = Path(__file__).parents[2]
AGENT = (sys.executable, "-c", "from agent.cli.main import main; main()")
# Greedy noise of a random model: no usable call, so the guard ends the run after four turns. The
# sandbox is one where every session sees the same path, which is in the prompt.
FLAGS = ("--temperature=0", "--max-turn-tokens=60", "--sandbox=bubblewrap", "--output=stream-json")


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*AGENT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )


def events(process: subprocess.Popen[bytes], until: str) -> list[dict[str, object]]:
    """Its events up to the first of the kind ``until``."""
    seen: list[dict[str, object]] = []
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["event"] == until:
            return seen
    raise AssertionError(f"no {until}: {seen} {process.stderr.read()!r}")


@pytest.fixture
def state(own_places) -> Path:
    return own_places / "tenuto" / "sessions"


def tokens(folder: Path) -> tuple[int, ...]:
    """All token ids of the session, prompts too."""
    return history_of(list(read_records(folder / "trajectory.jsonl"))).ids


def test_a_killed_run_that_goes_on_ends_as_one_that_was_not(
    buggy_repo, tiny_checkpoint, state, contents, leftovers
) -> None:
    before = contents(buggy_repo)
    common = ("solve", "do it", "--repo", str(buggy_repo), "--model", str(tiny_checkpoint), *FLAGS)
    whole = start(*common)
    expected = events(whole, "result")[-1]
    whole.communicate(timeout=120)

    killed = start(*common)
    seen = events(killed, "step") + events(killed, "step")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=120)
    name = next(str(event["session"]) for event in seen if event["event"] == "start")
    saved = json.loads((state / name / "session_state.json").read_text())["usage"]
    assert leftovers() != []

    again = start("resume", name, "--output=stream-json")
    told = events(again, "result")
    again.communicate(timeout=120)
    result = told[-1]
    for key in ("status", "exit_status", "patch", "steps"):
        assert result[key] == expected[key]
    assert again.returncode == whole.returncode == result["exit_status"]
    assert tokens(state / name) == tokens(state / str(expected["session"]))
    # Every token ran once: what was saved was not prefilled again.
    usage = result["usage"]
    paid = usage["prefilled_tokens"] + usage["generated_tokens"] + usage["shared_tokens"]
    assert paid == usage["context_tokens"]
    steps = [event["usage"]["prefilled_tokens"] for event in told if event["event"] == "step"]
    assert usage["prefilled_tokens"] - saved["prefilled_tokens"] == sum(steps)
    assert sum(steps) < saved["prefilled_tokens"] + saved["shared_tokens"]
    assert [
        event for event in told if event["event"] == "notice" and "prefilled" in event["text"]
    ] == []
    assert contents(buggy_repo) == before
    assert leftovers() == []


def test_the_second_process_is_refused_with_the_number_of_the_first(
    buggy_repo, tiny_checkpoint, capfd
) -> None:
    flags = ("--temperature=1", "--max-turn-tokens=3000", "--sandbox=local", "--output=stream-json")
    first = start("solve", "x", "--repo", str(buggy_repo), "--model", str(tiny_checkpoint), *flags)
    try:
        name = str(events(first, "start")[-1]["session"])
        assert resume(name, None, {}) == 1
        assert f"session {name} is in use by process {first.pid}" in capfd.readouterr().err
    finally:
        first.kill()
        first.communicate(timeout=120)


@pytest.fixture
def session(buggy_repo, script, placed_model, capfd):
    """A finished run's id and the model it ran with."""
    model = placed_model(*script.repair())
    assert run("x", buggy_repo, {"sandbox": "local"}, output=Output.JSON, model=model) == 0
    return json.loads(capfd.readouterr().out)["session"], model


def test_resume_prints_as_solve_does_and_applies(session, buggy_repo, capfd) -> None:
    name, model = session
    code = resume(name, "again", {}, output=Output.JSON, apply=True, model=model)
    out, err = capfd.readouterr()
    data = json.loads(out)
    assert (code, data["session"], data["status"]) == (0, name, "submitted")
    assert "+    return a + b" in data["patch"]
    assert (buggy_repo / "calc.py").read_text().endswith("return a + b\n")
    assert f"applied to {buggy_repo}" in err


def test_what_is_worth_knowing_is_told_also_where_nobody_watches(
    session, buggy_repo, capfd
) -> None:
    name, model = session
    (buggy_repo / "calc.py").write_text("x = 1\n")
    resume(name, "again", {}, output=Output.JSON, model=model)
    out, err = capfd.readouterr()
    (told,) = json.loads(out)["notices"]
    assert told.startswith(f"{buggy_repo} has changed since the session began (calc.py)")
    assert err.startswith(f"note: {told}\n")


def test_an_ended_session_needs_a_message(session, capfd) -> None:
    name, model = session
    assert resume(name, None, {}, model=model) == 2
    told = capfd.readouterr().err
    assert "has ended (submitted); give a message" in told
    assert f"agent sessions patch {name}" in told


@pytest.mark.parametrize(
    ("flags", "message", "text"),
    [
        ({"thinking": "sometimes"}, "m", "thinking = 'sometimes' in the command line"),
        ({}, "  ", "the message is empty"),
    ],
)
def test_wrong_usage(session, capfd, flags, message, text) -> None:
    name, model = session
    assert resume(name, message, flags, output=Output.JSON, model=model) == 2
    out, err = capfd.readouterr()
    assert text in err
    assert json.loads(out)["status"] == "error"


def test_fork_prints_the_new_id(session, capfd, store) -> None:
    name, _ = session
    assert app.call(["fork", name]) == 0
    child = capfd.readouterr().out.strip()
    assert child != name
    assert store.find(child).info.parent == name
    assert app.call(["fork", name, "--max-steps=3"]) == 2
    assert "give these flags to agent resume" in capfd.readouterr().err


def test_a_fork_that_cannot_begin_leaves_no_session(session, capfd, store, buggy_repo) -> None:
    name, model = session
    buggy_repo.rename(buggy_repo.with_name("elsewhere"))
    assert resume(name, "again", {}, model=model, copy=True) == 1
    assert "elsewhere" not in capfd.readouterr().err
    assert [saved.id for saved in store.sessions()] == [name]
    buggy_repo.with_name("elsewhere").rename(buggy_repo)
    assert resume(name, "again", {}, model=model, copy=True) == 0
    assert len(store.sessions()) == 2


def test_no_such_session(capfd) -> None:
    for command in (["resume", "nope"], ["fork", "nope"], ["rewind", "nope", "--to=1"]):
        assert app.call(command) == 1
        assert "no session 'nope'" in capfd.readouterr().err


def test_rewind_says_what_it_cost_and_refuses_what_is_not_there(
    buggy_repo, tiny_checkpoint, capfd, store
) -> None:
    flags = {"sandbox": "local", "model": str(tiny_checkpoint), "max_turn_tokens": 20}
    run("x", buggy_repo, flags | {"max_steps": 2}, output=Output.JSON)
    name = json.loads(capfd.readouterr().out)["session"]
    assert app.call(["rewind", name, "--to=7"]) == 2
    assert "has no step 7; --to takes 0 to 2" in capfd.readouterr().err
    assert app.call(["rewind", name, "--to=1"]) == 0
    assert "is at step 1 (" in capfd.readouterr().out
    assert store.find(name).info.steps == 1
