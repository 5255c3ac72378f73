"""Submissions: the folder that each leaderboard asks for, and what is told when it is not ready."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from agent.errors import ConfigError
from evals.errors import RunError
from evals.report.submission import submit
from evals.run.folder import RunFolder
from tests.support.sample_run import PATCH, make_run


def as_suite(run: RunFolder, suite: str, **identity: object) -> RunFolder:
    about = run.about()
    about["identity"] |= {"suite": suite, "model": "Qwen/Qwen3.6-27B", **identity}
    about["instances"] = len({name for name, _ in run.results()})
    run.write("run.json", about)
    return run


def logs(run: RunFolder, name: str, harness: str) -> None:
    """What the official harness leaves; an older grading of another patch lies beside."""
    place = run.grading / "attempt-1" / "logs" / "run_evaluation" / harness / "tenuto" / name
    place.mkdir(parents=True)
    for file in ("patch.diff", "report.json", "test_output.txt", "extra.bin"):
        (place / file).write_text(harness)


def test_swebench_has_the_layout_of_its_experiments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = as_suite(make_run(tmp_path / "r", {"a__a-1": [True], "b__b-2": [False]}), "swebench")
    for name in ("a__a-1", "b__b-2"):
        logs(run, name, "tenuto-1")
    to = tmp_path / "20261128_tenuto"
    assert submit(run, to, "swebench") == 1  # who submits it is still to be said
    told = capsys.readouterr().err
    assert told.count("not ready to submit") == 1
    assert "metadata.yaml says TODO" in told
    files = {str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()}
    assert files == {
        *("all_preds.jsonl", "metadata.yaml", "README.md"),
        *(f"trajs/{name}.traj" for name in ("a__a-1", "b__b-2")),
        *(
            f"logs/{name}/{file}"
            for name in ("a__a-1", "b__b-2")
            for file in ("patch.diff", "report.json", "test_output.txt")
        ),
    }
    rows = [json.loads(line) for line in (to / "all_preds.jsonl").read_text().splitlines()]
    assert rows[0] == {
        "instance_id": "a__a-1",
        "model_name_or_path": "tenuto/Qwen3.6-27B",
        "model_patch": PATCH + "plain",
    }
    metadata = yaml.safe_load((to / "metadata.yaml").read_text())
    assert set(metadata) == {"assets", "info", "tags"}
    assert metadata["tags"]["model"] == ["Qwen/Qwen3.6-27B"]
    assert "1 of 2 instances resolved" in (to / "README.md").read_text()


def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = as_suite(make_run(tmp_path / "r", {"a__a-1": [True, None]}), "swebench")
    run.write("run.json", run.about() | {"instances": 500})
    assert submit(run, tmp_path / "to", "swebench") == 1
    told = capsys.readouterr().err
    assert "1 attempts are not graded, a__a-1 among them" in told
    assert "499 of the data set's 500 instances were not run" in told
    assert "a__a-1 has no logs of the official harness" in told
    assert "one attempt at each instance" in told


def test_swebench_pro_has_the_form_of_its_makers_script(tmp_path: Path) -> None:
    run = as_suite(
        make_run(tmp_path / "r", {"a": [True, False], "b": [True, True]}), "swebench-pro"
    )
    assert submit(run, tmp_path / "to", "swebench-pro") == 0
    found = json.loads((tmp_path / "to" / "patches.json").read_text())
    assert [set(row) for row in found] == [{"instance_id", "patch", "prefix"}] * 2
    assert found[0]["prefix"] == "tenuto-Qwen3.6-27B"
    assert (tmp_path / "to" / "patches-2.json").is_file()


def test_terminal_bench_has_the_layout_of_its_leaderboard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r", {"fix-git": [True] * 5, "chess": [False] * 4})
    assert submit(as_suite(run, "terminal-bench"), tmp_path / "to", "terminal-bench") == 1
    assert "chess has 4 trials; the leaderboard asks for 5" in capsys.readouterr().err
    home = tmp_path / "to/submissions/terminal-bench/2.0/tenuto__Qwen3.6-27B"
    metadata = yaml.safe_load((home / "metadata.yaml").read_text())
    assert set(metadata) == {
        *("agent_url", "agent_display_name", "agent_org_display_name", "models"),
    }
    assert set(metadata["models"][0]) == {
        *("model_name", "model_provider", "model_display_name", "model_org_display_name"),
    }
    assert json.loads((home / "r" / "config.json").read_text())["timeout_multiplier"] == 1.0
    trials = sorted(home.glob("r/*/result.json"))
    assert len(trials) == 9
    result = json.loads((home / "r" / "fix-git__1" / "result.json").read_text())
    assert result["verifier_result"] == {"rewards": {"reward": 1.0}}
    assert result["exception_info"] is None


def test_a_longer_time_is_told_to_the_leaderboard_of_terminal_bench(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = as_suite(make_run(tmp_path / "r", {"a": [True] * 5}), "terminal-bench", max_wall_time=9.0)
    assert submit(run, tmp_path / "to", "terminal-bench") == 1
    assert "max_wall_time was set" in capsys.readouterr().err


def test_another_suite_or_leaderboard_or_a_full_folder_is_refused(tmp_path: Path) -> None:
    run = as_suite(make_run(tmp_path / "r", {"a": [True]}), "repair")
    with pytest.raises(ConfigError, match="is a run of the suite repair"):
        submit(run, tmp_path / "to", "swebench")
    with pytest.raises(ConfigError, match="use swebench, swebench-pro, terminal-bench"):
        submit(run, tmp_path / "to", "mteb")
    as_suite(run, "swebench")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "x").write_text("")
    with pytest.raises(RunError, match="is not empty"):
        submit(run, tmp_path / "to", "swebench")
