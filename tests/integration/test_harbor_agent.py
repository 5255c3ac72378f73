"""Tenuto as an agent of the real ``harbor`` package, which has an interpreter of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from evals.report.export import export
from evals.report.submission import submit
from evals.run.folder import RunFolder
from sandboxes.images.base_image import ensure_base_image
from sandboxes.paths import state_dir
from tests.support.sample_run import make_run

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0.26.0"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
CHECK = """
import json, sys
from harbor.models.trajectories import Trajectory
from harbor.models.trial.result import TrialResult
for path in sys.argv[1:]:
    data = json.load(open(path))
    (Trajectory if "steps" in data else TrialResult).model_validate(data)
print(len(sys.argv) - 1)
"""


@pytest.fixture(scope="session")
def harbor() -> Path:
    """The interpreter that has Harbor: that of ``TENUTO_HARBOR``, else one made once."""
    if named := os.environ.get("TENUTO_HARBOR"):
        return Path(named)
    python = shutil.which("python3.13") or shutil.which("python3.12")
    if python is None:
        pytest.skip("Harbor needs Python 3.12, which is not here; or name one in TENUTO_HARBOR")
    place = state_dir() / f"harbor-{VERSION}"
    program = place / "bin" / "python"
    for command in (
        [python, "-m", "venv", str(place)],
        [str(program), "-m", "pip", "install", "-q", f"harbor=={VERSION}"],
    ):
        if not (place / "bin" / "harbor").exists():
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode != 0:
                pytest.skip(f"harbor cannot be installed: {done.stderr[-200:]!r}")
    return program


def checked(harbor: Path, paths: list[Path]) -> None:
    """See that Harbor's own classes take each file."""
    assert paths
    command = [str(harbor), "-c", CHECK, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(len(paths)), done.stderr[-2000:]


def test_harbors_own_classes_take_our_exports_and_submissions(harbor: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True, False, None], "b": [True]})
    assert export(run, tmp_path / "atif") == 0
    checked(harbor, sorted((tmp_path / "atif").glob("*.json")))
    about = run.about()
    about["identity"]["suite"] = "terminal-bench"
    run.write("run.json", about)
    submit(RunFolder(run.path), tmp_path / "to", "terminal-bench")
    checked(harbor, sorted((tmp_path / "to").glob("**/result.json")))


@pytest.mark.docker
def test_harbor_runs_a_task_with_tenuto(
    harbor: Path, tmp_path: Path, docker_engine: docker.DockerClient
) -> None:
    """The embedded model works in a container that sees this machine's interpreter."""
    task = tmp_path / "task"
    for folder in ("environment", "tests"):
        (task / folder).mkdir(parents=True)
    (task / "task.toml").write_text(
        'version = "1.0"\n[agent]\ntimeout_sec = 600.0\n[environment]\nallow_internet = false\n'
    )
    (task / "instruction.md").write_text("add(2, 1) in add.py returns 1, expected 3.\n")
    (task / "environment" / "Dockerfile").write_text(
        f"FROM {ensure_base_image()}\nWORKDIR /app\n"
        "RUN printf 'def add(a, b):\\n    return a - b\\n' > add.py\n"
    )
    # The reward says that the folder is as it was made, with no repository left in it.
    (task / "tests" / "test.sh").write_text(
        "#!/bin/bash\ntest -f /app/add.py -a ! -e /app/.git && echo 1 > /logs/verifier/reward.txt\n"
    )
    # All that this interpreter imports from, where it lies.
    paths = [sys.base_prefix, sys.prefix, str(ROOT), *(p for p in sys.path if Path(p).is_dir())]
    mounts = [p for p in dict.fromkeys(paths) if p and not p.startswith("/usr")]
    done = subprocess.run(
        [
            *(str(harbor.parent / "harbor"), "run", "-y", "-p", str(task)),
            *("-a", "evals.harbor_agent:Tenuto", "-m", "embedded"),
            *("--ak", f"python={sys.executable}", "--ae", f"PYTHONPATH={ROOT}"),
            *("--ak", 'settings={"max_steps": 2, "max_turn_tokens": 64, "temperature": 0}'),
            *("-e", "harbor_docker:PlainDocker", "--jobs-dir", str(tmp_path / "jobs")),
        ],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}",
            "TENUTO_MOUNTS": ":".join(mounts),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    (result,) = (tmp_path / "jobs").glob("*/*/result.json")
    data = json.loads(result.read_text())
    assert data["exception_info"] is None, done.stdout[-2000:]
    assert data["verifier_result"]["rewards"] == {"reward": 1.0}
    assert data["agent_info"]["name"] == "tenuto"
    assert data["agent_result"]["n_output_tokens"] > 0
    checked(harbor, [result.parent / "agent" / "trajectory.json"])
