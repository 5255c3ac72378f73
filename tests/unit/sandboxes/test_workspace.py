"""The private copy: what is in it, what its patch says, and that the user's files stay."""

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
from sandboxes.workspace import Workspace

Make = Callable[..., Workspace]
Git = Callable[..., str]
GitRepo = Callable[..., Path]
Tree = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def dirty(git_repo: GitRepo, git: Git) -> Path:
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


def edit_everything(copy: Path) -> None:
    """Every kind of change that a patch can hold."""
    (copy / "new.py").write_text("n = 2\n")
    (copy / "b.py").unlink()
    (copy / "moved").mkdir()
    (copy / "a.py").rename(copy / "moved" / "a.py")
    (copy / "sub dir" / "ü.txt").chmod(0o755)
    (copy / "bin").write_bytes(bytes(range(256)) * 9)
    (copy / "no newline").write_bytes(b"one\ntwo")
    (copy / "crlf.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\nthree")
    (copy / "latin1.txt").write_bytes(b"caf\xe9\n" * 3)
    (copy / 'line\nbreak\t"quote" ☃').write_text("odd name\n")
    (copy / "link").symlink_to("moved/a.py")
    (copy / "empty").write_bytes(b"")


def test_the_patch_makes_the_users_tree_equal_to_the_copy(
    dirty: Path, make: Make, git: Git, tree: Tree
) -> None:
    workspace = make(dirty)
    edit_everything(workspace.path)
    patch = workspace.diff()
    patch.encode()  # valid UTF-8, so it can be printed and sent as JSON
    ignored = {"debug.log": tree(dirty)["debug.log"], "build/out": tree(dirty)["build/out"]}
    twin = dirty.with_name("twin")
    shutil.copytree(dirty, twin, symlinks=True)

    workspace.apply_to(dirty, patch)
    assert tree(dirty) == tree(workspace.path) | ignored

    (twin.parent / "p.diff").write_bytes(patch.encode())
    git(twin, "apply", "../p.diff")  # and by hand, as the README says
    assert tree(twin) == tree(dirty)


def test_applying_leaves_the_index_alone(dirty: Path, make: Make, git: Git) -> None:
    workspace = make(dirty)
    (workspace.path / "a.py").write_text("x = 9\n")
    index = (dirty / ".git" / "index").read_bytes()
    workspace.apply_to(dirty, workspace.diff())
    assert (dirty / ".git" / "index").read_bytes() == index
    assert git(dirty, "show", ":b.py") == "y = 2\n"


CHANGES = [
    (b"a\r\nb\r\n", b"a\r\nc\r\n"),
    (b"\xef\xbb\xbfa\n", b"\xef\xbb\xbfb\n"),
    (b"a", b"a\nb"),
    (b"a\n", b"a"),
    (b"caf\xe9\n", b"caf\xe8\n"),
    (b"\0\1", b"\0\2"),
    (b"", b"x"),
    (b"x", b""),
    (b"a\rb\r", b"a\rc\r"),
    (b"$Id$ \n", b"$Id: 1 $ \n"),
]


@pytest.mark.parametrize(
    "attributes", ["", "* text=auto eol=crlf\n", "* filter=lfs -diff\n", "* text ident\n"]
)
def test_changed_files_come_back_byte_for_byte(
    attributes: str, git_repo: GitRepo, make: Make
) -> None:
    repo = git_repo({".gitattributes": attributes} | {f"f{i}": b for i, (b, _) in pairs()})
    workspace = make(repo)
    for i, (before, after) in pairs():
        assert (workspace.path / f"f{i}").read_bytes() == before
        (workspace.path / f"f{i}").write_bytes(after)
    workspace.apply_to(repo, workspace.diff())
    assert [(repo / f"f{i}").read_bytes() for i, _ in pairs()] == [after for _, after in CHANGES]


def pairs() -> list[tuple[int, tuple[bytes, bytes]]]:
    return list(enumerate(CHANGES))


def test_a_patch_that_does_not_apply_changes_nothing(dirty: Path, make: Make, tree: Tree) -> None:
    workspace = make(dirty)
    (workspace.path / "a.py").write_text("x = 5\n")
    (workspace.path / "new.py").write_text("n = 5\n")
    patch = workspace.diff()
    (dirty / "new.py").write_text("the user went on\n")
    before = tree(dirty, with_git=True)
    with pytest.raises(WorkspaceError, match="does not apply") as caught:
        workspace.apply_to(dirty, patch)
    assert "\n" not in str(caught.value)
    assert tree(dirty, with_git=True) == before


