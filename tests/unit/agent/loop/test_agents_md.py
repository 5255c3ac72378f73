"""AGENTS.md: the top's in the first prompt, a folder's with the first call that touches it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.loop.agents_md import MAX_CHARACTERS, RepositoryNotes, first_notes
from agent.types import Step
from model.messages import Message, ToolCall
from model.session import Usage
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.types import Observation

SEEN = Observation("text")


def test_a_repository_without_notes_adds_nothing(git_repo, tmp_path) -> None:
    assert first_notes(git_repo({"a.py": ""})) == ""
    assert first_notes(tmp_path) == ""


def test_the_notes_from_the_top_down(git_repo) -> None:
    repo = git_repo({"AGENTS.md": "top <|im_end|>\n", "a/CLAUDE.md": "inner", "a/b/x": ""})
    assert first_notes(repo).endswith("\n\n[AGENTS.md]\ntop <|im_end|>")
    assert first_notes(repo / "a" / "b").endswith(
        "[AGENTS.md]\ntop <|im_end|>\n\n[a/CLAUDE.md]\ninner"
    )


def test_agents_md_comes_before_the_other_names(git_repo) -> None:
    repo = git_repo({"AGENTS.md": "", "CLAUDE.md": "claude", "QWEN.md": "qwen"})
    assert "qwen" in first_notes(repo)
    (repo / "AGENTS.md").write_text("agents")
    assert first_notes(repo).endswith("[AGENTS.md]\nagents")


def test_links_are_followed_inside_the_repository_only(git_repo, tmp_path) -> None:
    (tmp_path / "secret").write_text("secret")
    repo = git_repo({"docs/agents.md": "linked"})
    (repo / "AGENTS.md").symlink_to("docs/agents.md")
    assert first_notes(repo).endswith("linked")
    (repo / "AGENTS.md").unlink()
    (repo / "AGENTS.md").symlink_to(tmp_path / "secret")
    assert first_notes(repo) == ""
    (repo / "AGENTS.md").unlink()
    (repo / "AGENTS.md").symlink_to("AGENTS.md")
    (repo / "QWEN.md").mkdir()
    assert first_notes(repo) == ""


@pytest.mark.parametrize("target", [".git/config", ".git/../.git/config", "sub/.git/config"])
def test_notes_that_lead_into_gits_own_folder_are_none(target: str, git_repo) -> None:
    repo = git_repo({"sub/x": ""})
    (repo / "sub" / ".git").mkdir()
    (repo / "sub" / ".git" / "config").write_text("token = s3cret\n")
    (repo / "AGENTS.md").symlink_to(target)
    assert first_notes(repo) == ""


def test_large_and_odd_files_are_cut_and_replaced(git_repo) -> None:
    notes = first_notes(git_repo({"AGENTS.md": b"\xef\xbb\xbf\xff" + b"x" * 1_000_000}))
    assert "\n\ufffdx" in notes
    assert notes.endswith("\n[cut here: read the file for the rest]")
    assert len(notes) < MAX_CHARACTERS + 500


@pytest.fixture
def notes(git_repo: Callable[..., Path], tmp_path: Path) -> Iterator[RepositoryNotes]:
    files = {
        "AGENTS.md": "top",
        "a/AGENTS.md": "of a",
        "a/b/QWEN.md": "of b",
        "a/b/c.py": "",
        "d/e.py": "",
    }
    workspace = Workspace.create(git_repo(files), parent=tmp_path / "workspaces")
    with open_sandbox("local", workspace) as opened:
        yield RepositoryNotes(opened, [])


def call(path: str, name: str = "file_path") -> ToolCall:
    return ToolCall("read_file", {name: path})


HEAD_A = "[a/AGENTS.md: what the repository says about work in a/]"
HEAD_B = "[a/b/QWEN.md: what the repository says about work in a/b/]"


@pytest.mark.parametrize("path", ["a/b/c.py", "./a/../a/b/c.py", "a/b", "a/b/new/f.py"])
def test_the_first_call_under_a_folder_tells_its_notes(path: str, notes: RepositoryNotes) -> None:
    seen = notes.after(call(path), SEEN)
    assert seen.text == f"text\n\n{HEAD_A}\nof a\n\n{HEAD_B}\nof b"


def test_what_was_told_is_not_told_again(notes: RepositoryNotes) -> None:
    first = notes.after(call("a/x"), SEEN)
    assert first.text == f"text\n\n{HEAD_A}\nof a"
    message = Message("assistant")
    notes.steps = [Step(0, message, (first,), Usage())]
    assert notes.after(call("a/b", name="directory"), SEEN).text == f"text\n\n{HEAD_B}\nof b"
    assert notes.after(call("a/y"), SEEN) == SEEN


@pytest.mark.parametrize("path", ["d/e.py", "AGENTS.md", ".", "", "../a/x", "/etc/passwd", "a\0"])
def test_other_calls_are_left_as_they_are(path: str, notes: RepositoryNotes) -> None:
    assert notes.after(call(path), SEEN) == SEEN


def test_a_call_that_failed_tells_nothing(notes: RepositoryNotes) -> None:
    failed = Observation("no", ok=False)
    assert notes.after(call("a/b/c.py"), failed) == failed
