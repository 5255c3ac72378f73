"""tsc, eslint, go vet and cargo check after an edit: the programs, where they are installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.loop.diagnostics import AUTO, Diagnostics
from model.messages import ToolCall
from sandboxes.open import open_sandbox
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import ToolContext

HOW = {
    "tsc": "npm install --global typescript",
    "eslint": "npm install --global eslint",
    "go": "Debian: apt-get install golang-go",
    "cargo": "https://rustup.rs, or Debian: apt-get install cargo",
}
TSCONFIG = '{"compilerOptions": {"strict": true, "composite": %s}, "include": ["src"]}'
ESLINT = 'export default [{ rules: { "no-undef": "error", "no-unused-vars": "warn" } }];\n'
CRATE = '[package]\nname = "a"\nversion = "0.1.0"\nedition = "2021"\n'
CASES = {
    "tsc": ({"tsconfig.json": TSCONFIG % "false"}, "src/a.ts", "export const a = 1;\n", "TS2304"),
    "tsc composite": (
        {"tsconfig.json": TSCONFIG % "true"},
        *("src/a.ts", "export const a = 1;\n", "TS2304"),
    ),
    "eslint": ({"eslint.config.mjs": ESLINT}, "src/a.js", "const a = 1;\n", "no-undef"),
    "go": (
        {"go.mod": "module example.org/a\n\ngo 1.19\n"},
        *("a.go", "package a\n\nfunc F() int { return 1 }\n", "thing"),
    ),
    "go in a folder": (
        {"go.mod": "module example.org/a\n\ngo 1.19\n", "pkg/b.go": "package pkg\n"},
        *("pkg/a.go", "package pkg\n\nfunc F() int { return 1 }\n", "thing"),
    ),
    "cargo": (
        {"Cargo.toml": CRATE},
        *("src/lib.rs", "pub fn f() -> u32 { let unused = 2; 1 }\n", "E0425"),
    ),
}
"""Marks of the repository, the file that is edited, its text, and what the error is called."""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_an_edit_breaks_is_told_and_nothing_is_left_behind(
    case: str, git_repo: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = case.split()[0]
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed ({HOW[name]})")
    marks, path, text, error = CASES[case]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # What is told is tested here, not how long a busy machine takes for it.
    monkeypatch.setattr("agent.loop.diagnostics.TIMEOUT_S", 120.0)
    repo = git_repo({path: text, ".gitignore": ".venv\n", **marks})
    # Commands have a home of their own, and rustup keeps its compilers in that of the user.
    homes = {"RUSTUP_HOME": ".rustup", "CARGO_HOME": ".cargo"}
    environment = {key: os.environ.get(key, str(Path.home() / at)) for key, at in homes.items()}
    workspace = Workspace.create(repo)
    with open_sandbox("local", workspace, name="linters", environment=environment) as sandbox:
        registry = Registry(ToolContext(sandbox))
        overseer = Diagnostics(sandbox, AUTO, Stop())

        def edit(old: str, new: str) -> str:
            given = {"file_path": path, "old_string": old, "new_string": new}
            call = ToolCall("edit", given)
            assert overseer.before(call, registry) is None
            return overseer.after(call, registry.run("edit", given)).text

        first = ("pub fn f", "pub  fn f") if name == "cargo" else (" 1", " 2")
        assert "says" not in edit(*first), "nothing is new"
        told = edit(*(("; 1 }", "; thing }") if name == "cargo" else (" 2", " thing")))
        assert f"{name} says since this edit:\nline " in told
        assert error in told and "thing" in told.split("says", 1)[1]
        assert sandbox.workspace.diff().count("diff --git") == 1