@pytest.mark.parametrize("path", ["../out", ".git/hooks/pre-commit", "sub/../../out"])
def test_a_patch_cannot_reach_outside_or_into_git(path: str, dirty: Path, make: Make) -> None:
    patch = (
        f"diff --git a/{path} b/{path}\nnew file mode 100755\n--- /dev/null\n"
        f"+++ b/{path}\n@@ -0,0 +1 @@\n+evil\n"
    )
    with pytest.raises(WorkspaceError):
        make(dirty).apply_to(dirty, patch)
    assert not (dirty / path).exists()


def test_a_patch_cannot_write_through_a_link(dirty: Path, make: Make, tmp_path: Path) -> None:
    (dirty / "out").symlink_to(tmp_path)
    patch = (
        "diff --git a/out/f b/out/f\nnew file mode 100644\n--- /dev/null\n"
        "+++ b/out/f\n@@ -0,0 +1 @@\n+evil\n"
    )
    with pytest.raises(WorkspaceError):
        make(dirty).apply_to(dirty, patch)
    assert not (tmp_path / "f").exists()


def test_rollback_brings_back_each_checkpoint(dirty: Path, make: Make, tree: Tree) -> None:
    workspace = make(dirty)
    first, at_first = workspace.checkpoint(), tree(workspace.path)
    edit_everything(workspace.path)
    second, at_second = workspace.checkpoint(), tree(workspace.path)
    shutil.rmtree(workspace.path / "moved")
    (workspace.path / "moved").write_text("a file where a folder was\n")
    (workspace.path / "new.py").unlink()
    (workspace.path / "new.py").mkdir()
    (workspace.path / "new.py" / "x").write_text("a folder where a file was\n")
    workspace.rollback(second)
    assert tree(workspace.path) == at_second
    workspace.rollback(first)
    assert tree(workspace.path) == at_first
    assert workspace.diff() == ""
    workspace.rollback(second)
    assert tree(workspace.path) == at_second


def test_rollback_keeps_ignored_files_and_follows_no_link(
    dirty: Path, make: Make, tmp_path: Path
) -> None:
    workspace = make(dirty)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "ü.txt").write_text("mine\n")
    checkpoint = workspace.checkpoint()
    (workspace.path / "x.log").write_text("log\n")
    shutil.rmtree(workspace.path / "sub dir")
    (workspace.path / "sub dir").symlink_to(outside)
    workspace.rollback(checkpoint)
    assert (workspace.path / "x.log").exists()
    assert (outside / "ü.txt").read_text() == "mine\n"
    assert (workspace.path / "sub dir" / "ü.txt").read_text() == "text\n"


def test_rollback_when_the_ignore_rules_changed(dirty: Path, make: Make, tree: Tree) -> None:
    workspace = make(dirty)
    checkpoint, before = workspace.checkpoint(), tree(workspace.path)
    (workspace.path / ".gitignore").write_text("*\n")
    (workspace.path / "hidden.txt").write_text("seen again after the rollback\n")
    workspace.rollback(checkpoint)
    assert tree(workspace.path) == before


def test_rollback_to_nowhere_is_an_error(dirty: Path, make: Make) -> None:
    with pytest.raises(WorkspaceError, match="no checkpoint"):
        make(dirty).rollback("0" * 40)


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


