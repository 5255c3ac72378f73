"""A real ``agent solve`` process stopped or killed at every stage leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.loading import load_model
from agent.sessions.store import SessionStore
from agent.sessions.trajectory import read_lines, session_ids
from sandboxes.prune import prune

ROOT = Path(__file__).parents[2]
AGENT = (sys.executable, "-c", "from agent.cli.main import main; main()")


class Run:
    """An ``agent solve`` process whose events can be waited for."""

    def __init__(self, repo: Path, checkpoint: Path, *flags: str) -> None:
        self.process = subprocess.Popen(
            [
                *(*AGENT, "solve", "do it", "--output=stream-json", *flags),
                *("--repo", str(repo), "--model", str(checkpoint)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        self.events: list[dict[str, object]] = []

    def wait_for(self, kind: str) -> None:
        """Read events until one of ``kind`` came."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == kind:
                return
        raise AssertionError(f"no {kind}: {self.events} {self.process.stderr.read()!r}")

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send the signal (SIGINT as a terminal does); returns the exit code and stderr."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=120)
        self.events += [json.loads(line) for line in out.splitlines()]
        return self.process.returncode, err.decode()


@pytest.fixture
def start(tiny_checkpoint: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(repo: Path, *flags: str) -> Run:
        runs.append(Run(repo, tiny_checkpoint, *flags))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.communicate()


# The model's noise holds no usable call, so a run has four turns, and these are long enough.
LONG = ("--temperature=1", "--max-turn-tokens=400")


@pytest.mark.parametrize(
    ("number", "sandbox", "moment"),
    [
        (signal.SIGINT, "local", "start"),
        (signal.SIGINT, "local", "step"),
        (signal.SIGTERM, "local", "start"),
        (signal.SIGHUP, "local", "start"),
        pytest.param(signal.SIGINT, "docker", "start", marks=pytest.mark.docker),
    ],
)
def test_a_signal_stops_the_run_and_saves_the_session(
    number, sandbox, moment, request, start, buggy_repo, tiny_checkpoint, store, contents, leftovers
) -> None:
    if sandbox == "docker":
        request.getfixturevalue("docker_engine")
    before = contents(buggy_repo)
    run = start(buggy_repo, f"--sandbox={sandbox}", *LONG)
    run.wait_for(moment)
    code, err = run.stop(number)
    result = run.events[-1]
    assert (code, result["event"], result["exit_status"]) == (130, "result", 130)
    assert result["status"] == "interrupted"
    assert "Traceback" not in err
    assert contents(buggy_repo) == before
    assert leftovers() == []
    (saved,) = store.sessions()
    assert saved.status == "interrupted"
    ids = session_ids(saved.trajectory)
    usage = result["usage"]
    assert usage["prefilled_tokens"] + usage["generated_tokens"] == usage["context_tokens"]
    assert usage["context_tokens"] == len(ids)
    if ids:
        engine = load_model(str(tiny_checkpoint)).engine
        assert engine.resume(saved.path).ids == tuple(ids)


@pytest.mark.parametrize("moment", ["start", "step"])
@pytest.mark.parametrize("sandbox", ["local", pytest.param("docker", marks=pytest.mark.docker)])
def test_after_a_kill_the_next_start_clears_up(
    sandbox, moment, request, start, buggy_repo, store: SessionStore, contents, leftovers
) -> None:
    engine = request.getfixturevalue("docker_engine") if sandbox == "docker" else None
    before = contents(buggy_repo)
    run = start(buggy_repo, f"--sandbox={sandbox}", *LONG)
    run.wait_for(moment)
    # A notice may come first: containers that others left are cleared away too.
    session = next(str(e["session"]) for e in run.events if e["event"] == "start")
    code, _ = run.stop(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert contents(buggy_repo) == before
    assert leftovers() != []
    (saved,) = store.sessions()
    assert saved.status == "running"
    records = list(read_lines(saved.trajectory))
    assert len([record for record in records if record["type"] == "step"]) >= (moment == "step")

    again = start(buggy_repo, f"--sandbox={sandbox}", "--max-steps=1", "--max-turn-tokens=3")
    again.wait_for("result")
    again.process.communicate(timeout=120)
    assert leftovers() == []
    assert store.find(saved.id).status == "killed"
    if engine is not None:
        ours = {"label": f"tenuto.session={session}"}
        assert engine.containers.list(all=True, filters=ours) == []


def test_a_kill_while_it_starts_leaves_nothing_that_stays(
    start, buggy_repo, contents, own_places, leftovers
) -> None:
    """Killed once the copy has begun to appear: before a session exists."""
    before = contents(buggy_repo)
    run = start(buggy_repo, "--sandbox=local", *LONG)
    place = own_places / "tenuto" / "workspaces"
    while not (place.is_dir() and any(place.iterdir())):
        assert run.process.poll() is None
        os.sched_yield()
    run.stop(signal.SIGKILL)
    assert contents(buggy_repo) == before
    prune()
    assert leftovers() == []
