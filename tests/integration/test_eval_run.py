"""``agent eval run`` from its flags to the folder of the run, with a scripted model."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from agent.loading import LoadedModel, load_model
from agent.sessions.trajectory import read_lines
from evals import grade
from evals.errors import DatasetError, GradeError, RunError
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from tests.support.evaluation import call, turns, write_tasks

SUITE = str(Path(__file__).parents[1] / "support" / "small_suite.py")
SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def model(scripted_model: Callable[..., LoadedModel]) -> LoadedModel:
    return scripted_model(*turns())


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., RunOptions]:
    """``options(count, **more)``: a run of that many small tasks."""

    def make(count: int = 2, **more: Any) -> RunOptions:
        data = write_tasks(tmp_path / f"{count}.jsonl", count)
        return RunOptions(
            **{"suite": SUITE, "dataset": str(data), "folder": tmp_path / "run", "workers": 2}
            | more
        )

    return make


FLAGS = {"sandbox": "local", "seed": 5}


def test_a_run_leaves_results_records_and_predictions(
    options: Callable[..., RunOptions], model: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = options(3, attempts=2)
    assert begin(chosen, FLAGS, model=model) == 0
    folder = RunFolder(chosen.place)
    results = folder.results()
    assert {(n, a) for n, a in results} == {(f"task-{n:02}", a) for n in range(3) for a in (1, 2)}
    for (name, attempt), result in results.items():
        assert result.exit_status == "submitted"
        assert "+    return a + b" in result.patch
        assert result.seed == 5 + attempt - 1
        usage = result.usage
        new = usage["prefilled_tokens"] + usage["shared_tokens"]
        assert new + usage["generated_tokens"] == usage["context_tokens"]
        records = list(read_lines(folder.attempt(name, attempt) / "trajectory.jsonl"))
        assert records[0]["seed"] == result.seed
        assert [record["type"] for record in records[-1:]] == ["end"]
    predictions = json.loads((chosen.place / "preds.json").read_text())
    assert {p["model_name_or_path"] for p in predictions.values()} == {"tenuto/embedded"}
    assert list(folder.sessions.glob("*")) == []
    said = capsys.readouterr().err
    assert "6/6" in said
    assert "6 of 6 attempts are done: 6 submitted" in said
    assert "(1.00 for each new one)" in said


def test_the_runs_folder_may_be_given_from_here(
    options: Callable[..., RunOptions],
    model: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = options(1, folder=Path("here"))
    assert begin(chosen, FLAGS, model=model) == 0
    (result,) = RunFolder(Path("here")).results().values()
    assert result.exit_status == "submitted", result.summary


def test_a_second_run_goes_on_and_redo_begins_anew(
    options: Callable[..., RunOptions], model: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    first = options(3, slice=":2")
    assert begin(first, FLAGS, model=model) == 0
    times = {path: path.stat().st_mtime_ns for path in first.place.glob("attempts/*/1/*")}
    assert begin(options(3), FLAGS, model=model) == 0
    assert "2 of 3 attempts are done" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in times} == times
    with pytest.raises(RunError, match="its seed is 5, now it is 6"):
        begin(options(3), FLAGS | {"seed": 6}, model=model)
    assert begin(options(3, redo=True), FLAGS | {"seed": 6}, model=model) == 0
    assert {result.seed for result in RunFolder(first.place).results().values()} == {6}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("quantize", "int8", "its quantize is 'none', now it is 'int8'"),
        ("compact", False, "its compact is True, now it is False"),
        ("compact_at", 0.5, "its compact_at is 0.85, now it is 0.5"),
        ("map_tokens", 300, "its map_tokens is None, now it is 300"),
        ("disk_mb", 100, "its disk_mb is 4096, now it is 100"),
        ("pass_env", ["SECRET=hunter2"], "its pass_env is"),
    ],
)
def test_every_setting_that_changes_what_comes_out_is_of_the_runs_identity(
    options: Callable[..., RunOptions], model: LoadedModel, key: str, value: Any, told: str
) -> None:
    chosen = options(1)
    with pytest.raises(RunError, match=told):
        begin(chosen, FLAGS, model=model)
        begin(chosen, FLAGS | {key: value}, model=model)


def test_a_value_of_a_variable_is_not_written_down(
    options: Callable[..., RunOptions], model: LoadedModel
) -> None:
    chosen = options(1)
    assert begin(chosen, FLAGS | {"pass_env": ["SECRET=hunter2"]}, model=model) == 0
    assert "hunter2" not in (chosen.place / "run.json").read_text()
    with pytest.raises(RunError, match="its pass_env_hash is"):
        begin(chosen, FLAGS | {"pass_env": ["SECRET=other"]}, model=model)


def test_a_run_of_an_older_version_is_not_gone_on_with(
    options: Callable[..., RunOptions], model: LoadedModel
) -> None:
    chosen = options(1)
    assert begin(chosen, FLAGS, model=model) == 0
    file = chosen.place / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
    with pytest.raises(RunError, match="is of another version"):
        begin(chosen, FLAGS, model=model)
    assert grade.grade(grade.GradeOptions(chosen.place)) == 0


def test_a_moved_data_set_is_found_anew(
    options: Callable[..., RunOptions], model: LoadedModel, tmp_path: Path
) -> None:
    chosen = options(2)
    assert begin(chosen, FLAGS, model=model) == 0
    moved = tmp_path / "elsewhere.jsonl"
    Path(str(chosen.dataset)).rename(moved)
    assert grade.grade(grade.GradeOptions(chosen.place, dataset=str(moved))) == 0
    again = dataclasses.replace(chosen, dataset=str(moved))
    assert begin(again, FLAGS, model=model) == 0
    moved.write_text(moved.read_text().replace("a - b", "b - a"))
    with pytest.raises(GradeError, match="another version of its task"):
        grade.grade(grade.GradeOptions(chosen.place, dataset=str(moved)))


COUNTS_GRADINGS = """\
from tests.support.small_suite import Small


