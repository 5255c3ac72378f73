"""Completion in the user's shell, asked for as the shells ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.app import call

AGENT = "import sys; sys.argv[0] = 'agent'; from agent.cli.main import main; main()"


def agent(folder: Path) -> Path:
    """Make a program ``agent`` in ``folder``."""
    program = folder / "agent"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{AGENT}" "$@"\n')
    program.chmod(0o755)
    return program


def test_bash_completes_a_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    agent(tmp_path)
    assert call(["completion", "bash"]) == 0
    (tmp_path / "rc").write_text(capfd.readouterr().out)
    asks = "COMP_WORDS=(agent pro); COMP_CWORD=1; _agent_completion agent"
    script = f'source rc; {asks}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["prove"]


@pytest.mark.parametrize(
    ("shell", "asked"),
    [
        ("zsh", {}),
        ("fish", {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_other_shells_get_flags(
    tmp_path: Path, shell: str, asked: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(["completion", shell]) == 0
    assert f"_AGENT_COMPLETE=complete_{shell}" in capfd.readouterr().out
    variables = {"_AGENT_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": "agent setup --na"}
    done = subprocess.run(
        [str(agent(tmp_path))],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **variables, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--native" in done.stdout


def test_a_shell_that_is_not_known_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["completion", "tcsh"]) == 2
    assert "shells: bash, zsh, fish" in capfd.readouterr().err
