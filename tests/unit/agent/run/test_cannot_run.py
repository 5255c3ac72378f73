"""A check that cannot run is told from a failing test by what it said."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.run.cannot_run import advice, why_it_cannot_run
from agent.types import CheckRun

IMPORT_ERROR = """\
ImportError while importing test module '/workspace/tests/test_a.py'.
E   ModuleNotFoundError: No module named '{}'
=========================== short test summary info ============================
ERROR tests/test_a.py
!!!!!!!!!!!!!!!!!!!! Interrupted: 1 error during collection !!!!!!!!!!!!!!!!!!!!
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src" / "own").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("code", "output", "words"),
    [
        (1, "/usr/bin/python3: No module named pytest\n", "no module pytest"),
        (2, IMPORT_ERROR.format("click"), "no module click"),
        (2, IMPORT_ERROR.format("google.protobuf"), "no module google"),
        (2, IMPORT_ERROR.format("own"), "PYTHONPATH=src"),
        (127, "bash: line 1: cargo: command not found\n", "no program cargo"),
        (127, "sh: 1: jest: not found\n", "no program jest"),
        (
            2,
            "make: cargo: No such file or directory\nmake: *** [Makefile:2: test] Error 127\n",
            "no",
        ),
        (127, "bash: line 1: ./run: No such file or directory\n", "there is no ./run"),
        (126, "bash: line 1: ./run.sh: Permission denied\n", "./run.sh may not be run"),
        (2, "python3: can't open file '/workspace/x.py': [Errno 2]\n", "/workspace/x.py"),
        (1, "Error: Cannot find module 'mocha'\nRequire stack:\n", "no package mocha"),
        (2, "make: *** No rule to make target 'test'.  Stop.\n", "no target test"),
        (1, 'npm ERR! Missing script: "test"\n', "no script test"),
        (
            4,
            "ERROR: file or directory not found: tests/a.py\n\nno tests ran in 0.00s\n",
            "tests/a.py",
        ),
        (4, "pytest: error: unrecognized arguments: --cov=x\n", "does not know --cov=x"),
        (5, "no tests ran in 0.01s\n", "finds no test"),
        (101, "error: failed to download from `https://index.crates.io/x`\n", "network"),
        (1, 'go: x@v1: Get "https://p": dial tcp: lookup p: no such host\n', "network"),
    ],
)
def test_what_is_missing_is_named(code: int, output: str, words: str, tree: Path) -> None:
    assert words in (why_it_cannot_run(CheckRun(code, output, 1.0), tree) or "")


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (0, "bash: x: command not found\n1 passed\n"),
        (None, "bash: x: command not found\n"),
        (1, "E   assert 1 == 2\n1 failed in 0.1s\n"),
        (1, "E   ModuleNotFoundError: No module named 'click'\n1 failed, 4 passed in 0.1s\n"),
        (2, IMPORT_ERROR.format("own.new_part")),
        (1, "AssertionError: the error says 'not found'\n"),
        (1, "Cannot find module './lib/new'\n"),
        (1, "--- FAIL: TestAdd (0.00s)\nFAIL\n"),
    ],
)
def test_a_failing_test_is_one(code: int | None, output: str, tree: Path) -> None:
    assert why_it_cannot_run(CheckRun(code, output, 1.0), tree) is None


def test_the_line_names_what_helps_and_what_is_not_copied(tmp_path: Path) -> None:
    repo, tree = tmp_path / "repo", tmp_path / "tree"
    tree.mkdir()
    for name in (".venv", "node_modules"):
        (repo / name).mkdir(parents=True)
    line = advice("Python has no module click", "docker", repo, tree)
    assert f"agent setup --repo {repo}" in line and "--ignored-files" in line
    assert ".venv and node_modules" in line and ".venv/bin/python -m" in line
    (tree / ".venv").mkdir()
    assert ".venv" not in advice("", "local", repo, tree)
