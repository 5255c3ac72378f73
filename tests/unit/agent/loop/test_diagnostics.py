"""The repository's linters after an edit: real ruff and mypy, in a real sandbox."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.loop.diagnostics import AUTO, OFF, Diagnostics, new_findings
from agent.loop.linters import LINTERS, LintFinding
from model.messages import ToolCall
from sandboxes.open import open_sandbox
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import Observation, ToolContext

BEFORE = "import os\n\n\ndef add(a: int, b: int) -> int:\n    return a + b\n"


@pytest.fixture
def edits(
    git_repo: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Observation]]:
    """``edits(wanted, marks, old, new)``: what an edit of ``app/a.py`` in a repository tells."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    opened = []

    def edit(wanted: str, marks: dict[str, str], old: str, new: str) -> Observation:
        files = {"app/a.py": BEFORE, ".gitignore": ".venv\n", **marks}
        repo = git_repo(files, name=f"repo-{len(opened)}")
        sandbox = open_sandbox("local", Workspace.create(repo), name=f"box{len(opened)}")
        opened.append(sandbox)
        programs = sandbox.resolve(".venv/bin")
        programs.mkdir(parents=True)
        for name in ("ruff", "mypy"):
            found = shutil.which(name, path=str(Path(sys.executable).parent))
            assert found is not None
            (programs / name).symlink_to(found)
        registry = Registry(ToolContext(sandbox))
        overseer = Diagnostics(sandbox, wanted, Stop())
        arguments = {"file_path": "app/a.py", "old_string": old, "new_string": new}
        call = ToolCall("edit", arguments)
        assert overseer.before(call, registry) is None
        seen = overseer.after(call, registry.run(call.name, call.arguments))
        assert sandbox.workspace.diff().count("diff --git") == 1, "a linter left files behind"
        return seen

    yield edit
    for sandbox in opened:
        sandbox.close()


RUFF = {"ruff.toml": 'line-length = 60\n[lint]\nselect = ["F", "E501"]\n'}
MYPY = {"pyproject.toml": "[tool.mypy]\nstrict = true\n"}
PLAIN = "Edited app/a.py: 1 replacement."


def test_only_what_is_new_is_told(edits: Callable[..., Observation]) -> None:
    # F401 of the unused import was there before.
    seen = edits(AUTO, RUFF, "    return a + b", "    return a + c")
    assert seen.text == f"{PLAIN}\n\nruff says since this edit:\nline 5: F821 Undefined name `c`"
    assert edits(AUTO, RUFF, "a + b", "b + a").text == PLAIN
    seen = edits(AUTO, MYPY, "return a + b", "return str(a)")
    assert seen.text.startswith(f"{PLAIN}\n\nmypy says since this edit:\nline 5: error: Incompat")


def test_a_repository_that_names_none_and_off_tell_nothing(
    edits: Callable[..., Observation],
) -> None:
    assert edits(AUTO, {}, "a + b", "a + c").text == PLAIN
    assert edits(OFF, RUFF, "a + b", "a + c").text == PLAIN
    assert "F821" in edits("ruff", {}, "a + b", "a + c").text
    assert edits("eslint, go", {}, "a + b", "a + c").text == PLAIN


@pytest.mark.parametrize(
    ("name", "output", "expected"),
    [
        (
            "tsc",
            "src/a.ts(3,7): error TS2322: Type 'string' is no number.\n",
            LintFinding("src/a.ts", 3, "error TS2322: Type 'string' is no number."),
        ),
        (
            "go",
            "# example.com/app\n./cmd/main.go:9:2: fmt.Printf format %d has arg s of wrong type\n",
            LintFinding("cmd/main.go", 9, "fmt.Printf format %d has arg s of wrong type"),
        ),
        (
            "cargo",
            "src/main.rs:2:5: error[E0425]: cannot find value `y` in this scope\nerror: aborting\n",
            LintFinding("src/main.rs", 2, "error[E0425]: cannot find value `y` in this scope"),
        ),
        (
            "eslint",
            '[{"filePath":"/workspace/a.js","messages":[{"ruleId":"no-undef","line":4,'
            '"message":"\'x\' is not defined."}]}]',
            LintFinding("/workspace/a.js", 4, "no-undef 'x' is not defined."),
        ),
    ],
)
def test_documented_formats_are_read(name: str, output: str, expected: LintFinding) -> None:
    assert LINTERS[name].findings(output) == [expected]


FINDINGS = st.lists(
    st.builds(
        LintFinding, st.sampled_from("ab"), st.integers(1, 9), st.sampled_from(["x", "y line 3"])
    )
)


@given(FINDINGS, FINDINGS, st.integers(1, 50))
def test_moved_findings_are_not_new(
    old: list[LintFinding], new: list[LintFinding], by: int
) -> None:
    moved = [LintFinding(one.path, one.line + by, one.text) for one in old]
    assert new_findings(old, moved) == []
    assert new_findings([], new) == new
    assert len(new_findings(old, [*moved, *new])) == len(new)


@given(st.sampled_from(sorted(LINTERS)), st.text())
def test_any_output_can_be_read(name: str, output: str) -> None:
    assert all(one.line >= 0 for one in LINTERS[name].findings(output))
