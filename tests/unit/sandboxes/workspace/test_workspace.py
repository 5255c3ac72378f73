"""The private copy: what is in it, and that the user's files stay as they are."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.workspace import Workspace

Make = Callable[..., Workspace]
Git = Callable[..., str]
GitRepo = Callable[..., Path]
Tree = Callable[..., dict[str, tuple[str, str]]]


def test_the_copy_is_the_tree_as_it_is_on_disk(dirty: Path, make: Make, tree: Tree) -> None:
    copy = tree(make(dirty).path)
    expected = tree(dirty)
    del expected["debug.log"], expected["build/out"]
    assert copy == expected


def test_making_a_copy_and_a_patch_changes_no_byte_of_the_repository(
    dirty: Path, make: Make, tree: Tree
) -> None:
    before = tree(dirty, with_git=True)
    index = (dirty / ".git" / "index").stat()
    workspace = make(dirty)
    (workspace.path / "a.py").write_text("changed\n")
    assert workspace.diff()
    workspace.rollback(workspace.checkpoint())
    workspace.close()
    assert tree(dirty, with_git=True) == before
    assert (dirty / ".git" / "index").stat().st_mtime_ns == index.st_mtime_ns


def test_the_copy_shares_no_file_with_the_repository(dirty: Path, make: Make) -> None:
    own = {p.stat().st_ino for p in dirty.rglob("*") if p.is_file()}
    workspace = make(dirty)
    files = [p for p in workspace.path.rglob("*") if p.is_file()]
    assert files and own.isdisjoint(p.stat().st_ino for p in files)
    assert not (workspace.path / ".git" / "objects" / "info" / "alternates").exists()
    config = (workspace.path / ".git" / "config").read_text()
    assert str(dirty) not in config


def test_the_copy_has_the_history_and_a_clean_status(dirty: Path, make: Make, git: Git) -> None:
    copy = make(dirty).path
    assert git(copy, "status", "--porcelain") == ""
    assert git(copy, "log", "--format=%s").splitlines() == [
        "Files as they were when the session began",
        "first",
    ]


def test_a_clean_repository_gets_no_extra_commit(git_repo: GitRepo, make: Make, git: Git) -> None:
    copy = make(git_repo({"a": "1\n"})).path
    assert git(copy, "log", "--format=%s").splitlines() == ["first"]


def test_no_change_is_an_empty_patch(dirty: Path, make: Make) -> None:
    workspace = make(dirty)
    os.utime(workspace.path / "a.py", (1, 1))
    assert workspace.diff() == ""


def test_an_empty_repository_works(git_repo: GitRepo, make: Make, git: Git) -> None:
    repo = git_repo({}, commit=False)
    workspace = make(repo)
    (workspace.path / "first.py").write_text("1\n")
    workspace.apply_to(repo, workspace.diff())
    assert (repo / "first.py").read_text() == "1\n"
    assert len(git(workspace.path, "log", "--format=%s").splitlines()) == 1


def test_a_worktree_and_a_detached_head_work(
    git_repo: GitRepo, make: Make, git: Git, tmp_path: Path
) -> None:
    repo = git_repo({"a": "1\n"})
    git(repo, "worktree", "add", "--quiet", "--detach", str(tmp_path / "linked"))
    linked = tmp_path / "linked"
    (linked / "a").write_text("2\n")
    workspace = make(linked)
    assert (workspace.path / "a").read_text() == "2\n"
    assert (workspace.path / ".git").is_dir()
    (workspace.path / "a").write_text("3\n")
    workspace.apply_to(linked, workspace.diff())
    assert ((linked / "a").read_text(), (repo / "a").read_text()) == ("3\n", "1\n")


def test_a_folder_in_a_repository_is_copied_alone_and_patched_from_the_top(
    git_repo: GitRepo, make: Make, git: Git
) -> None:
    repo = git_repo({"pkg/a.py": "1\n", "pkg/b.py": "same\n", "other.py": "o\n"})
    workspace = make(repo / "pkg")
    assert sorted(p.name for p in workspace.path.iterdir()) == [".git", "a.py", "b.py"]
    (workspace.path / "a.py").write_text("2\n")
    (workspace.path / "b.py").rename(workspace.path / "c.py")
    patch = workspace.diff()
    assert "a/pkg/a.py" in patch and "rename to pkg/c.py" in patch
    (repo / "p.diff").write_text(patch)
    git(repo, "apply", "--check", "p.diff")
    workspace.apply_to(repo / "pkg", patch)
    assert (repo / "pkg" / "a.py").read_text() == "2\n"
    assert (repo / "pkg" / "c.py").exists() and not (repo / "pkg" / "b.py").exists()


def test_an_ignored_folder_in_a_repository_is_refused(git_repo: GitRepo, make: Make) -> None:
    repo = git_repo({".gitignore": "/scratch/\n"})
    (repo / "scratch").mkdir()
    (repo / "scratch" / "a.py").write_text("1\n")
    with pytest.raises(WorkspaceError, match="ignored by the repository"):
        make(repo / "scratch")


def test_submodules_and_repositories_inside_are_plain_files(
    git_repo: GitRepo, make: Make, git: Git
) -> None:
    inner = git_repo({"lib.py": "1\n"}, name="inner")
    repo = git_repo({"a.py": "1\n"}, name="outer")
    git(repo, "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", str(inner), "lib")
    git(repo, "commit", "--quiet", "-m", "submodule")
    shutil.copytree(inner, repo / "loose")
    workspace = make(repo)
    assert (workspace.path / "lib" / "lib.py").read_text() == "1\n"
    assert (workspace.path / "loose" / "lib.py").read_text() == "1\n"
    assert not (workspace.path / "lib" / ".git").exists()
    assert git(workspace.path, "status", "--porcelain") == ""
    (workspace.path / "lib" / "lib.py").write_text("2\n")
    workspace.apply_to(repo, workspace.diff())
    assert (repo / "lib" / "lib.py").read_text() == "2\n"


def test_the_users_own_ignore_rules_count(
    git_repo: GitRepo, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / ".config" / "git").mkdir(parents=True)
    (home / ".config" / "git" / "ignore").write_text(".env\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    repo = git_repo({"a": "1\n"})
    (repo / ".env").write_text("TOKEN=1\n")
    (repo / "notes.txt").write_text("private\n")
    (repo / ".git" / "info" / "exclude").write_text("notes.txt\n")
    workspace = make(repo)
    assert sorted(p.name for p in workspace.path.iterdir()) == [".git", "a"]
    (workspace.path / ".env").write_text("made in the sandbox\n")
    assert workspace.diff() == ""


def test_our_own_folders_inside_the_repository_are_not_copied(
    git_repo: GitRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = git_repo({"a": "1\n"})
    monkeypatch.setenv("XDG_STATE_HOME", str(repo / "state"))
    session = repo / "state" / "tenuto" / "sessions" / "1" / "session.json"
    session.parent.mkdir(parents=True)
    session.write_text("private")
    (repo / "state" / "other").write_text("2\n")
    for parent in (None, repo / "elsewhere"):
        with Workspace.create(repo, parent=parent) as workspace:
            files = {str(p.relative_to(workspace.path)) for p in workspace.path.rglob("*")}
        assert {name for name in files if not name.startswith(".git")} == {
            "a",
            "state",
            "state/other",
        }


def test_large_files(git_repo: GitRepo, make: Make) -> None:
    size = 100 * 1024**2
    repo = git_repo({"a.py": "1\n", "big.bin": b""})
    with (repo / "big.bin").open("r+b") as file:
        file.truncate(size)
    with (repo / "data.bin").open("wb") as file:
        file.truncate(size)
    workspace = make(repo)
    assert workspace.left_out == ("data.bin",)
    assert (workspace.path / "big.bin").stat().st_size == size
    assert workspace.diff() == ""
    with (workspace.path / "core").open("wb") as file:
        file.truncate(size)
    (workspace.path / "a.py").write_text("2\n")
    patch = workspace.diff()
    assert "a.py" in patch and "core" not in patch
    assert workspace.left_out == ("data.bin", "core")


@pytest.mark.parametrize("kind", ["missing", "file", "plain", "bare"])
def test_not_a_repository_is_one_clear_line(
    kind: str, tmp_path: Path, git: Git, places: Path
) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("x")
    elif kind != "missing":
        target.mkdir()
    if kind == "bare":
        git(target, "init", "--quiet", "--bare")
    with pytest.raises(WorkspaceError) as caught:
        Workspace.create(target, parent=places)
    assert str(target) in str(caught.value) and "\n" not in str(caught.value)
    assert list(places.glob("*")) == []


def test_a_damaged_history_costs_only_the_history(git_repo: GitRepo, make: Make, git: Git) -> None:
    repo = git_repo({"a.py": "1\n"})
    git(repo, "commit", "--quiet", "--allow-empty", "-m", "second")
    blob = git(repo, "rev-parse", "HEAD:a.py").strip()
    path = repo / ".git" / "objects" / blob[:2] / blob[2:]
    path.chmod(0o644)
    path.unlink()
    workspace = make(repo)
    (workspace.path / "a.py").write_text("2\n")
    workspace.apply_to(repo, workspace.diff())
    assert (repo / "a.py").read_text() == "2\n"


def test_a_full_disk_is_one_line_and_leaves_nothing(
    dirty: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(WorkspaceError, match="no disk space left"):
        Workspace.create(dirty, parent=places)
    assert list(places.glob("*")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_really_full_disk(git_repo: GitRepo, tmp_path: Path) -> None:
    repo = git_repo({"big": os.urandom(3 << 20)})
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this root may not mount")
    try:
        with pytest.raises(WorkspaceError, match="no disk space left"):
            Workspace.create(repo, parent=place)
        assert list(place.glob("*")) == []
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_without_git_it_says_so(dirty: Path, tmp_path: Path, places: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sandboxes.workspace.workspace import Workspace\n"
        "from sandboxes.errors import WorkspaceError\n"
        "try:\n    Workspace.create(Path(sys.argv[1]), parent=Path(sys.argv[2]))\n"
        "except WorkspaceError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(dirty), str(places)],
        env={"PATH": str(tmp_path), "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "git is not installed; install it (Debian: apt-get install git)\n"


def test_the_place_is_private_and_closing_twice_is_fine(dirty: Path, places: Path) -> None:
    with Workspace.create(dirty, parent=places) as workspace:
        assert stat.S_IMODE(places.stat().st_mode) == 0o700
        locked = workspace.path / "locked"
        locked.mkdir()
        (locked / "f").write_text("x")
        locked.chmod(0)
    workspace.close()
    assert list(places.glob("*")) == []


def test_an_unreadable_file_is_named(dirty: Path, make: Make) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    (dirty / "new.py").chmod(0)
    assert make(dirty).left_out == ("new.py",)
