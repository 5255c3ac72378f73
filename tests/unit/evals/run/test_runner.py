"""Several workers: what runs, what is kept, and what a ^C, a failure or a full disk leaves."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from agent.events import Listener
from evals.errors import RunError
from evals.instance import Done, Instance, Result
from evals.run.attempt import Stopped
from evals.run.folder import RunFolder
from evals.run.runner import Interruptions, Job, Nobody, Runner
from sandboxes.stop import Stop

JOBS = [Job(Instance(f"i{number}", ""), 1) for number in range(6)]


def done(job: Job) -> Done:
    patch = f"patch of {job.instance.id}"
    return Done(Result(job.instance.id, job.attempt, "submitted", "submitted", patch=patch))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    found = RunFolder(tmp_path)
    found.begin({}, {})
    return found


def kept(folder: RunFolder) -> set[str]:
    """The ids in preds.json, which must be those of the attempts."""
    predictions = set(json.loads((folder.path / "preds.json").read_text()))
    assert predictions == {name for name, _ in folder.results()}
    return predictions


def test_workers_run_at_the_same_time_and_each_job_once(folder: RunFolder) -> None:
    together = threading.Barrier(3, timeout=60)
    made = []

    def execute(job: Job, listen: Listener, stop: Stop) -> Done:
        together.wait()
        made.append(job.instance.id)
        return done(job)

    results = Runner(folder, "m", execute, workers=3).run(JOBS)
    assert sorted(made) == [job.instance.id for job in JOBS] == sorted(kept(folder))
    assert results == folder.results()


def test_the_predictions_are_there_after_each_attempt(folder: RunFolder) -> None:
    seen: list[int] = []

    class Looks(Nobody):
        def ended(self, job: Job, result: Result | None) -> None:
            seen.append(len(kept(folder)))

    Runner(folder, "m", lambda job, listen, stop: done(job), watcher=Looks()).run(JOBS)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_one_interruption_finishes_what_is_under_way(folder: RunFolder) -> None:
    interruptions = Interruptions()

    def execute(job: Job, listen: Listener, stop: Stop) -> Done:
        interruptions.add()
        assert not stop.is_set()
        return done(job)

    Runner(folder, "m", execute, interruptions=interruptions).run(JOBS)
    assert kept(folder) == {"i0"}


def test_two_interruptions_stop_it_and_keep_nothing_of_it(folder: RunFolder) -> None:
    interruptions = Interruptions()
    ended: list[Result | None] = []

    class Looks(Nobody):
        def ended(self, job: Job, result: Result | None) -> None:
            ended.append(result)

    def execute(job: Job, listen: Listener, stop: Stop) -> Done:
        if job.instance.id == "i1":
            interruptions.add()
            interruptions.add()
            assert stop.is_set()
            raise Stopped
        return done(job)

    Runner(folder, "m", execute, watcher=Looks(), interruptions=interruptions).run(JOBS)
    assert kept(folder) == {"i0"}
    assert ended[1:] == [None]


def test_a_defect_ends_the_run_and_keeps_what_was_done(folder: RunFolder) -> None:
    def execute(job: Job, listen: Listener, stop: Stop) -> Done:
        if job.instance.id == "i2":
            raise ZeroDivisionError
        return done(job)

    with pytest.raises(ZeroDivisionError):
        Runner(folder, "m", execute).run(JOBS)
    assert {"i0", "i1"} <= kept(folder) <= {"i0", "i1", "i3", "i4", "i5"}


def test_a_disk_that_refuses_ends_the_run_in_one_line(folder: RunFolder) -> None:
    def execute(job: Job, listen: Listener, stop: Stop) -> Done:
        if job.instance.id == "i2":
            # In the way of the attempt's folder: a file of that name.
            (folder.path / "attempts").mkdir(exist_ok=True)
            (folder.path / "attempts" / "i2").write_text("")
        return done(job)

    with pytest.raises(RunError, match=r"cannot write in .*: what was done is kept"):
        Runner(folder, "m", execute).run(JOBS)
    (folder.path / "attempts" / "i2").unlink()
    assert {"i0", "i1"} <= kept(folder)
    assert "i2" not in kept(folder)
