"""Whatever is done to the copy: its patch makes the user's tree equal, and rollback undoes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandboxes.workspace.workspace import Workspace

# Few and short names, so that files, folders and links meet at the same path.
NAMES = st.sampled_from(["a", "b", "ü ☃", "q\"uo\\te'", "new\nline", "-dash", "tab\t", ".hidden"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
LINES = st.sampled_from(
    [b"one\n", b"two\r\n", b"three", b"\xef\xbb\xbf", b"caf\xe9\n", b"\0", b"{}\n"]
)
CONTENT = st.one_of(
    st.lists(LINES, max_size=12).map(b"".join), st.binary(max_size=40), st.just(b"x\n" * 500)
)
CHANGE = st.one_of(
    st.tuples(st.just("write"), PATHS, CONTENT),
    st.tuples(st.just("append"), PATHS, CONTENT),
    st.tuples(st.just("remove"), PATHS, st.just(b"")),
    st.tuples(st.just("move"), PATHS, PATHS.map(os.fsencode)),
    st.tuples(st.just("mode"), PATHS, st.just(b"")),
    st.tuples(st.just("link"), PATHS, st.sampled_from([b"a", b"../b", b"/nowhere", b"ab"])),
)


def clear(top: Path, path: str) -> Path:
    """Make room for ``path``: no file or link on the way, nothing at its place."""
    place = top
    for part in path.split("/")[:-1]:
        place = place / part
        if place.is_symlink() or place.is_file():
            place.unlink()
    target = top / path
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    elif target.is_symlink() or target.exists():
        target.unlink()
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def change(top: Path, kind: str, path: str, argument: bytes) -> None:
    target = top / path
    plain = target.is_file() and not target.is_symlink() and is_inside(top, target)
    if kind == "write":
        clear(top, path).write_bytes(argument)
    elif kind == "link":
        clear(top, path).symlink_to(os.fsdecode(argument))
    elif kind == "remove":
        clear(top, path)
    elif plain and kind == "append":
        target.write_bytes(target.read_bytes() + argument)
    elif plain and kind == "mode":
        target.chmod(target.stat().st_mode ^ 0o100)
    elif plain and kind == "move":
        other = os.fsdecode(argument)
        if not other.startswith(path + "/") and not path.startswith(other + "/") and other != path:
            content, mode = target.read_bytes(), target.stat().st_mode
            target.unlink()
            moved = clear(top, other)
            moved.write_bytes(content)
            moved.chmod(mode)


def is_inside(top: Path, path: Path) -> bool:
    return path.parent.resolve().is_relative_to(top.resolve())


def tree_of(top: Path) -> dict[str, tuple[bool, bytes]]:
    """Files and links: what git can hold."""
    found = {}
    for folder, folders, files in os.walk(top):
        if ".git" in folders:
            folders.remove(".git")
        for name in (*files, *folders):
            path = Path(folder, name)
            key = str(path.relative_to(top))
            if path.is_symlink():
                found[key] = (False, b"-> " + os.fsencode(path.readlink()))
            elif path.is_file():
                found[key] = (bool(path.stat().st_mode & 0o100), path.read_bytes())
    return found


@pytest.fixture
def workspace(git_repo: Callable[..., Path], tmp_path: Path) -> Iterator[Workspace]:
    """A copy of a dirty repository."""
    repo = git_repo({"a": "one\ntwo\n", "b/a": b"\0\1", "ü ☃": "x\n" * 500, "b/b/c": "c"})
    (repo / "a").write_text("one\nthree\n")
    (repo / "new\nline").write_bytes(b"caf\xe9\r\n")
    with Workspace.create(repo, parent=tmp_path / "places") as workspace:
        yield workspace


def test_patch_and_rollback(workspace: Workspace, tmp_path: Path) -> None:
    baseline, original = workspace.checkpoint(), tree_of(workspace.path)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(changes=st.lists(CHANGE, min_size=1, max_size=8))
    def check(changes: list[tuple[str, str, bytes]]) -> None:
        user = tmp_path / "user"
        shutil.copytree(workspace.repo, user, symlinks=True)
        try:
            for kind, path, argument in changes:
                change(workspace.path, kind, path, argument)
            expected = tree_of(workspace.path)
            patch = workspace.diff()
            patch.encode()
            assert (patch == "") == (expected == original)
            workspace.apply_to(user, patch)
            assert tree_of(user) == expected
        finally:
            # Also after a failure: the next example begins from the baseline.
            shutil.rmtree(user)
            workspace.rollback(baseline)
        assert tree_of(workspace.path) == original

    check()
