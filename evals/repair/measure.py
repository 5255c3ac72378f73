"""How many held-out tasks the real agent solves: ``agent.solve``, a real sandbox, one attempt each.

A task counts as solved when the run submitted, the check passes in the sandbox, and the patch
touches the module alone (a run that edits the test has not repaired anything).
"""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.config import Settings
from agent.report import status_of
from agent.solve import LoadedModel, solve
from agent.store import Store
from agent.types import Task
from evals.repair.task import RepairTask

CHECK = "python3 -m pytest -q"


@dataclass(frozen=True)
class Result:
    """One task's end. ``edits`` counts edit calls; ``usage`` is the session's, as a mapping."""

    instance_id: str
    kind: str
    status: str
    solved: bool
    steps: int
    edits: int
    usage: Mapping[str, float]


def measure(
    tasks: Sequence[RepairTask],
    settings: Settings,
    model: LoadedModel,
    on_result: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """Run every task once and tell ``on_result`` as each ends."""
    results = []
    with tempfile.TemporaryDirectory(prefix="tenuto-measure-") as state:
        store = Store(Path(state))
        for task in tasks:
            results.append(_run(task, settings, model, store))
            on_result(results[-1])
    return results


def _run(task: RepairTask, settings: Settings, model: LoadedModel, store: Store) -> Result:
    with repository(task.files) as repo:
        report = solve(Task(task.issue, repo, CHECK), settings, model, store=store)
    status, exit_status = status_of(report.result, report.check)
    touched = [line for line in report.patch.splitlines() if line.startswith("diff --git ")]
    own = touched == [f"diff --git a/{task.path} b/{task.path}"]
    calls = [call.name for step in report.result.steps for call in step.message.tool_calls]
    return Result(
        task.instance_id,
        task.kind,
        status,
        exit_status == 0 and own,
        len(report.result.steps),
        calls.count("edit"),
        report.result.usage.as_dict(),
    )


@contextmanager
def repository(files: Mapping[str, str]) -> Iterator[Path]:
    """A throw-away git repository with these files in its first commit."""
    with tempfile.TemporaryDirectory(prefix="tenuto-task-") as name:
        repo = Path(name) / "repo"
        repo.mkdir()
        for path, text in files.items():
            (repo / path).write_text(text)
        quiet = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        identity = ["-c", "user.name=Tenuto", "-c", "user.email=tenuto@localhost"]
        for arguments in (
            ["init", "-q"],
            ["add", "."],
            [*identity, "commit", "-q", "-m", "A module and its test"],
        ):
            subprocess.run(["git", *arguments], cwd=repo, env=quiet, check=True)
        yield repo


def wilson(solved: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a rate (E. B. Wilson, 1927)."""
    if total == 0:
        return 0.0, 1.0
    rate, square = solved / total, z * z
    centre = (rate + square / (2 * total)) / (1 + square / total)
    half = (
        z
        / (1 + square / total)
        * math.sqrt(rate * (1 - rate) / total + square / (4 * total * total))
    )
    return max(0.0, centre - half), min(1.0, centre + half)
