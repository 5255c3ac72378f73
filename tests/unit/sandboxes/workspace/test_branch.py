"""The branch that is checked out, read without running git."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from sandboxes.workspace.users_repository import branch_of


def test_the_branch_is_named_and_a_detached_head_has_none(
    git_repo: Callable[..., Path], tmp_path: Path
) -> None:
    repo = git_repo({"a/b.txt": "x\n"})
    subprocess.run(["git", "checkout", "-qb", "topic/one"], cwd=repo, check=True)
    assert branch_of(repo / "a") == "topic/one"
    subprocess.run(["git", "checkout", "-q", "--detach"], cwd=repo, check=True)
    assert branch_of(repo) == ""
    assert branch_of(tmp_path) == ""
