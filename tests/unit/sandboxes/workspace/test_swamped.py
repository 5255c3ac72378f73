"""Trees that try to keep git waiting, fill its memory, or run out of descriptors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.workspace.safe_folders import MAX_DEPTH
from sandboxes.workspace.users_repository import keeps_from_fetching
from sandboxes.workspace.workspace import Workspace

Make = Callable[..., Workspace]
Git = Callable[..., str]
GitRepo = Callable[..., Path]


def test_a_pipe_for_ignore_rules_costs_a_second_and_not_the_patch(
    git_repo: GitRepo, make: Make
) -> None:
    workspace = make(git_repo({"a": "1\n", "sub/b": "2\n"}))
    os.mkfifo(workspace.path / "sub" / ".gitignore")
    (workspace.path / "a").write_text("3\n")
    assert "+3" in workspace.diff()
    assert not (workspace.path / "sub" / ".gitignore").exists()


def test_ignore_rules_that_would_fill_the_memory_are_dropped(git_repo: GitRepo, make: Make) -> None:
    workspace = make(git_repo({"a": "1\n"}))
    with (workspace.path / ".gitignore").open("w") as file:
        file.truncate(100 * 1024**3)
    (workspace.path / "a").write_text("3\n")
    assert "+3" in workspace.diff()


def test_a_path_too_deep_to_hold_open_is_left_out(git_repo: GitRepo, make: Make) -> None:
    workspace = make(git_repo({"a": "1\n"}))
    deep = "/".join("d" * (MAX_DEPTH + 5)) + "/x"
    (workspace.path / deep).parent.mkdir(parents=True)
    (workspace.path / deep).write_text("deep\n")
    (workspace.path / "a").write_text("3\n")
    assert "+3" in workspace.diff()
    assert workspace.left_out == (deep,)
    workspace.tidy()
    assert sorted(p.name for p in workspace.path.iterdir()) == [".git", "a"]


def test_a_folder_deeper_than_python_can_count_gives_way_to_a_file(
    git_repo: GitRepo, make: Make
) -> None:
    workspace = make(git_repo({"a": "1\n"}))
    before = workspace.checkpoint()
    (workspace.path / "a").unlink()
    folder = os.open(workspace.path, os.O_RDONLY)
    for name in ["a", *["d"] * 3000]:
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    workspace.rollback(before)
    assert (workspace.path / "a").read_text() == "1\n"
    assert [p.name for p in workspace.path.glob(".tenuto-*")] == []


def test_tidying_leaves_what_the_patch_gives(git_repo: GitRepo, make: Make) -> None:
    files = {"a": "1\n", ".gitignore": "*.pth\nbuilt/\n", "run": "x", "link/b": "2\n"}
    workspace = make(git_repo(files))
    tree = workspace.path
    (tree / "new.py").write_text("n\n")
    (tree / "sway.pth").write_text("import os\n")
    (tree / "built" / "deep").mkdir(parents=True)
    (tree / "built" / "deep" / "x").write_text("x")
    (tree / "empty").mkdir()
    (tree / "to").symlink_to("link")
    os.mkfifo(tree / "link" / "pipe")
    workspace.tidy()
    left = {p.relative_to(tree).as_posix() for p in tree.rglob("*") if ".git/" not in f"{p}/"}
    assert left == {"a", ".gitignore", "run", "link", "link/b", "new.py", "to"}


def test_tidying_spares_ignored_files_that_were_copied(git_repo: GitRepo, places: Path) -> None:
    repo = git_repo({"a": "1\n", ".gitignore": "*.so\n"})
    (repo / "fast.so").write_text("built")
    with Workspace.create(repo, parent=places, ignored=True) as workspace:
        workspace.tidy()
        assert (workspace.path / "fast.so").read_text() == "built"


def test_a_rollback_puts_thousands_of_files_back_with_their_modes(
    git_repo: GitRepo, make: Make, tree: Callable[..., dict[str, tuple[str, str]]]
) -> None:
    workspace = make(git_repo({f"d{i % 20}/f{i}.py": f"x = {i}\n" for i in range(600)}))
    (workspace.path / "run").write_text("#!/bin/sh\n")
    (workspace.path / "run").chmod(0o755)
    (workspace.path / "to").symlink_to("d1/../run")
    (workspace.path / "odd\nname").write_text("odd\n")
    (workspace.path / "secret").write_text("s")
    (workspace.path / "secret").chmod(0o600)
    first, held = workspace.checkpoint(), tree(workspace.path)
    for folder in workspace.path.glob("d*"):
        shutil.rmtree(folder)
    (workspace.path / "run").chmod(0o644)
    (workspace.path / "to").unlink()
    (workspace.path / "to").write_text("no link")
    (workspace.path / "secret").write_text("changed")
    second, later = workspace.checkpoint(), tree(workspace.path)
    workspace.rollback(first)
    assert tree(workspace.path) == held
    assert (workspace.path / "secret").stat().st_mode & 0o777 == 0o600
    workspace.rollback(second)
    assert tree(workspace.path) == later


def test_the_copy_does_not_say_where_it_came_from(git_repo: GitRepo, make: Make) -> None:
    repo = git_repo({"a": "1\n"}, name="a telling name")
    workspace = make(repo)
    told = [
        path
        for path in workspace.path.rglob("*")
        if path.is_file() and b"telling" in path.read_bytes()
    ]
    assert told == []


def test_a_partial_clone_is_copied_without_its_history(
    git_repo: GitRepo, make: Make, git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = tmp_path / "owned"
    repo = git_repo({"a": "1\n"})
    extra = tmp_path / "extra.config"
    extra.write_text(
        f'[remote "evil"]\n\tpromisor = true\n\turl = {repo}\n\tuploadpack = touch {flag}; false\n'
    )
    with (repo / ".git" / "config").open("a") as config:
        config.write(f"[include]\n\tpath = {extra}\n")
    blob = git(repo, "rev-parse", "HEAD:a").strip()
    (repo / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    workspace = make(repo)
    assert (workspace.path / "a").read_text() == "1\n"
    assert git(workspace.path, "log", "--format=%s").startswith("Files as they were")
    assert not flag.exists()


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((2, 30, 2), False),
        ((2, 39, 3), False),
        ((2, 39, 4), True),
        ((2, 39, 5), True),
        ((2, 40, 1), False),
        ((2, 43, 4), True),
        ((2, 44, 0), False),
        ((2, 45, 0), True),
        ((3, 0, 0), True),
        ((0, 0, 0), False),
    ],
)
def test_which_git_can_be_kept_from_fetching(version: tuple[int, int, int], safe: bool) -> None:
    assert keeps_from_fetching(version) is safe
