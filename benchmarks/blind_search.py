"""Compare the embedded model with blind search: test runs until the check is green.

    python -m benchmarks.blind_search TASKS.jsonl [--limit N] [--arm blind] [--arm 1] [--arm 8]
    python -m benchmarks.blind_search --draw

Blind search tries every module that is one edit away (``support.one_edits``) in random order, in
the same sandbox with the same check as ``agent solve``. An arm that is a number is the model with
that many attempts; its test runs are all commands of all attempts until the first one passed the
check. Arms that are left out keep what the record has of them. TASKS.jsonl is the training
pipeline's ``held_out.jsonl``; tasks are taken as in ``benchmarks.repair``. Correctness comes first:
what a search found counts only if the check passes on a tree made anew. ``--draw`` writes the
picture of the record for the README: the solved share against test runs.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from agent.client import Client
from agent.events import CallDone, Event, FromAttempt
from agent.loading import LoadedModel, load_model
from agent.run.build import open_box, prepare
from agent.run.check import run_check
from agent.run.report import status_of
from agent.run.solve import solve
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from agent.types import Task
from benchmarks.repair import chosen
from benchmarks.support.curves import BUDGETS, after, draw, shares
from benchmarks.support.one_edits import one_edits
from benchmarks.support.recording import machine, read, record
from evals.report.stats import wilson
from evals.scratch import scratch_folder
from evals.suites.repair import CHECK, repository
from evals.training.task import RepairTask
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace

NAME = "blind_search"
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "blind_search.svg"
BLIND = "blind"


@dataclass(frozen=True)
class SearchEnd:
    """The end of a search: the task and its kind, the test runs, and whether it is solved."""

    instance_id: str
    kind: str
    runs: int
    solved: bool
    seconds: float


def blind(task: RepairTask, settings: Settings, seed: int, most: int) -> SearchEnd:
    """Try what is one edit away in random order, at most ``most`` test runs."""
    begun = perf_counter()
    candidates = one_edits(task.module)
    random.Random(f"{seed}:{task.instance_id}").shuffle(candidates)
    runs, solved = 0, False
    with (
        repository(task.files) as repo,
        Workspace.create(repo) as workspace,
        open_box(settings, workspace, f"blind-{runs}") as box,
    ):
        for candidate in candidates[:most]:
            box.write_bytes(task.path, candidate.encode())
            runs += 1
            done = run_check(CHECK, box, timeout_s=settings.check_timeout, stop=Stop())
            if done.passed:
                anew = run_check(
                    CHECK, box, timeout_s=settings.check_timeout, stop=Stop(), anew=True
                )
                solved = anew.passed
                break
    return SearchEnd(task.instance_id, task.kind, runs, solved, perf_counter() - begun)


def by_model(task: RepairTask, settings: Settings, model: LoadedModel) -> SearchEnd:
    """Let the model work on a task, and count the commands of all its attempts."""
    begun, runs = perf_counter(), 0

    def count(event: Event) -> None:
        nonlocal runs
        inner = event.event if isinstance(event, FromAttempt) else event
        runs += isinstance(inner, CallDone) and inner.call.name == "run_shell_command"

    with scratch_folder("search") as state, repository(task.files) as repo:
        asked = Task(task.issue, repo, CHECK)
        report = solve(asked, settings, model, Client(count), store=SessionStore(state))
    touched = [line for line in report.patch.splitlines() if line.startswith("diff --git ")]
    own = touched == [f"diff --git a/{task.path} b/{task.path}"]
    solved = own and status_of(report.result, report.check)[1] == 0
    return SearchEnd(task.instance_id, task.kind, runs, solved, perf_counter() - begun)


def summary(ends: Sequence[SearchEnd]) -> dict[str, object]:
    """Return the solved share with its interval, its curve, and the curves by kind of bug."""
    solved = sum(end.solved for end in ends)
    kinds = sorted({end.kind for end in ends})
    return {
        "tasks": len(ends),
        "solved": solved,
        "interval_95": [round(bound, 4) for bound in wilson(solved, len(ends))],
        "curve": shares(_runs(ends)),
        "by_kind": {kind: shares(_runs([e for e in ends if e.kind == kind])) for kind in kinds},
        "seconds": round(sum(end.seconds for end in ends)),
        "ends": [asdict(end) for end in ends],
    }


def all_curves(found: dict[str, list[SearchEnd]]) -> dict[str, list[float]]:
    """Return the curve of every arm, and of each number of attempts with blind search after it."""
    curves = {_title(name): shares(_runs(ends)) for name, ends in found.items()}
    if BLIND in found:
        later = {end.instance_id: end for end in found[BLIND]}
        for name, ends in found.items():
            if name != BLIND and all(end.instance_id in later for end in ends):
                second = _runs([later[end.instance_id] for end in ends])
                joined = after(_runs(ends), [end.runs for end in ends], second)
                curves[f"{_title(name)}, then blind"] = shares(joined)
    return curves


def main() -> None:
    """Run the arms that are asked for, or draw the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path, nargs="?")
    parser.add_argument("--limit", type=int, default=105)
    parser.add_argument("--arm", action="append", help="blind, or a number of attempts")
    parser.add_argument("--most", type=int, default=BUDGETS[-1], help="test runs of blind search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-steps", type=int, default=14)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    if options.tasks is not None:
        measure(options)
    found = _recorded()
    if options.draw and found:
        PICTURE.write_text(draw(all_curves(found), "Held-out repairs: solved share by test runs"))
        print(f"wrote {PICTURE}")


def measure(options: argparse.Namespace) -> None:
    """Run each arm on the same tasks and record it."""
    tasks = chosen(options.tasks, options.limit, options.seed)
    settings = prepare(
        Settings(
            sandbox=options.sandbox,
            model=options.model,
            seed=options.seed,
            max_steps=options.max_steps,
        )
    )
    model = load_model(options.model)
    for arm in options.arm or [BLIND, "1", "4", "8", "16"]:
        ends = []
        for task in tasks:
            if arm == BLIND:
                end = blind(task, settings, options.seed, options.most)
            else:
                end = by_model(task, settings.model_copy(update={"n": int(arm)}), model)
            ends.append(end)
            word = "solved" if end.solved else "not"
            print(
                f"{arm:6} {word:6} {end.runs:4} runs  {end.kind:11} {end.instance_id}", flush=True
            )
        record(NAME, {**read(NAME), **machine(), **_what(options, model), arm: summary(ends)})
        print(json.dumps({arm: {k: v for k, v in summary(ends).items() if k != "ends"}}, indent=1))


def _what(options: argparse.Namespace, model: LoadedModel) -> dict[str, object]:
    return {
        "what": "held-out one-line repairs: test runs until green, blind search and agent solve",
        "budgets": list(BUDGETS),
        "fingerprint": model.engine.fingerprint,
        "settings": {
            name: getattr(options, name) for name in ("sandbox", "seed", "max_steps", "most")
        },
    }


def _recorded() -> dict[str, list[SearchEnd]]:
    """Return the ends of each arm in the record, blind search first."""
    arms = {
        name: arm for name, arm in read(NAME).items() if isinstance(arm, dict) and "ends" in arm
    }
    order = sorted(arms, key=lambda name: (name != BLIND, int(name) if name != BLIND else 0))
    return {name: [SearchEnd(**end) for end in arms[name]["ends"]] for name in order}


def _runs(ends: Sequence[SearchEnd]) -> list[int | None]:
    return [end.runs if end.solved else None for end in ends]


def _title(arm: str) -> str:
    return "blind search" if arm == BLIND else f"model, --n {arm}"


if __name__ == "__main__":
    main()
