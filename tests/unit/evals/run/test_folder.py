"""The folder of a run: whose it is, and what a crash leaves in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evals.errors import RunError
from evals.instance import Done, Instance, Result, Verdict
from evals.run.folder import RunFolder
from evals.run.runner import missing


def result(name: str = "a", attempt: int = 1, status: str = "submitted") -> Result:
    return Result(name, attempt, status, status, patch="diff\n", digest=Instance(name, "").digest)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_what_was_kept_is_there_again(folder: RunFolder) -> None:
    with folder.claim():
        folder.begin({"suite": "tasks"}, {"version": "1"})
        folder.keep(Done(result(), {"session.json": b"{}"}))
        folder.keep(Done(result("b", 2)))
    assert folder.results() == {("a", 1): result(), ("b", 2): result("b", 2)}
    assert (folder.attempt("a", 1) / "session.json").read_bytes() == b"{}"
    assert folder.about()["identity"] == {"suite": "tasks"}


def test_predictions_have_the_official_form(folder: RunFolder) -> None:
    folder.path.mkdir()
    results = {("a", 1): result(), ("b", 2): result("b", 2)}
    folder.write_predictions(results, "tenuto/x", 1)
    folder.write_predictions(results, "tenuto/x", 2)
    assert json.loads((folder.path / "preds.json").read_text()) == {
        "a": {"instance_id": "a", "model_name_or_path": "tenuto/x", "model_patch": "diff\n"}
    }
    assert list(json.loads((folder.path / "preds-2.json").read_text())) == ["b"]


def test_another_run_in_the_folder_is_refused(folder: RunFolder) -> None:
    with folder.claim():
        folder.begin({"suite": "tasks", "seed": 0}, {})
        with pytest.raises(RunError, match="holds another run: its seed is 0, now it is 1"):
            folder.begin({"suite": "tasks", "seed": 1}, {})
        folder.begin({"suite": "tasks", "seed": 0}, {})


def test_predictions_of_another_run_are_not_written_over(folder: RunFolder) -> None:
    folder.path.mkdir()
    (folder.path / "preds.json").write_text("{}")
    with folder.claim(), pytest.raises(RunError, match=r"preds\.json is of another run"):
        folder.begin({"suite": "tasks"}, {})


def test_a_result_of_another_instance_is_noticed(folder: RunFolder) -> None:
    folder.keep(Done(result()))
    folder.attempt("a", 1).rename(folder.attempt("a", 1).with_name("2"))
    with pytest.raises(RunError, match="of another run: it is the result of a"):
        folder.results()


def test_a_second_process_is_refused(folder: RunFolder) -> None:
    again = RunFolder(folder.path)
    with folder.claim(), pytest.raises(RunError, match="another process works on"), again.claim():
        pass


def test_what_a_killed_process_left_is_cleared(folder: RunFolder) -> None:
    folder.keep(Done(result()))
    half = folder.attempt("a", 2).with_name(".new-2")
    half.mkdir()
    (half / "result.json").write_text("{")
    (folder.sessions / "x").mkdir(parents=True)
    with folder.claim():
        assert list(folder.results()) == [("a", 1)]
    assert not half.exists()
    assert not folder.sessions.exists()


def test_a_damaged_result_is_named(folder: RunFolder) -> None:
    folder.keep(Done(result()))
    (folder.attempt("a", 1) / "result.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        folder.results()


def test_what_says_nothing_of_the_model_is_to_be_made_again(folder: RunFolder) -> None:
    for name, status in (("a", "limits"), ("b", "environment"), ("c", "error")):
        folder.keep(Done(result(name, status=status)))
    every = [Instance(name, "") for name in "abcd"]
    jobs = missing(folder, every, 2)
    assert [(job.instance.id, job.attempt) for job in jobs] == [
        *(("b", 1), ("c", 1), ("d", 1)),
        *(("a", 2), ("b", 2), ("c", 2), ("d", 2)),
    ]
    with pytest.raises(RunError, match="from another row"):
        missing(folder, [Instance("a", "", row={"changed": 1})], 1)
    assert len(missing(folder, every, 1, redo=True)) == 4
    assert folder.results() == {}


def test_grades_come_back(folder: RunFolder) -> None:
    folder.path.mkdir()
    grades = {("a", 1): Verdict("a", True, 1.0), ("a", 2): Verdict("a", None, reason="gone")}
    folder.write_grades(grades, "tasks")
    assert folder.grades() == grades
