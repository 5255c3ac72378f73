"""What runs in the container of one of Harbor's tasks."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest

from evals import harbor_run
from evals.harbor_run import put_back, repository

PATCH = "diff --git a/a.txt b/a.txt\n--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-one\n+two\n"


def test_a_folder_is_a_repository_only_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    with repository(tmp_path) as repo:
        assert (repo / ".git").is_dir()
        put_back(repo, PATCH)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "two\n"


def test_a_repository_is_taken_as_it_is(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "below").mkdir()
    with repository(tmp_path / "below") as repo:
        assert repo.samefile(tmp_path)
    assert (tmp_path / ".git").is_dir()


@pytest.mark.parametrize("text", ["", "[]", '{"logs": 1}', '{"logs": "x"}'])
def test_what_is_no_task_is_told(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert harbor_run.main() == 2
    assert "standard input is no task" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"instruction": "x", "logs": str(tmp_path / "l"), "settings": {"model": "/no/model"}}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked)))
    assert harbor_run.main() == 1
    assert "could not be worked on" in capsys.readouterr().err
