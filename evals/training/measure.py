"""Measure how many held-out tasks the agent solves in a real sandbox, one attempt each.

A task counts as solved when the run submitted, the check passes in the sandbox, and the patch
touches the module alone (a run that edits the test has not repaired anything).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.loading import LoadedModel
from agent.run.report import status_of
from agent.run.solve import solve
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from agent.types import Task
from evals.scratch import scratch_folder
from evals.suites.repair import CHECK, repository
from evals.training.task import RepairTask


@dataclass(frozen=True)
class MeasuredTask:
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
    on_result: Callable[[MeasuredTask], None] = lambda _: None,
) -> list[MeasuredTask]:
    """Run every task once and tell ``on_result`` as each ends."""
    results = []
    with scratch_folder("measure") as state:
        store = SessionStore(state)
        for task in tasks:
            results.append(_run(task, settings, model, store))
            on_result(results[-1])
    return results


def _run(
    task: RepairTask, settings: Settings, model: LoadedModel, store: SessionStore
) -> MeasuredTask:
    with repository(task.files) as repo:
        report = solve(Task(task.issue, repo, CHECK), settings, model, store=store)
    status, exit_status = status_of(report.result, report.check)
    touched = [line for line in report.patch.splitlines() if line.startswith("diff --git ")]
    own = touched == [f"diff --git a/{task.path} b/{task.path}"]
    calls = [call.name for step in report.result.steps for call in step.message.tool_calls]
    return MeasuredTask(
        task.instance_id,
        task.kind,
        status,
        exit_status == 0 and own,
        len(report.result.steps),
        calls.count("edit"),
        report.result.usage.as_dict(),
    )
