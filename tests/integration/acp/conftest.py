"""Fixtures of the tests that serve an editor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
SUPPORT = ROOT / "tests" / "support"


@pytest.fixture
def parity_repo(git_repo: Callable[..., Path]) -> Path:
    """An example that the embedded model repairs greedily in a few steps."""
    source = ROOT / "examples" / "parity"
    names = ("parity.py", "test_parity.py")
    return git_repo({name: (source / name).read_text() for name in names}, name="parity")


@pytest.fixture
def parity_task() -> str:
    """What to say for it."""
    issue = (ROOT / "examples" / "parity" / "ISSUE.md").read_text().strip()
    return f"{issue}\n\nCheck: python3 -m pytest -xq"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Where the frames of ``agent_command`` are written."""
    return tmp_path / "frames.jsonl"


@pytest.fixture
def agent_command(record: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """``agent_command("--sandbox", "docker")``: the real process, with its frames recorded."""
    monkeypatch.setenv("AGENT_TEMPERATURE", "0")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def make(*flags: str) -> list[str]:
        agent = [sys.executable, "-c", "from agent.cli import main; main()", "acp", *flags]
        return [sys.executable, str(SUPPORT / "acp_wire.py"), str(record), *agent]

    return make
