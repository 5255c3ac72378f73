"""``agent eval compare``: two profiles on the same tasks, with a scripted model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.errors import ConfigError
from agent.loading import LoadedModel
from evals.run.begin import RunOptions
from evals.run.compare_profiles import compare_profiles, read_run
from evals.run.folder import RunFolder
from tests.support.evaluation import turns, write_tasks

SUITE = str(Path(__file__).parents[1] / "support" / "small_suite.py")
FLAGS: dict[str, Any] = {"sandbox": "local", "seed": 5, "max_steps": 3}


def options(tmp_path: Path, **more: Any) -> RunOptions:
    data = write_tasks(tmp_path / "tasks.jsonl", 3)
    return RunOptions(SUITE, dataset=str(data), folder=tmp_path / "runs", workers=2, **more)


def test_the_profile_whose_tools_the_model_knows_wins(
    tmp_path: Path,
    scripted_model: Callable[..., LoadedModel],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The script calls ``run_shell_command``: the profile ``editor`` has no such tool."""
    chosen = options(tmp_path)
    model = scripted_model(*turns())
    assert compare_profiles(chosen, ["qwen", "editor"], FLAGS, model=model) == 0
    said = capsys.readouterr().out
    assert "qwen: pass@1 100.0 %" in said
    assert "editor: pass@1 0.0 %" in said
    assert "better in qwen: task-00, task-01, task-02" in said
    assert "p = 0.25 (McNemar, exact)" in said
    runs = [read_run(name, RunFolder(chosen.place / name)) for name in ("qwen", "editor")]
    assert [(run.calls, run.broken, run.failed) for run in runs] == [(6, 0, 0), (6, 3, 0)]
    again = compare_profiles(chosen, ["qwen", "editor"], FLAGS, model=model)
    assert (again, capsys.readouterr().out) == (0, said)


def test_wrong_profiles_are_refused_before_anything_runs(tmp_path: Path) -> None:
    for profiles, said in ((["qwen"], "several"), (["qwen", "nope"], "no tool profile 'nope'")):
        with pytest.raises(ConfigError, match=said):
            compare_profiles(options(tmp_path), profiles, FLAGS)
    assert not (tmp_path / "runs").exists()