def plant(where: Path, flag: Path) -> None:
    """Put every way we know to make git run a program into the repository at ``where``."""
    evil = where / "evil.sh"
    evil.write_text(f"#!/bin/sh\ntouch '{flag}'\ncat\n")
    evil.chmod(0o755)
    git_dir = where / ".git"
    hooks = git_dir / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in (
        "pre-commit",
        "post-checkout",
        "post-index-change",
        "reference-transaction",
        "post-commit",
        "prepare-commit-msg",
        "pre-auto-gc",
        "applypatch-msg",
    ):
        shutil.copy(evil, hooks / name)
    with (git_dir / "config").open("a") as config:
        config.write(
            f"[core]\n\tfsmonitor = {evil}\n\thooksPath = {hooks}\n\tpager = {evil}\n"
            f"\tsshCommand = {evil}\n\teditor = {evil}\n\tuntrackedCache = true\n"
            f"\talternateRefsCommand = {evil}\n\tattributesFile = {where}/attrs\n"
            f'[diff]\n\texternal = {evil}\n[diff "evil"]\n\tcommand = {evil}\n'
            f'\ttextconv = {evil}\n[filter "evil"]\n\tclean = {evil}\n\tsmudge = {evil}\n'
            f'\tprocess = {evil}\n\trequired = true\n[merge "evil"]\n\tdriver = {evil}\n'
            f"[gpg]\n\tprogram = {evil}\n[commit]\n\tgpgSign = true\n"
            f"[uploadpack]\n\tpackObjectsHook = {evil}\n[credential]\n\thelper = !{evil}\n"
            f"[interactive]\n\tdiffFilter = {evil}\n"
        )
    (where / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    (where / "attrs").write_text("* filter=evil diff=evil\n")
    (git_dir / "info").mkdir(exist_ok=True)
    (git_dir / "info" / "attributes").write_text("* filter=evil diff=evil\n")


def test_a_hostile_repository_runs_nothing_on_the_host(
    git_repo: GitRepo, make: Make, tmp_path: Path
) -> None:
    flag = tmp_path / "owned"
    repo = git_repo({"a.py": "1\n"})
    plant(repo, flag)
    workspace = make(repo)
    (workspace.path / "a.py").write_text("2\n")
    workspace.apply_to(repo, workspace.diff())
    assert not flag.exists()
    assert (repo / "a.py").read_text() == "2\n"


def test_what_a_sandboxed_process_puts_into_git_runs_nothing_on_the_host(
    dirty: Path, make: Make, tmp_path: Path, git: Git
) -> None:
    flag = tmp_path / "owned"
    workspace = make(dirty)
    checkpoint = workspace.checkpoint()
    plant(workspace.path, flag)
    inner = workspace.path / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    (inner / "f").write_text("1\n")
    git(inner, "add", "f")
    git(inner, "commit", "--quiet", "-m", "x")
    plant(inner, flag)
    (workspace.path / ".gitmodules").write_text(
        '[submodule "inner"]\n\tpath = inner\n\turl = ext::sh -c touch% ' + str(flag) + "\n"
    )
    patch = workspace.diff()
    assert "inner/f" in patch and ".git/" not in patch
    workspace.checkpoint()
    workspace.rollback(checkpoint)
    assert workspace.diff() == ""
    assert not flag.exists()
    plant(workspace.path, flag)
    subprocess.run(["git", "status"], cwd=workspace.path, capture_output=True, check=False)
    assert flag.exists()  # the bait works: git left to itself takes it


def test_the_users_git_environment_has_no_say(
    dirty: Path, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flag = tmp_path / "owned"
    evil = tmp_path / "evil.sh"
    evil.write_text(f"#!/bin/sh\ntouch '{flag}'\n")
    evil.chmod(0o755)
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(evil))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.fsmonitor")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(evil))
    workspace = make(dirty)
    (workspace.path / "a.py").write_text("9\n")
    assert "+9" in workspace.diff()
    assert not flag.exists()


def test_special_files_and_a_deep_tree_do_not_stop_us(dirty: Path, make: Make) -> None:
    workspace = make(dirty)
    os.mkfifo(workspace.path / "pipe")
    (workspace.path / "a.py").unlink()
    os.mkfifo(workspace.path / "a.py")
    folder = os.open(workspace.path, os.O_RDONLY)
    name = "deep" * 50
    for _ in range(30):  # longer than a path may be
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    assert "deleted file" in workspace.diff()
    workspace.close()
    assert not workspace.path.exists()


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


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_disk_that_fills_up_while_a_patch_is_applied(
    git_repo: GitRepo, make: Make, tmp_path: Path, tree: Tree
) -> None:
    workspace = make(git_repo({"a.py": "1\n", "sub/gone.py": "2\n", "z.py": "3\n"}))
    (workspace.path / "a.py").write_text("11\n")
    shutil.rmtree(workspace.path / "sub")
    (workspace.path / "new").mkdir()
    (workspace.path / "new" / "big").write_bytes(os.urandom(2 << 20))
    (workspace.path / "z.py").rename(workspace.path / "moved.py")
    patch = workspace.diff()
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this root may not mount")
    try:
        shutil.copytree(workspace.repo, small / "repo")
        before = tree(small / "repo", with_git=True)
        with pytest.raises(WorkspaceError, match="no disk space left to apply"):
            workspace.apply_to(small / "repo", patch)
        assert tree(small / "repo", with_git=True) == before
        assert not (small / "repo" / "new").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_patch_applied_by_root_leaves_no_file_of_roots(git_repo: GitRepo, make: Make) -> None:
    repo = git_repo({"a.py": "1\n"})
    for path in (repo, *repo.rglob("*")):
        os.chown(path, 4321, 4322)
    workspace = make(repo)
    (workspace.path / "a.py").write_text("2\n")
    (workspace.path / "new" / "er").mkdir(parents=True)
    (workspace.path / "new" / "er" / "f").write_text("3\n")
    workspace.apply_to(repo, workspace.diff())
    for path in (repo / "a.py", repo / "new", repo / "new" / "er", repo / "new" / "er" / "f"):
        assert (path.stat().st_uid, path.stat().st_gid) == (4321, 4322)


def test_without_git_it_says_so(dirty: Path, tmp_path: Path, places: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from sandboxes.workspace import Workspace\nfrom sandboxes.errors import WorkspaceError\n"
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
