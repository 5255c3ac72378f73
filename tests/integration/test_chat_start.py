"""The chat's start: what is imported when the prompt stands, and what its command line may be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
AGENT = "import sys; sys.argv[0] = 'agent'; from agent.cli.main import main; main()"
LATE = {"torch", "numpy", "pydantic", "typer", "rich", "yaml", "git", "docker", "tree_sitter"}
_IMPORT = re.compile(rb"import time:\s+\d+ \|\s+\d+ \|\s+([\w.]+)")


def agent(repo: Path, *words: str, python: tuple[str, ...] = ()) -> Terminal:
    return Terminal([sys.executable, *python, "-c", AGENT, *words], cwd=repo, env={})


def test_the_prompt_stands_before_anything_slow_is_imported(buggy_repo: Path) -> None:
    # Python names each import on the same terminal, so that the order is that of the bytes.
    chat = agent(buggy_repo, "--sandbox", "local", python=("-X", "importtime"))
    try:
        chat.wait(lambda text: b"context 0 of" in chat.raw)
    finally:
        chat.close()
    before, prompt, after = chat.raw.partition("›".encode())
    assert prompt
    first = {name.decode() for name in _IMPORT.findall(before)}
    assert "prompt_toolkit" in first
    tops = {name.partition(".")[0] for name in first}
    assert not tops & LATE
    late = ("model.", "tools", "agent.run", "agent.loop", "agent.settings.")
    light = {"model.vision", "model.vision.picture"}  # the standard library alone
    early = {"model.errors", "agent.settings.extensions"} | light
    assert {name for name in first if name.startswith(late)} == early
    assert re.search(rb"\| +torch\r", after)


def test_a_wrong_command_line_ends_with_one_line(buggy_repo: Path) -> None:
    chat = agent(buggy_repo, "--mode", "bold")
    try:
        assert chat.end() == 2
        assert "there is no mode 'bold'" in chat.text
    finally:
        chat.close()


def test_a_repository_without_commits_is_opened(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run(["git", "init", "-q", str(bare)], check=True)
    chat = agent(bare, "--sandbox", "local")
    try:
        chat.wait("context 0 of")
        chat.type("\x04")
        assert chat.end() == 0
    finally:
        chat.close()
