"""Fixtures of the sandbox unit tests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxes.workspace.workspace import Workspace


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Where this test's workspaces lie."""
    return tmp_path / "places"


@pytest.fixture
def make(places: Path) -> Iterator[Callable[..., Workspace]]:
    """``make(repo)`` makes a workspace that is closed at the end."""
    made: list[Workspace] = []

    def create(repo: Path, **options: int) -> Workspace:
        made.append(Workspace.create(repo, parent=places, **options))
        return made[-1]

    yield create
    for workspace in made:
        workspace.close()
    assert list(places.glob("*")) == []


def tree_of(folder: Path, *, with_git: bool = False) -> dict[str, tuple[str, str]]:
    """Every file and link below ``folder``: path -> (mode, hash or target)."""
    found: dict[str, tuple[str, str]] = {}
    for top, folders, files in os.walk(folder):
        if not with_git and ".git" in folders:
            folders.remove(".git")
        for name in files + [n for n in folders if (Path(top) / n).is_symlink()]:
            path = Path(top, name)
            key = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
            if path.is_symlink():
                found[key] = ("link", str(path.readlink()))
            else:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[key] = (f"{path.stat().st_mode & 0o111:o}", digest)
    return found


@pytest.fixture
def tree() -> Callable[..., dict[str, tuple[str, str]]]:
    """``tree(folder, with_git=False)``: what is in a folder."""
    return tree_of


@pytest.fixture
def dirty(git_repo: Callable[..., Path], git: Callable[..., str]) -> Path:
    """A repository with changes that are staged, not staged, untracked, ignored, deleted."""
    repo = git_repo(
        {
            "a.py": "x = 1\n",
            "b.py": "y = 1\n",
            "gone.py": "z = 1\n",
            "sub dir/ü.txt": "text\n",
            ".gitignore": "*.log\n/build/\n",
        },
        name="my répo ☃",
    )
    (repo / "a.py").write_text("x = 2\n")
    (repo / "b.py").write_text("y = 2\n")
    git(repo, "add", "b.py")
    (repo / "b.py").write_text("y = 3\n")
    (repo / "gone.py").unlink()
    (repo / "new.py").write_text("n = 1\n")
    (repo / "debug.log").write_text("secret\n")
    (repo / "build").mkdir()
    (repo / "build" / "out").write_text("built\n")
    return repo
