"""Git on the host, apart from what hostile repositories try with it."""

from __future__ import annotations

import os
from pathlib import Path

from sandboxes.workspace.host_git import HostGit


def test_ctrl_c_in_a_terminal_does_not_reach_git(tmp_path: Path) -> None:
    """A terminal sends it to every process of its foreground group; git must not be of ours."""
    git = HostGit(tmp_path / "home")
    group = "alias.group=!cut -d' ' -f5 /proc/self/stat"
    assert int(git.run(["group"], cwd=tmp_path, config=(group,))) != os.getpgrp()
