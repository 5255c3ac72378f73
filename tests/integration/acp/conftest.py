"""Fixtures of the tests that serve an editor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
SUPPORT = ROOT / "tests" / "support"


COMMAND = "python3 -m pytest -xqq"


@pytest.fixture
def parity_repo(git_repo: Callable[..., Path]) -> Path:
    """An example that ``repair`` repairs."""
    source = ROOT / "examples" / "parity"
    names = ("parity.py", "test_parity.py")
    return git_repo({name: (source / name).read_text() for name in names}, name="parity")


@pytest.fixture
def parity_task() -> str:
    """What to say for it."""
    issue = (ROOT / "examples" / "parity" / "ISSUE.md").read_text().strip()
    return f"{issue}\n\nCheck: python3 -m pytest -xq"


@pytest.fixture
def repair(script: Any) -> list[str]:
    """What the model says for it."""
    right = {"old_string": "number % 2 != 0", "new_string": "number % 2 == 0"}
    run = script.call("run_shell_command", command=COMMAND)
    read = script.call("read_file", file_path="parity.py")
    edit = script.call("edit", file_path="parity.py", **right)
    return [
        script.turn(run, read, thinking="Run the tests and read `parity.py`."),
        script.turn(edit, run, thinking="The comparison is the wrong way round."),
        script.turn(thinking="The tests pass.", content="Fixed is_even."),
    ]


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Where the frames of ``agent_command`` are written."""
    return tmp_path / "frames.jsonl"


@pytest.fixture
def agent_command(
    record: Path, repair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """``agent_command("--sandbox", "docker")``: the real process, with its frames recorded.

    Its model runs, and says ``repair`` whatever the processor makes of it.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    turns = tmp_path / "turns.json"
    turns.write_text(json.dumps(repair))

    def make(*flags: str) -> list[str]:
        agent = [sys.executable, str(SUPPORT / "forced_acp.py"), str(turns), "acp", *flags]
        return [sys.executable, str(SUPPORT / "acp_wire.py"), str(record), *agent]

    return make
