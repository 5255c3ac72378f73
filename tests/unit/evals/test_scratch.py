"""Temporary folders of evaluations: gone at the end, or with the next run after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evals.scratch import clear_scratch, scratch_folder
from sandboxes.paths import state_dir

CHILD = """\
import os, signal
from evals.scratch import scratch_folder
with scratch_folder("task") as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_a_folder_is_gone_with_its_context() -> None:
    with scratch_folder("task") as folder:
        (folder / "file").write_text("x")
        assert clear_scratch() == []
        assert folder.is_dir()
    assert list((state_dir() / "evaluations").iterdir()) == []


def test_what_a_killed_process_left_is_removed() -> None:
    root = Path(__file__).parents[3]
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    left = Path(child.stdout.strip())
    assert (left / "file").exists()
    assert clear_scratch() == [f"folder {left.name}"]
    assert list((state_dir() / "evaluations").iterdir()) == []
