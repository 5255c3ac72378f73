"""Tasks that are a machine: the agent works on the image's own files, of which nothing is lost.

The tasks are made here after the sort of Terminal-Bench's fix-git and git-leak-recovery: their own
solutions need dangling commits, the reflog, and what a nested repository ignores.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest

from agent.loading import LoadedModel
from agent.run.build import open_box, open_workspace
from agent.settings.load import load_settings
from agent.settings.table import Settings
from evals.references import CheckOptions, check
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from evals.suites.images import build
from sandboxes.images.base_image import ensure_base_image
from tests.support.evaluation import call

pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root sees what other accounts own"),
]

GIT = "git -c user.name=A -c user.email=a@example.com"
MACHINES = {
    # Work that was committed on no branch.
    "lost-commit": (
        f"RUN cd /app && git init -q -b main && echo one > site && git add . && {GIT} commit -qm 1 "
        f"&& git checkout -q --detach && echo two > site && {GIT} commit -qam 2 "
        "&& git checkout -q main",
        "cd /app && git merge -q $(git reflog | sed -n '2s/ .*//p')",
        "grep -q two /app/site && git -C /app log --oneline | grep -qc 2",
    ),
    # A secret in a commit that no ref names.
    "leak": (
        f"RUN cd /app && git init -q -b main && echo one > a && git add . && {GIT} commit -qm 1 "
        f"&& echo key-4711 > secret && git add . && {GIT} commit -qm leak "
        "&& git reset -q --hard HEAD~ && rm -rf .git/logs",
        "cd /app && git cat-file -p $(git fsck --unreachable --no-reflogs | "
        "awk '$2 == \"blob\" {print $3}') > /app/found && git prune --expire=now",
        'grep -q key-4711 /app/found && [ -z "$(git -C /app fsck --unreachable)" ]',
    ),
    # A program that a nested repository ignores, a link to one by its absolute place, a fifo, an
    # empty folder and another account's file.
    "ignored": (
        "RUN cd /app && git init -q in && mkdir in/build in/empty && echo build > in/.gitignore "
        "&& printf '#!/bin/sh\\necho works\\n' > in/build/tool && chmod 4755 in/build/tool "
        "&& ln -s /app/in/build/tool tool && mkfifo pipe && touch own && chown 1234:55 own "
        f"&& cd in && git add . && {GIT} commit -qm 1",
        "/app/tool > /app/said",
        "grep -q works /app/said && [ -p /app/pipe ] && [ -d /app/in/empty ] && [ ! -e /app/.git ]"
        ' && [ "$(stat -c %u:%g /app/own)" = 1234:55 ] && [ -u /app/in/build/tool ]'
        " && git -C /app/in status && [ \"$PYTHONDONTWRITEBYTECODE\" = '' ]",
    ),
}
TESTS = """#!/bin/bash
( {check} ) && echo 1 > /logs/verifier/reward.txt || echo 0 > /logs/verifier/reward.txt
"""


@pytest.fixture(scope="module")
def base(docker_engine: docker.DockerClient) -> str:
    return ensure_base_image()


def write_machines(folder: Path, base: str) -> None:
    for name, (made, solution, checked) in MACHINES.items():
        task = folder / name
        for part in ("environment", "tests", "solution"):
            (task / part).mkdir(parents=True)
        (task / "task.toml").write_text("[environment]\nallow_internet = false\n")
        (task / "instruction.md").write_text("Put the machine right.\n")
        text = f"FROM {base}\nUSER root\nWORKDIR /app\n{made}\n"
        (task / "environment" / "Dockerfile").write_text(text)
        (task / "tests" / "test.sh").write_text(TESTS.format(check=checked))
        (task / "solution" / "solve.sh").write_text(f"#!/bin/bash\n{solution}\n")


def in_plain_docker(task: Path, image: str, solved: bool) -> str:
    """Return the reward that the engine alone gives: no tool of ours has a part in it."""
    solve = "bash /solution/solve.sh;" if solved else ""
    script = f"mkdir -p /logs/verifier; {solve} bash /tests/test.sh >/dev/null 2>&1"
    folders = [f"-v{task / part}:/{part}:ro" for part in ("solution", "tests")]
    command = ["docker", "run", "--rm", "--network=none", *folders, "--entrypoint", "bash", image]
    script += "; cat /logs/verifier/reward.txt"
    done = subprocess.run([*command, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def test_own_solutions_are_graded_as_in_plain_docker(base: str, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    write_machines(tasks, base)
    options = CheckOptions("terminal-bench", str(tasks), tmp_path / "check", workers=2)
    assert check(options, {}) == 0
    for agent, solved in (("oracle", True), ("nop", False)):
        grades = RunFolder(tmp_path / "check" / agent).grades()
        for name in MACHINES:
            image = build(tasks / name / "environment", name, print)
            plain = in_plain_docker(tasks / name, image, solved)
            assert (plain, grades[name, 1].reward) == ("01"[solved], float(solved)), name
            image_patch = RunFolder(tmp_path / "check" / agent).results()[name, 1].patch
            assert bool(image_patch) is solved


def test_the_model_works_on_the_images_own_tree(
    base: str, tmp_path: Path, scripted_model: Callable[..., LoadedModel]
) -> None:
    """By the tools too: they read and write files that the shell sees at once."""
    tasks = tmp_path / "tasks"
    write_machines(tasks, base)
    model = scripted_model(
        f"Look.\n</think>\n\n{call('read_file', file_path='in/build/tool')}",
        f"Go.\n</think>\n\n{call('write_file', file_path='mine', content='by tool')}",
        f"Run.\n</think>\n\n{call('run_shell_command', command='cat mine; ./tool | tee said')}",
        f"Done.\n</think>\n\n{call('submit', summary='ran it')}",
    )
    run = tmp_path / "run"
    options = RunOptions("terminal-bench", str(tasks), run, ids=("ignored",), workers=1)
    assert begin(options, {}, model=model) == 0
    folder = RunFolder(run)
    record = (folder.attempt("ignored", 1) / "trajectory.jsonl").read_text()
    assert "echo works" in record
    assert '"reward": 1.0' in (folder.attempt("ignored", 1) / "verifier.json").read_text()
    patch = folder.results()["ignored", 1].patch
    assert sorted(line for line in patch.splitlines() if line.startswith("+++")) == [
        "+++ b/mine",
        "+++ b/said",
    ]


@pytest.fixture
def machine(base: str, tmp_path: Path) -> Settings:
    write_machines(tmp_path / "tasks", base)
    image = build(tmp_path / "tasks" / "ignored" / "environment", "ignored", print)
    changes: dict[str, Any] = {"image": image, "workdir": "/app", "image_tree": True}
    return load_settings({**changes, "sandbox": "docker", "writable": True})


def test_checkpoint_rollback_and_a_kept_session_leave_the_rest_alone(
    machine: Settings, tmp_path: Path, git_repo: Callable[..., Path]
) -> None:
    """The record lies outside the tree, and what it does not hold stays as the image has it."""
    repo = git_repo({})
    workspace = open_workspace(machine, repo)
    with open_box(machine, workspace, "machine-test") as box:
        assert workspace.diff() == ""
        kept = workspace.keep_record(tmp_path / "record")
        box.shell().run("echo a > a; echo 1 >> in/.gitignore; echo x > in/build/x", timeout_s=30)
        first = workspace.checkpoint()
        box.shell().run("rm a; echo b > b; rm -rf in/.gitignore", timeout_s=30)
        assert "+b" in workspace.diff()
        assert "in/build/x" in workspace.diff()  # no rule covers it any more
        workspace.rollback(first)
        listing = box.shell().run("ls -A . in in/build; stat -c %A pipe", timeout_s=30).output
        assert " ".join(listing.split()) == (
            ".: a in own pipe tool in: .git .gitignore build empty in/build: tool x prw-r--r--"
        )
        patch = workspace.diff()
    again = open_workspace(machine, repo, kept, first)
    with again:
        assert again.diff() == patch
        assert (again.path / "in" / "build" / "tool").stat().st_mode & 0o7777 == 0o4755
        assert (again.path / "own").stat().st_uid == 1234
        assert (again.path / "in" / "empty").is_dir()
