"""What the narrow model cannot do is said before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.client import Client
from agent.errors import ConfigError
from agent.loading import load_model
from agent.run.scope import HELP, named_module, outside
from agent.run.solve import solve
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from agent.types import CheckRun, Task
from evals.suites.repair import EXAMPLES

RED = CheckRun(1, "FAILED test_sums.py::test_total - assert 1 == 2\n1 failed in 0.01s", 0.1)
ISSUE = "`total` in `sums.py` is wrong: `total(1)` returns 1, expected 2."
MODULE = "def total(x):\n    return x\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "sums.py").write_text(MODULE)
    (tmp_path / "test_sums.py").write_text("from sums import total\n")
    (tmp_path / "app.js").write_text("let x = 1\n")
    return tmp_path


def test_a_repair_is_inside(tree) -> None:
    assert outside(ISSUE, tree, RED) is None
    assert outside(ISSUE, tree, None) is None
    assert outside('  File "/workspace/sums.py", line 2, in total', tree, RED) is None
    assert outside("FAILED test_sums.py::test_total", tree, RED) is None
    assert outside("In `sums.py` ist `total(1)` falsch, es muss 2 sein.", tree, RED) is None
    assert outside("add subtracts, see sums.py", tree, RED) is None
    assert outside("The total is wrong", tree, RED) is None


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in EXAMPLES.glob("*/ISSUE.md")))
def test_the_examples_are_inside(folder) -> None:
    text = (EXAMPLES / folder / "ISSUE.md").read_text()
    assert outside(text, EXAMPLES / folder, RED) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Add a function mean to sums.py", "new code"),
        ("Please implement median in sums.py", "new code"),
        ("Feature request: sums.py should take lists", "new code"),
        ("Fix the button in app.js", "names no Python module"),
        ("../../etc/passwd.py is wrong", "names no Python module"),
        ("missing.py is wrong", "names no Python module"),
    ],
)
def test_other_work_is_outside(tree, text, why) -> None:
    assert why in (outside(text, tree, RED) or "")


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("", "sums.py is empty"),
        ("\n\n", "sums.py is empty"),
        ("x = 1\n" * 5000, "sums.py is too large (30,000 bytes)"),
        ("x = 1\n" * 200, "sums.py is too large (200 lines)"),
        ("def total(x:\n    return x\n", "sums.py is no valid Python"),
        ("x = '\0'\n", "sums.py is no valid Python"),
    ],
)
def test_modules_that_are_outside(tree, module, why) -> None:
    (tree / "sums.py").write_text(module)
    assert (outside(ISSUE, tree, RED) or "").startswith(why)


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (CheckRun(0, "1 passed", 0.1), "passes already"),
        (CheckRun(None, "", 60.0), "does not end"),
        (
            CheckRun(1, "ModuleNotFoundError: No module named 'numpy'", 0.1),
            "cannot run: Python has no module numpy",
        ),
        (CheckRun(127, "bash: pytest: command not found", 0.1), "there is no program pytest"),
    ],
)
def test_checks_that_are_outside(tree, run, why) -> None:
    assert why in (outside(ISSUE, tree, run) or "")


def test_a_link_out_of_the_repository_is_not_read(tree, tmp_path_factory) -> None:
    target = tmp_path_factory.mktemp("other") / "secret.py"
    target.write_text(MODULE)
    (tree / "link.py").symlink_to(target)
    found = named_module("`link.py` is wrong", tree)
    assert found is None or "too large" in (outside("`link.py` is wrong", tree, RED) or "")


@pytest.fixture
def store(tmp_path, monkeypatch) -> SessionStore:
    for name in ("state", "config", "cache"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    return SessionStore()


@pytest.mark.parametrize(("check", "why"), [("true", "passes already"), ("sleep 9", "not end")])
def test_solve_ends_at_once_with_a_line_that_helps(git_repo, store, check, why) -> None:
    repo = git_repo({"sums.py": MODULE}, name="sums")
    settings = Settings(sandbox="local", check_timeout=1)
    with pytest.raises(ConfigError, match=why) as caught:
        solve(Task(ISSUE, repo, check), settings, load_model("embedded"), Client(), store=store)
    assert str(caught.value).endswith(HELP)
    assert "--model" in HELP and "agent setup" in HELP
    assert "\n" not in str(caught.value)
    (saved,) = store.sessions()
    assert not saved.info.steps


def test_a_repository_without_python_is_outside(tmp_path: Path) -> None:
    (tmp_path / "app.js").write_text("let x = 1\n")
    assert "has no Python module" in (outside("The total is wrong", tmp_path, RED) or "")
