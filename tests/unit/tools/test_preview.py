"""A preview says what an edit would change, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.base import Sandbox
from sandboxes.open import open_sandbox
from sandboxes.workspace import Workspace
from tools.preview import Change
from tools.registry import Registry, default_tools
from tools.types import ToolContext

KINDS = {
    "read_file": "read",
    "grep_search": "read",
    "glob": "read",
    "list_directory": "read",
    "edit": "edit",
    "write_file": "edit",
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