class Counts(Small):
    def grade(self, instances, patches, machine, *, folder, workers=1):
        (name,) = patches
        with open({log!r}, "a") as file:
            file.write(name + "\\n")
        if name == "task-01" and not {whole}:
            raise KeyboardInterrupt
        return super().grade(instances, patches, machine, folder=folder, workers=workers)


SUITE = Counts()
"""


def test_grading_goes_instance_by_instance_and_goes_on(
    options: Callable[..., RunOptions], model: LoadedModel, tmp_path: Path
) -> None:
    suite, log = tmp_path / "counts.py", tmp_path / "log"
    suite.write_text(COUNTS_GRADINGS.format(log=str(log), whole=False))
    chosen = options(3, suite=str(suite), workers=1)
    assert begin(chosen, FLAGS, model=model) == 0
    flags = grade.GradeOptions(chosen.place, workers=1)
    with pytest.raises(KeyboardInterrupt):
        grade.grade(flags)
    kept = {name for name, _ in RunFolder(chosen.place).grades()}
    assert "task-01" not in kept
    suite.write_text(COUNTS_GRADINGS.format(log=str(log), whole=True))
    log.unlink()
    assert grade.grade(flags) == 0
    assert set(log.read_text().split()) == {f"task-{n:02}" for n in range(3)} - kept
    assert len(RunFolder(chosen.place).grades()) == 3
    log.unlink()
    assert grade.grade(dataclasses.replace(flags, redo=True)) == 0
    assert len(log.read_text().split()) == 3


def test_a_defect_of_one_instance_is_its_own_and_is_tried_again(
    options: Callable[..., RunOptions], model: LoadedModel, tmp_path: Path
) -> None:
    """A repository that is none: the environment failed, and the others are not held up."""
    chosen = options(2)
    assert chosen.dataset is not None
    data = Path(chosen.dataset)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows[0]["path"] = "no/such/folder.py"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert begin(chosen, FLAGS, model=model) == 1
    results = RunFolder(chosen.place).results()
    broken, fine = results["task-00", 1], results["task-01", 1]
    assert (broken.exit_status, broken.tries, broken.patch) == ("environment", 3, "")
    assert fine.exit_status == "submitted"
    before = fine.session
    assert begin(chosen, FLAGS, model=model) == 1
    assert RunFolder(chosen.place).results()["task-01", 1].session == before


@pytest.mark.parametrize(
    ("script", "flags", "status"),
    [
        (("Hm.\n</think>\n\nI would say it adds.",), {}, ("format", "limit_malformed_calls")),
        (turns()[:1], {"max_steps": 1}, ("limits", "limit_steps")),
    ],
)
def test_the_exit_status_says_how_it_ended(
    options: Callable[..., RunOptions],
    scripted_model: Callable[..., LoadedModel],
    script: tuple[str, ...],
    flags: dict[str, Any],
    status: tuple[str, str],
) -> None:
    chosen = options(1)
    assert begin(chosen, FLAGS | flags, model=scripted_model(*script)) == 0
    (result,) = RunFolder(chosen.place).results().values()
    assert (result.exit_status, result.status) == status


@pytest.mark.parametrize(
    ("more", "error", "told"),
    [
        ({"engine": "cloud"}, ConfigError, "use local or ray"),
        ({"ids": ("task-99",)}, DatasetError, "has no instance 'task-99'; did you mean task-0"),
        ({"dataset": "missing.jsonl"}, DatasetError, "does not exist"),
        ({"image_map": Path("missing.json")}, DatasetError, "--image-map missing.json cannot"),
    ],
)
def test_wrong_flags_are_refused_before_anything_runs(
    options: Callable[..., RunOptions], more: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        begin(options(2, **more), FLAGS)
    assert not options(2).place.exists()


@pytest.mark.slow
def test_twenty_kills_on_the_way_change_nothing(tmp_path: Path) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    (tmp_path / "checkpoint").mkdir()
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "kill_evaluation.py"), str(tmp_path)],
        capture_output=True,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "state"), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    found = json.loads(done.stdout)
    assert found["killed"] == 20
    assert found["code"] == 0
    assert len(found["whole"]["results"]) == 30
    assert found["broken"] == found["whole"]


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_keeps_what_was_done(tmp_path: Path) -> None:
    """On a file system of 1 MB of our own, seen by the child alone."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounting a small file system needs root and unshare")
    small = tmp_path / "small"
    small.mkdir()
    script = (
        f"mount -t tmpfs -o size=1m tmpfs {small} && {sys.executable} "
        f"{SUPPORT / 'full_disk_evaluation.py'} {tmp_path} {small}"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "state"), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if "permission denied" in done.stderr.lower() and not done.stdout:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["error"].startswith(("cannot write in", "cannot save sessions"))
    assert "what was done is kept" in found["error"]
    assert "\n" not in found["error"]
    assert 0 < found["kept"] < found["of"]
    assert found["whole"]
    assert found["then"] == found["of"]


