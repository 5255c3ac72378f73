"""A preview says what an edit would change, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.base import Sandbox
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.edits.preview import Change
from tools.registry import Registry, default_tools
from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec

KINDS = {
    "read_file": "read",
    "grep_search": "read",
    "glob": "read",
    "list_directory": "read",
    "edit": "edit",
    "write_file": "edit",
    "apply_patch": "edit",
    "repo_map": "read",
    "find_symbol": "read",
    "find_references": "read",
    "run_shell_command": "command",
    "todo_write": "session",
    "submit": "session",
}


@pytest.fixture
def registry(git_repo: Callable[..., Path], tmp_path: Path):
    workspace = Workspace.create(git_repo({"a.py": "x = 1\n"}), parent=tmp_path / "workspaces")
    with open_sandbox("local", workspace) as opened:
        yield Registry(ToolContext(opened))


def text(sandbox: Sandbox, path: str) -> str:
    return sandbox.read_bytes(path).decode()


def test_every_tool_has_its_kind(registry: Registry) -> None:
    kinds = {spec.name: registry.kind(spec.name) for spec in default_tools()}
    assert KINDS.items() <= kinds.items()
    assert registry.kind("nonsense") is None


def test_an_edit_is_shown_and_not_made(registry: Registry) -> None:
    arguments = {"file_path": "a.py", "old_string": "1", "new_string": "2"}
    assert registry.preview("edit", arguments) == (Change("a.py", "x = 1\n", "x = 2\n"),)
    assert text(registry.context.sandbox, "a.py") == "x = 1\n"
    assert registry.run("edit", arguments).ok
    assert text(registry.context.sandbox, "a.py") == "x = 2\n"


def test_a_new_file_has_no_text_before(registry: Registry) -> None:
    arguments = {"file_path": "new/b.py", "content": "y\n"}
    assert registry.preview("write_file", arguments) == (Change("new/b.py", None, "y\n"),)
    assert not registry.context.sandbox.workspace.path.joinpath("new").exists()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("edit", {"file_path": "a.py", "old_string": "nowhere", "new_string": "2"}),
        ("write_file", {"file_path": "../out.py", "content": ""}),
        ("write_file", {"file_path": "a.py", "content": "x = 1\n"}),
        ("write_file", {}),
        ("run_shell_command", {"command": "touch made"}),
        ("nonsense", {}),
    ],
)
def test_what_changes_nothing_has_no_preview(registry: Registry, name, arguments) -> None:
    assert registry.preview(name, arguments) == ()
    assert not registry.context.sandbox.workspace.path.joinpath("made").exists()


PATCH = """*** Begin Patch
*** Delete File: a.py
*** Add File: b.py
+y = 1
*** End Patch
"""


def test_a_patch_is_shown_and_not_made(registry: Registry) -> None:
    changes = registry.preview("apply_patch", {"patch": PATCH})
    assert changes is not None
    assert set(changes) == {Change("a.py", "x = 1\n", None), Change("b.py", None, "y = 1\n")}
    folder = registry.context.sandbox.workspace.path
    assert (folder / "a.py").read_text() == "x = 1\n"
    assert not (folder / "b.py").exists()
    assert registry.run("apply_patch", {"patch": PATCH}).ok
    assert not (folder / "a.py").exists()


def test_a_preview_is_not_remembered_as_read(registry: Registry) -> None:
    """Else the real edit would be refused: the file is not as it was "seen"."""
    registry.run("read_file", {"file_path": "a.py"})
    arguments = {"file_path": "a.py", "old_string": "1", "new_string": "2"}
    for _ in range(2):
        assert registry.preview("edit", arguments)
    assert registry.run("edit", arguments).ok


def test_a_tool_whose_effect_cannot_be_told_has_no_preview(registry: Registry) -> None:
    def run(context: ToolContext, parameters: Any) -> Observation:
        context.sandbox.shell()
        return Observation("done")

    odd = ToolSpec("odd", "d", Parameters, run, kind="edit")
    assert Registry(registry.context, (odd,)).preview("odd", {}) is None
