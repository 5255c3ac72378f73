"""Repositories and processes that try to make git run something on the host."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.workspace.workspace import Workspace

Make = Callable[..., Workspace]
Git = Callable[..., str]
GitRepo = Callable[..., Path]


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
