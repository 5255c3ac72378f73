"""Every tool, through the registry, over real sandboxes and a real private clone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandboxes.base import Limits, Sandbox
from sandboxes.images.base_image import ensure_base_image
from sandboxes.open import open_sandbox
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import Observation, ToolContext

CALC = "def add(a, b):\n    return a - b\n"
TEST = "from calc import add\n\nassert add(2, 2) == 4, add(2, 2)\nprint('fine')\n"


class Tools:
    """The tools of one sandbox: ``tools("edit", file_path=...)`` runs a call."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.context = ToolContext(sandbox, command_timeout_s=60)
        self._registry = Registry(self.context)

    def __call__(self, name: str, /, **arguments: Any) -> Observation:
        return self._registry.run(name, arguments)

    def text(self, name: str, /, **arguments: Any) -> str:
        observation = self(name, **arguments)
        assert observation.ok, observation.text
        return observation.text


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.docker)])
def tools(
    request: pytest.FixtureRequest, git_repo: Callable[..., Path], tmp_path: Path
) -> Iterator[Tools]:
    image = None
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
        image = ensure_base_image()
    repo = git_repo(
        {
            "calc.py": CALC,
            "test_calc.py": TEST,
            "docs/with space/ü ☃.md": "# add\r\n\r\ntext\r\n",
            "logo.png": b"\x89PNG\r\n\x1a\n\0\0",
            ".gitignore": "*.log\n",
        },
        name="a repo ☃",
    )
    (repo / "untracked.txt").write_text("not yet in git\n")
    workspace = Workspace.create(repo, parent=tmp_path / "workspaces")
    before = {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    limits = Limits(output_bytes=200_000)
    with open_sandbox(request.param, workspace, image=image, limits=limits) as sandbox:
        yield Tools(sandbox)
    assert before == {path: path.read_bytes() for path in repo.rglob("*") if path.is_file()}


def test_a_bug_is_repaired(tools: Tools) -> None:
    failing = tools("run_shell_command", command="python3 test_calc.py")
    assert not failing.ok
    assert failing.text.endswith("AssertionError: 0\n[exit code 1]")
    assert tools.text("read_file", file_path="calc.py") == CALC.removesuffix("\n")
    assert (
        tools.text(
            "edit",
            file_path="calc.py",
            old_string="    return a - b",
            new_string="    return a + b",
        )
        == "Edited calc.py: 1 replacement."
    )
    assert tools.text("run_shell_command", command="python3 test_calc.py") == "fine\n[exit code 0]"
    assert tools("submit", summary="Add, not subtract.").submitted
    diff = tools.sandbox.workspace.diff()
    assert "-    return a - b\n+    return a + b\n" in diff
    assert diff.count("diff --git") == 1


def test_looking_around(tools: Tools) -> None:
    assert tools.text("list_directory").split("\n") == [
        "docs/",
        ".gitignore",
        "calc.py",
        "logo.png",
        "test_calc.py",
        "untracked.txt",
    ]
    assert tools.text("glob", pattern="**/*.md") == "docs/with space/ü ☃.md"
    assert tools.text("grep_search", pattern=r"add\(2", glob="*.py") == (
        "test_calc.py\n3: assert add(2, 2) == 4, add(2, 2)"
    )
    assert tools.text("grep_search", pattern="text", path="docs/with space") == (
        "docs/with space/ü ☃.md\n3: text"
    )
    assert tools.text("grep_search", pattern="--flag") == "No matches for --flag."
    assert tools.text("read_file", file_path=f"{tools.sandbox.root}/untracked.txt") == (
        "not yet in git"
    )
    assert tools.text("read_file", file_path="logo.png") == "[binary file: 10 bytes, PNG image]"
    assert not tools("read_file", file_path="/etc/passwd").ok
    assert not tools("read_file", file_path="../calc.py").ok


def test_ignored_files_are_not_searched(tools: Tools) -> None:
    tools.text("run_shell_command", command="echo needle > build.log; echo needle > note.txt")
    assert tools.text("grep_search", pattern="needle") == "note.txt\n1: needle"


def test_what_tools_write_and_what_commands_see_is_the_same(tools: Tools) -> None:
    assert tools.text("write_file", file_path="pkg/new.py", content="x = 1\n") == (
        "Wrote pkg/new.py (1 line)."
    )
    tools.text("run_shell_command", command="echo 'y = 2' >> pkg/new.py; chmod 750 pkg/new.py")
    edit = {"file_path": "pkg/new.py", "old_string": "y = 2", "new_string": "y = 3"}
    assert "a command or somebody else changed it since" in tools("edit", **edit).text
    assert tools.text("read_file", file_path="pkg/new.py") == "x = 1\ny = 2"
    tools.text("edit", **edit)
    assert tools.text("run_shell_command", command="cat pkg/new.py; stat -c %a pkg/new.py") == (
        "x = 1\ny = 3\n750\n[exit code 0]"
    )
    tools.text(
        "edit", file_path="docs/with space/ü ☃.md", old_string="# add\n\ntext", new_string="# a\nb"
    )
    host = tools.sandbox.workspace.path / "docs" / "with space" / "ü ☃.md"
    assert host.read_bytes() == b"# a\r\nb\r\n"


def test_the_shell_lasts(tools: Tools) -> None:
    tools.text("run_shell_command", command="cd docs; export WORD=kept")
    assert tools.text("run_shell_command", command='basename "$PWD"; echo $WORD') == (
        "docs\nkept\n[exit code 0]"
    )
    assert tools.text("run_shell_command", command="ls calc.py", directory=".") == (
        "calc.py\n[exit code 0]"
    )
    assert tools.text("run_shell_command", command='basename "$PWD"') == "docs\n[exit code 0]"
    # Searching neither needs nor changes the shell's folder.
    assert "calc.py\n1: def" in tools.text("grep_search", pattern="def add")
    assert tools("run_shell_command", command="exit 3").text == "[exit code 3]"
    died = tools("run_shell_command", command="kill -9 $$")
    assert not died.ok
    assert died.text.startswith("[the shell ended; a new one starts in ")
    assert tools.text("run_shell_command", command="echo again") == "again\n[exit code 0]"


def test_commands_that_go_too_far(tools: Tools) -> None:
    late = tools("run_shell_command", command="echo begun; sleep 1000", timeout=1)
    assert late.text.startswith("begun\n")
    assert late.text.endswith("\n[timed out after 1 s; its processes were killed]")
    loud = tools("run_shell_command", command="yes 'some words' | head -c 3000000", timeout=60)
    assert loud.truncated
    assert len(loud.text) < 31_000
    assert loud.text.count("left out") == 1
    assert loud.text.endswith("[exit code 0]")


def test_a_stop_ends_a_command(tools: Tools) -> None:
    stop = tools.context.stop = Stop()
    tools.context.on_output = lambda text: stop.cancel() if "begun" in text else None
    stopped = tools("run_shell_command", command="echo begun; sleep 1000", timeout=60)
    assert stopped.text.startswith("begun\n")
    assert stopped.text.endswith("\n[stopped; its processes were killed]")


def test_a_background_command_outlives_its_call(tools: Tools) -> None:
    tools.text("run_shell_command", command="mkfifo in out")
    started = tools.text(
        "run_shell_command",
        command="pwd; read word <in; echo got $word; echo >out",
        directory="docs/..",
        is_background=True,
    )
    log = started.split("output in ")[1].split(". ")[0]
    talk = f"echo word >in; read <out; cat {log}"
    assert tools.text("run_shell_command", command=talk) == (
        f"{tools.sandbox.root}\ngot word\n[exit code 0]"
    )
    tools.text("run_shell_command", command=f"rm {log}")


def test_links_do_not_lead_out(tools: Tools) -> None:
    tools.text("run_shell_command", command="ln -s /etc out; ln -s /etc/hostname name; ln -s . me")
    for name, arguments in [
        ("read_file", {"file_path": "out/hostname"}),
        ("read_file", {"file_path": "name"}),
        ("write_file", {"file_path": "name", "content": "x"}),
        ("edit", {"file_path": "out/hostname", "old_string": "a", "new_string": "b"}),
        ("list_directory", {"path": "out"}),
        ("glob", {"pattern": "*", "path": "out"}),
        ("grep_search", {"pattern": ".", "path": "out"}),
        ("run_shell_command", {"command": "pwd", "directory": "out"}),
    ]:
        observation = tools(name, **arguments)
        assert not observation.ok, name
        assert "leads out of the repository" in observation.text
    assert tools.text("read_file", file_path="me/me/calc.py") == CALC.removesuffix("\n")


def test_git_still_works_but_its_files_are_not_written(tools: Tools) -> None:
    assert "calc.py" in tools.text("run_shell_command", command="git ls-files")
    observation = tools("write_file", file_path=".git/hooks/post-checkout", content="#!/bin/sh\n")
    assert not observation.ok
    assert "belongs to git itself" in observation.text