def test_the_worked_example_of_an_adapter_runs_and_grades(
    tmp_path: Path, scripted_model: Callable[..., LoadedModel]
) -> None:
    tasks = tmp_path / "documents"
    for name, wanted in (("hello", "hello"), ("other", "world")):
        (tasks / name / "tests").mkdir(parents=True)
        (tasks / name / "prompt.md").write_text("Write a program that says hello.\n")
        (tasks / name / "tests" / "run.sh").write_text(f'[ "$(sh say.sh)" = {wanted} ]\n')
    write = call("write_file", file_path="say.sh", content="echo hello\n")
    model = scripted_model(
        f"Write.\n</think>\n\n{write}",
        f"Done.\n</think>\n\n{call('submit', summary='says hello')}",
    )
    adapter = str(Path(__file__).parents[2] / "examples" / "suite_adapter.py")
    chosen = RunOptions(adapter, str(tasks), tmp_path / "run", workers=1)
    assert begin(chosen, FLAGS, model=model) == 0
    assert grade.grade(grade.GradeOptions(chosen.place)) == 0
    verdicts = RunFolder(chosen.place).grades()
    assert (verdicts["hello", 1].resolved, verdicts["other", 1].resolved) == (True, False)
    (tasks / "hello" / "tests" / "run.sh").unlink()
    with pytest.raises(DatasetError, match="which grading needs"):
        begin(chosen, FLAGS, model=model)


INTERRUPTS = """\
import os, signal
from tests.support.small_suite import Small


class Interrupts(Small):
    def place(self, instance, machine):
        if instance.id in {at!r}:
            os.kill(os.getpid(), signal.SIGINT)
        return super().place(instance, machine)


SUITE = Interrupts()
"""


@pytest.mark.parametrize(
    ("at", "kept"), [(("task-00",), 1), (("task-00", "task-01"), 1), (("task-01",), 2)]
)
def test_control_c_drains_saves_and_goes_on(
    options: Callable[..., RunOptions],
    model: LoadedModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    at: tuple[str, ...],
    kept: int,
) -> None:
    """The first one lets the instance under way end; nothing new begins."""
    suite = tmp_path / "interrupts.py"
    suite.write_text(INTERRUPTS.format(at=at))
    chosen = options(4, suite=str(suite), workers=1)
    assert begin(chosen, FLAGS, model=model) == 130
    said = capsys.readouterr().err
    assert "stopping: what is under way is finished" in said
    assert f"go on with the same command, --run {chosen.place}" in said
    results = RunFolder(chosen.place).results()
    assert [name for name, _ in results] == [f"task-{n:02}" for n in range(kept)]
    assert all(result.exit_status == "submitted" for result in results.values())
    suite.write_text(INTERRUPTS.format(at=()))
    assert begin(chosen, FLAGS, model=model) == 0
    assert len(RunFolder(chosen.place).results()) == 4


def test_sessions_are_parked_when_memory_is_short_and_say_the_same(tmp_path: Path) -> None:
    """Three sessions at once in the memory of one."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    # The same folder in every sandbox: the paths that commands print are the same.
    flags = {"sandbox": "bubblewrap", "seed": 5, "max_steps": 2, "max_turn_tokens": 60}
    found = []
    for name, memory in (("roomy", None), ("tight", 2)):
        chosen = RunOptions(SUITE, None, tmp_path / name, slice=":3", workers=3)
        assert begin(chosen, flags, model=load_model("embedded", memory)) == 0
        results = RunFolder(chosen.place).results()
        found.append({key: (r.patch, r.usage["context_tokens"]) for key, r in results.items()})
    assert found[0] == found[1]
