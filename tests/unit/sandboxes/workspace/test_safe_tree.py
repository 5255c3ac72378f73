"""Host-side file access: inside the workspace, whatever the sandbox puts in the way."""

from __future__ import annotations

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from sandboxes.errors import PathEscape
from sandboxes.workspace.safe_tree import SafeTree, remove_tree


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder with a file beside it that must stay unseen."""
    (tmp_path / "secret").write_text("secret\n")
    top = tmp_path / "top"
    (top / "sub" / "deeper").mkdir(parents=True)
    (top / "a.py").write_text("a\n")
    (top / "sub" / "b.py").write_text("b\n")
    return top


@pytest.fixture
def files(top: Path) -> SafeTree:
    """That folder, called /workspace inside."""
    return SafeTree(top, root="/workspace")


@pytest.mark.parametrize(
    "path, content",
    [
        ("a.py", b"a\n"),
        ("./sub/../a.py", b"a\n"),
        ("/workspace/sub/b.py", b"b\n"),
        ("sub//b.py", b"b\n"),
    ],
)
def test_reads_relative_and_absolute_paths(path: str, content: bytes, files: SafeTree) -> None:
    assert files.read_bytes(path) == content
    assert files.read_bytes(path, max_bytes=1) == content[:1]


@pytest.mark.parametrize(
    "path",
    ["../secret", "sub/../../secret", "/etc/passwd", "/workspace2/x", "/", "a\0b", "\ud800"],
)
def test_paths_that_leave_are_refused(path: str, files: SafeTree) -> None:
    for action in (files.read_bytes, files.resolve, files.relative):
        with pytest.raises(PathEscape):
            action(path)
    with pytest.raises(PathEscape):
        files.write_bytes(path, b"x")


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "sub/../../secret", "l2", "self"])
def test_links_that_leave_are_refused(target: str, files: SafeTree, top: Path) -> None:
    (top / "link").symlink_to(target)
    (top / "l2").symlink_to("..")
    (top / "self").symlink_to("self")
    path = "link/secret" if target == "l2" else "link"
    with pytest.raises(PathEscape):
        files.read_bytes(path)
    with pytest.raises(PathEscape):
        files.write_bytes(path, b"x")
    with pytest.raises(PathEscape):
        files.resolve(path)
    assert (top.parent / "secret").read_text() == "secret\n"


def test_links_that_stay_are_followed(files: SafeTree, top: Path) -> None:
    (top / "sub" / "up").symlink_to("../a.py")
    (top / "abs").symlink_to("/workspace/sub")
    (top / "dangling").symlink_to("sub/new.py")
    assert files.read_bytes("sub/up") == b"a\n"
    assert files.read_bytes("abs/b.py") == b"b\n"
    files.write_bytes("abs/b.py", b"c\n")
    assert (top / "sub" / "b.py").read_bytes() == b"c\n"
    files.write_bytes("dangling", b"new\n")
    assert (top / "sub" / "new.py").read_bytes() == b"new\n"
    assert (top / "dangling").is_symlink()
    assert files.resolve("abs/b.py") == top / "sub" / "b.py"
    assert files.relative("abs/../a.py") == "a.py"


def test_relative(files: SafeTree) -> None:
    assert files.relative("/workspace/sub/./b.py") == "sub/b.py"
    assert files.relative("not/there.py") == "not/there.py"
    assert files.relative("/workspace") == "."
    assert files.relative(".") == "."


def test_missing_and_folders(files: SafeTree) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_bytes("none")
    with pytest.raises(FileNotFoundError):
        files.read_bytes("none/deeper")
    with pytest.raises(IsADirectoryError):
        files.read_bytes("sub")
    with pytest.raises(IsADirectoryError):
        files.write_bytes("sub", b"x")
    with pytest.raises(IsADirectoryError):
        files.write_bytes("/workspace", b"x")
    with pytest.raises(NotADirectoryError):
        files.write_bytes("a.py/x", b"x")


def test_writing_makes_folders_and_keeps_the_mode(files: SafeTree, top: Path) -> None:
    files.write_bytes("new/folder/ü ☃.txt", b"x")
    assert (top / "new" / "folder" / "ü ☃.txt").read_bytes() == b"x"
    assert stat.S_IMODE((top / "new" / "folder" / "ü ☃.txt").stat().st_mode) == 0o644
    (top / "a.py").chmod(0o751)
    files.write_bytes("a.py", b"y")
    assert stat.S_IMODE((top / "a.py").stat().st_mode) == 0o751
    assert sorted(p.name for p in top.iterdir()) == ["a.py", "new", "sub"]


def test_a_failed_write_leaves_the_file_as_it_was(
    files: SafeTree, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="no"):
        files.write_bytes("a.py", b"half")
    assert (top / "a.py").read_bytes() == b"a\n"
    assert sorted(p.name for p in top.iterdir()) == ["a.py", "sub"]


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_special_files_are_refused_at_once(kind: str, files: SafeTree, top: Path) -> None:
    if kind == "pipe":
        os.mkfifo(top / "special")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(top / "special"))
    else:
        (top / "special").symlink_to("/dev/zero")
    with pytest.raises((OSError, PathEscape)):
        files.read_bytes("special")
    with pytest.raises((OSError, PathEscape)):
        files.write_bytes("special", b"x")


def test_no_swap_of_a_folder_for_a_link_lets_a_read_or_write_out(
    files: SafeTree, top: Path
) -> None:
    outside = top.parent / "outside"
    outside.mkdir()
    (outside / "b.py").write_text("outside\n")
    real, link, stop = top / "real", top / "evil", threading.Event()
    (top / "sub").rename(real)
    link.symlink_to(outside)
    (top / "sub").symlink_to("real")

    def swap() -> None:
        while not stop.is_set():
            for target in (real, link):
                spare = top / "spare"
                spare.symlink_to(target.readlink() if target.is_symlink() else target.name)
                spare.rename(top / "sub")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        refused = 0
        for _ in range(400):
            try:
                assert files.read_bytes("sub/b.py") in (b"b\n", b"w\n")
                files.write_bytes("sub/b.py", b"w\n")
            except PathEscape:
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert (outside / "b.py").read_text() == "outside\n"
    assert [p.name for p in outside.iterdir()] == ["b.py"]


def test_no_descriptor_is_left_open(files: SafeTree, top: Path) -> None:
    (top / "out").symlink_to("/etc")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        files.read_bytes("sub/b.py")
        files.write_bytes("x/y/z", b"1")
        for path in ("out/passwd", "../x", "none/none"):
            with pytest.raises((PathEscape, FileNotFoundError)):
                files.read_bytes(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_remove_tree_does_not_follow_links(tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "f").write_text("x")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(keep)
    assert remove_tree(tmp_path / "gone")
    assert (keep / "f").exists()
    assert remove_tree(tmp_path / "never was")


def test_a_file_is_removed_and_nothing_else(files: SafeTree, top: Path, tmp_path: Path) -> None:
    files.remove("sub/b.py")
    assert not (top / "sub" / "b.py").exists()
    for path, error in (("sub/b.py", FileNotFoundError), ("sub", IsADirectoryError)):
        with pytest.raises(error):
            files.remove(path)
    with pytest.raises(PathEscape):
        files.remove("../secret")
    (top / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(PathEscape):
        files.remove("out")
    assert (tmp_path / "secret").exists()


def test_the_permission_to_run_is_set_and_cleared(files: SafeTree, top: Path) -> None:
    files.write_bytes("new.sh", b"x", executable=True)
    assert stat.S_IMODE((top / "new.sh").stat().st_mode) == 0o755
    files.write_bytes("new.sh", b"y")
    assert stat.S_IMODE((top / "new.sh").stat().st_mode) == 0o755
    files.write_bytes("new.sh", b"z", executable=False)
    assert stat.S_IMODE((top / "new.sh").stat().st_mode) == 0o644
    (top / "a.py").chmod(0o640)
    files.write_bytes("a.py", b"x", executable=True)
    assert stat.S_IMODE((top / "a.py").stat().st_mode) == 0o750
