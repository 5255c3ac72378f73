"""A working copy laid out again from its record, in another process's place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.kept_tree import Origin
from sandboxes.workspace.workspace import Workspace

FILES = {
    "a.py": "x = 1\n",
    "bin/run": "#!/bin/sh\n",
    "raw": b"caf\xe9\x00\n",
    "sub/b.py": "y\n",
    ".gitattributes": "*.py filter=evil text eol=crlf\n",
}


@pytest.fixture
def repo(git_repo: Callable[..., Path]) -> Path:
    made = git_repo(FILES)
    (made / "bin/run").chmod(0o755)
    (made / "link").symlink_to("a.py")
    (made / "untracked é\n.txt").write_text("mine\n")
    return made


def tree(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not name.startswith(".git/") and not path.is_dir():
            mode = path.lstat().st_mode & 0o100
            found[name] = path.readlink() if path.is_symlink() else (path.read_bytes(), mode)
    return found


@pytest.mark.parametrize("part", [".", "sub"])
def test_files_and_patch_are_as_they_were(repo: Path, tmp_path: Path, part: str) -> None:
    place = tmp_path / "places"
    with Workspace.create(repo / part, parent=place) as first:
        origin = first.keep_record(tmp_path / "kept.git")
        (first.path / "new").mkdir()
        (first.path / "new/c.txt").write_text("c\n")
        (first.path / ("a.py" if part == "." else "b.py")).unlink()
        checkpoint, patch, files = first.checkpoint(), first.diff(), tree(first.path)
    (repo / "a.py").write_text("changed by the user\n")
    with Workspace.reopen(repo / part, origin, checkpoint, parent=place) as again:
        assert tree(again.path) == files
        assert again.diff() == patch
        assert again.changed_since(origin) == (["a.py"] if part == "." else [])
        again.rollback(origin.baseline)
        assert again.diff() == ""
    assert list(place.iterdir()) == []


def test_history_is_that_of_the_beginning_though_head_moved(repo, tmp_path, git) -> None:
    with Workspace.create(repo, parent=tmp_path / "places") as first:
        origin = first.keep_record(tmp_path / "kept.git")
    git(repo, "commit", "--quiet", "--amend", "--allow-empty", "-m", "other")
    with Workspace.reopen(repo, origin, origin.baseline, parent=tmp_path / "places") as again:
        assert again.changed_since(origin) == ["HEAD"]
        log = git(again.path, "log", "--format=%s").splitlines()
        assert log == ["Files as they were when the session began", "first"]
        assert git(again.path, "status", "--porcelain") == ""


def test_what_a_killed_git_left_does_not_matter(repo, tmp_path) -> None:
    with Workspace.create(repo, parent=tmp_path / "places") as first:
        origin = first.keep_record(tmp_path / "kept.git")
    (origin.record / "refs/heads/work.lock").touch()
    (origin.record / "objects/pack/tmp_pack_x").touch()
    with Workspace.reopen(repo, origin, origin.baseline, parent=tmp_path / "places") as again:
        (again.path / "a.py").write_text("x = 2\n")
        assert "+x = 2" in again.diff()


def test_a_record_that_is_damaged_or_gone_is_one_line(repo, tmp_path) -> None:
    place = tmp_path / "places"
    with Workspace.create(repo, parent=place) as first:
        origin = first.keep_record(tmp_path / "kept.git")
    with pytest.raises(WorkspaceError, match="are incomplete"):
        Workspace.reopen(repo, origin, "0" * 40, parent=place)
    for blob in (origin.record / "objects").glob("[0-9a-f][0-9a-f]"):
        shutil.rmtree(blob)
    with pytest.raises(WorkspaceError):
        Workspace.reopen(repo, origin, origin.baseline, parent=place)
    with pytest.raises(WorkspaceError, match="no git directory"):
        Workspace.reopen(repo, Origin(tmp_path / "no", "", ""), "", parent=place)
    assert list(place.iterdir()) == []
