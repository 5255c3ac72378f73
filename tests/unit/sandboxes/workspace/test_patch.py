"""What the copy's patch says, applying it, and going back to a checkpoint."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.errors import WorkspaceError
from sandboxes.workspace.workspace import Workspace

Make = Callable[..., Workspace]
Git = Callable[..., str]
GitRepo = Callable[..., Path]
Tree = Callable[..., dict[str, tuple[str, str]]]


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
