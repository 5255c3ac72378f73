"""Repositories whose own git folder was made by hand to reach out of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from sandboxes.workspace.safe_folders import Folders
from sandboxes.workspace.workspace import Workspace

Make = Callable[..., Workspace]
Git = Callable[..., str]
GitRepo = Callable[..., Path]


def test_a_commit_that_is_missing_is_not_fetched(
    git_repo: GitRepo, make: Make, tmp_path: Path
) -> None:
    flag = tmp_path / "owned"
    repo = git_repo({"a": "1\n"})
    (repo / ".git" / "HEAD").write_text("12" * 20 + "\n")
    with (repo / ".git" / "config").open("a") as config:
        config.write(
            "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tpartialClone = evil\n"
            f'[remote "evil"]\n\tpromisor = true\n\turl = "ext::sh -c touch% {flag}"\n'
            '[protocol "ext"]\n\tallow = always\n'
        )
    assert (make(repo).path / "a").read_text() == "1\n"
    assert not flag.exists()


@pytest.mark.parametrize("folder", [".git", ".GIT", "sub/.git"])
def test_an_index_cannot_put_settings_into_the_copy(
    folder: str, git_repo: GitRepo, make: Make, git: Git, tmp_path: Path
) -> None:
    flag = tmp_path / "owned"
    stand_in = folder.replace(".", "x")
    evil = f'[core]\n\tfsmonitor = touch {flag}\n[filter "evil"]\n\tclean = touch {flag}\n'
    repo = git_repo({f"{stand_in}/config": evil, ".gitattributes": "* filter=evil\n"})
    (repo / stand_in).rename(repo / f"{stand_in}.old")
    (repo / folder).mkdir(parents=True, exist_ok=True)
    with (repo / folder / "config").open("a") as config:
        config.write(evil)
    index = repo / ".git" / "index"
    entries = index.read_bytes()[:-20].replace(stand_in.encode(), folder.encode())
    entries = entries.partition(b"TREE")[0]
    index.write_bytes(entries + hashlib.sha1(entries).digest())
    workspace = make(repo)
    assert f"{folder}/config" in workspace.left_out
    copied = (workspace.path / ".git" / "config").read_text()
    assert "evil" not in copied
    assert not flag.exists()


def test_the_repository_cannot_have_the_users_files_read_as_ignore_rules(
    git_repo: GitRepo, make: Make, git: Git, tmp_path: Path
) -> None:
    key = tmp_path / "id_rsa"
    key.write_text("SECRET\n")
    for name in ("named", "linked"):
        repo = git_repo({"a": "1\n"}, name=name)
        exclude = repo / ".git" / "info" / "exclude"
        if name == "named":
            git(repo, "config", "core.excludesFile", str(key))
        else:
            exclude.parent.mkdir(exist_ok=True)
            exclude.unlink(missing_ok=True)
            exclude.symlink_to(key)
        copy = make(repo).path
        assert "SECRET" not in (copy / ".git" / "info" / "exclude").read_text()


def test_ignore_rules_that_the_repository_names_in_itself_count(
    git_repo: GitRepo, make: Make, git: Git
) -> None:
    repo = git_repo({"a": "1\n", "rules": "b\n"})
    (repo / "b").write_text("2\n")
    git(repo, "config", "core.excludesFile", str(repo / "rules"))
    assert sorted(p.name for p in make(repo).path.iterdir()) == [".git", "a", "rules"]


def test_a_path_that_git_refuses_does_not_cost_the_patch(dirty: Path, make: Make) -> None:
    workspace = make(dirty)
    (workspace.path / "a.py").write_text("changed\n")
    for name in (".GIT", "git~1"):
        (workspace.path / "sub dir" / name).mkdir()
        (workspace.path / "sub dir" / name / "x").write_text("1\n")
    patch = workspace.diff()
    assert workspace.left_out == ("sub dir/.GIT/x", "sub dir/git~1/x")
    workspace.apply_to(dirty, patch)
    assert (dirty / "a.py").read_text() == "changed\n"
    assert not (dirty / "sub dir" / ".GIT").exists()


def test_a_folder_named_like_a_variable(
    git_repo: GitRepo, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERE", "/nowhere")
    assert (make(git_repo({"a": "1\n"}, name="in $WHERE")).path / "a").exists()


def test_a_file_in_another_encoding_than_told_is_copied(git_repo: GitRepo, make: Make) -> None:
    repo = git_repo({"a.txt": "1\n"})
    (repo / ".gitattributes").write_text("*.txt text working-tree-encoding=UTF-16\n")
    workspace = make(repo)
    (workspace.path / "a.txt").write_text("2\n")
    workspace.apply_to(repo, workspace.diff())
    assert (repo / "a.txt").read_text() == "2\n"


def test_a_file_removed_while_it_is_copied_is_passed_over(
    git_repo: GitRepo, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = git_repo({"a": "1\n", "b": "1\n"})
    opened = Folders.open

    def remove_first(folders: Folders, path: str) -> IO[bytes]:
        if path == "b":
            (repo / "b").unlink()
        return opened(folders, path)

    monkeypatch.setattr(Folders, "open", remove_first)
    assert sorted(p.name for p in make(repo).path.iterdir()) == [".git", "a"]
