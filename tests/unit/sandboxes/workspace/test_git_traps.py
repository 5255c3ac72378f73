"""Repositories in which git would wait for ever, fill the memory, or read another repository."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.errors import WorkspaceError
from sandboxes.workspace import snapshots
from sandboxes.workspace.users_repository import find_repository
from sandboxes.workspace.workspace import Workspace

Make = Callable[..., Workspace]
Git = Callable[..., str]
GitRepo = Callable[..., Path]

PLACES = [
    *("config", "HEAD", "refs/heads/main", "refs/heads/other", "packed-refs", "commondir", "index"),
    *("info/exclude", "info/attributes", "objects/info/alternates", "shallow"),
]


@pytest.mark.parametrize("how", ["pipe", "giant", "link"])
@pytest.mark.parametrize("name", PLACES)
def test_what_git_would_wait_for_is_named_before_it_starts(
    how: str, name: str, git_repo: GitRepo, make: Make
) -> None:
    repo = git_repo({"a": "1\n"})
    place = repo / ".git" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    if how == "pipe":
        os.mkfifo(place)
    elif how == "link":
        place.symlink_to("/dev/zero")
    else:
        with place.open("w") as file:
            file.truncate(50 * 1024**3)
    with pytest.raises(WorkspaceError, match=name):
        make(repo)


def test_an_included_pipe_or_device_is_named(git_repo: GitRepo, make: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for named in ("/dev/zero", str(tmp_path / "pipe"), "../../pipe"):
        repo = git_repo({"a": "1\n"}, name=f"r{len(named)}")
        with (repo / ".git" / "config").open("a") as config:
            config.write(f'[Include]\n\tpath = "{named}"\n')
        with pytest.raises(WorkspaceError, match="no plain file"):
            make(repo)


def test_a_tool_that_the_configuration_names_is_no_included_file(
    git_repo: GitRepo, make: Make
) -> None:
    repo = git_repo({"a": "1\n"})
    with (repo / ".git" / "config").open("a") as config:
        config.write('[difftool "x"]\n\tpath = /dev/zero\n')
    assert (make(repo).path / "a").exists()


def test_a_pipe_for_ignore_rules_in_the_users_repository_is_named(
    git_repo: GitRepo, make: Make
) -> None:
    repo = git_repo({"a": "1\n", "sub/b": "1\n"})
    os.mkfifo(repo / "sub" / ".gitignore")
    with pytest.raises(WorkspaceError, match=r"sub/\.gitignore is no plain file"):
        make(repo)


@pytest.mark.parametrize("name", ["info/commit-graph", "pack/multi-pack-index"])
def test_a_pipe_among_the_objects_is_named(name: str, git_repo: GitRepo, make: Make) -> None:
    repo = git_repo({"a": "1\n"})
    os.mkfifo(repo / ".git" / "objects" / name)
    with pytest.raises(WorkspaceError, match="is no plain file"):
        make(repo)


@pytest.mark.parametrize("key", ["excludesFile", "attributesFile"])
def test_a_pipe_that_the_configuration_names_is_told(
    key: str, git_repo: GitRepo, make: Make, git: Git, tmp_path: Path
) -> None:
    repo = git_repo({"a": "1\n"})
    os.mkfifo(tmp_path / "pipe")
    git(repo, "config", f"core.{key}", str(tmp_path / "pipe"))
    with pytest.raises(WorkspaceError, match="pipe is no plain file"):
        make(repo)


@pytest.mark.parametrize("name", ["HEAD", "config", "packed-refs", "refs/heads/main"])
def test_a_pipe_in_a_nested_git_costs_a_second_and_not_the_run(
    name: str, git_repo: GitRepo, make: Make, git: Git
) -> None:
    workspace = make(git_repo({"a": "1\n"}))
    inner = workspace.path / "inner"
    inner.mkdir()
    git(inner, "init", "--quiet")
    (inner / "f").write_text("new\n")
    place = inner / ".git" / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    assert "+new" in workspace.diff()


def test_a_link_or_file_for_git_that_leads_to_another_repository_is_refused(
    git_repo: GitRepo, make: Make
) -> None:
    other = git_repo({"secret": "1\n"}, name="other")
    for how in ("link", "file"):
        repo = git_repo({"a": "1\n"}, name=how)
        (repo / ".git").rename(repo.with_name(f"{how}.old"))
        if how == "link":
            (repo / ".git").symlink_to(other / ".git")
        else:
            (repo / ".git").write_text(f"gitdir: {other / '.git'}\n")
        with pytest.raises(WorkspaceError, match="give"):
            make(repo)


def test_a_work_tree_and_a_submodule_are_repositories(
    git_repo: GitRepo, make: Make, git: Git, tmp_path: Path
) -> None:
    main = git_repo({"a": "1\n"}, name="main")
    tree = tmp_path / "a work tree"
    git(main, "worktree", "add", "--quiet", str(tree), "-b", "side")
    assert (make(tree).path / "a").exists()
    outer = git_repo({"b": "1\n"}, name="outer")
    git(outer, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(main), "sub")
    assert find_repository(outer / "sub").top == outer / "sub"


def test_more_new_files_than_are_kept_are_left_out_and_said(
    git_repo: GitRepo, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "MAX_NEW_FILES", 20)
    workspace = make(git_repo({"a": "1\n", "z": "1\n"}))
    for number in range(50):
        (workspace.path / f"f{number:02}").touch()
    (workspace.path / "z").write_text("2\n")
    patch = workspace.diff()
    assert patch.count("new file") == 20 and "+2" in patch
    assert len(workspace.left_out) == 30


def test_a_record_does_not_grow_without_end(
    git_repo: GitRepo, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "MAX_RECORD_BYTES", 3_000_000)
    workspace = make(git_repo({"a": "1\n"}))
    for number in range(5):
        (workspace.path / f"f{number}").write_bytes(os.urandom(1_000_000))
        workspace.checkpoint()
    assert workspace.left_out
    assert sum(p.stat().st_size for p in workspace.path.parent.rglob("*.pack")) < 4_000_000


def test_a_tracked_file_that_became_a_giant_is_left_out(git_repo: GitRepo, make: Make) -> None:
    workspace = make(git_repo({"a": "1\n"}))
    with (workspace.path / "a").open("w") as file:
        file.truncate(100 * 1024**3)
    workspace.checkpoint()
    assert workspace.left_out == ("a",)
    assert workspace.diff() == ""  # and not its deletion


def test_what_commands_made_unreadable_is_not_deleted(git_repo: GitRepo) -> None:
    files = {"tests/deep/t.py": "1\n", "b.py": "1\n", "c/x": "1\n"}
    with (
        tempfile.TemporaryDirectory() as place,
        Workspace.create(git_repo(files), parent=Path(place)) as workspace,
    ):
        for path in (Path(place), *Path(place).rglob("*")):
            if not path.is_symlink():
                os.chown(path, 12345, 12345) if os.geteuid() == 0 else None
        (workspace.path / "c" / "x").write_text("2\n")
        (workspace.path / "c" / "new").write_text("new\n")
        for name in ("tests/deep", "tests", "b.py", "c"):
            (workspace.path / name).chmod(0)
        said, saying = os.pipe()
        if (child := os.fork()) == 0:
            try:
                if os.geteuid() == 0:
                    os.setresgid(12345, 12345, 12345)
                    os.setresuid(12345, 12345, 12345)
                os.write(saying, workspace.diff().encode())
            except BaseException as error:
                os.write(saying, f"FAILED {error!r}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(saying)
        with os.fdopen(said) as given:
            patch = given.read()
    assert "deleted" not in patch and "FAILED" not in patch
    assert "+2" in patch and "+new" in patch
