"""Measure which share of held-out repair tasks `agent solve` repairs in Docker, one attempt each.

    python -m benchmarks.repair TASKS.jsonl [--limit N] [--model NAME] [--temperature T]
        [--quantize int8|int4]

TASKS.jsonl is the `held_out.jsonl` of the training pipeline (`python -m evals.training.pipeline`):
no function in it, nor any other of its source, was in training. Tasks are taken in an order fixed
by the seed, first one of every function, then the second ones. Correctness is the measurement
itself: a task counts when its tests pass in the sandbox and the patch touches the broken module
alone.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch

from agent.loading import LoadedModel, load_model
from agent.run.build import prepare
from agent.settings.table import Settings
from benchmarks.support.recording import machine, record
from evals.report.stats import wilson
from evals.training.measure import MeasuredTask, measure
from evals.training.task import RepairTask, read_tasks


def chosen(path: Path, limit: int, seed: int) -> list[RepairTask]:
    """Return the tasks to run: every function's first bug before any function's second."""
    tasks = list(read_tasks(path))
    random.Random(seed).shuffle(tasks)
    seen: Counter[str] = Counter()
    ranked = []
    for task in tasks:
        key = f"{task.source}.{task.name}"
        ranked.append((seen[key], task))
        seen[key] += 1
    return [task for _, task in sorted(ranked, key=lambda pair: pair[0])][:limit]


def summary(results: list[MeasuredTask]) -> dict[str, object]:
    """Rates, intervals and costs."""
    solved = sum(result.solved for result in results)
    low, high = wilson(solved, len(results))
    kinds: dict[str, list[bool]] = {}
    for result in results:
        kinds.setdefault(result.kind, []).append(result.solved)
    twice = [
        r.usage["prefilled_tokens"]
        + r.usage["generated_tokens"]
        + r.usage["shared_tokens"]
        - r.usage["context_tokens"]
        - r.usage["compacted_tokens"]
        for r in results
    ]
    first = sum(result.solved and result.edits == 1 for result in results)
    return {
        "tasks": len(results),
        "solved": solved,
        "rate": round(solved / max(1, len(results)), 4),
        "interval_95": [round(low, 4), round(high, 4)],
        "solved_with_the_first_edit": first,
        "by_kind": {kind: f"{sum(seen)}/{len(seen)}" for kind, seen in sorted(kinds.items())},
        "by_status": dict(Counter(result.status for result in results)),
        "tokens_prefilled_twice": sum(twice),
        "median_wall_s": round(statistics.median(r.usage["wall_s"] for r in results), 2),
        "median_context_tokens": statistics.median(r.usage["context_tokens"] for r in results),
    }


def main() -> None:
    """Run, print a line a task, and write the record to benchmarks/results/repair.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=None)
    parser.add_argument("--max-steps", type=int, default=30)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--quantize", choices=("none", "int8", "int4"), default="none")
    parser.add_argument("--name", help="write an entry of repair.json, not the whole")
    options = parser.parse_args()
    settings = prepare(
        Settings(
            sandbox=options.sandbox,
            model=options.model,
            seed=options.seed,
            temperature=options.temperature,
            max_steps=options.max_steps,
            quantize=options.quantize,
        )
    )
    model = load_model(options.model, quantize=options.quantize)
    tasks = chosen(options.tasks, options.limit, options.seed)
    solved = 0

    def shown(result: MeasuredTask) -> None:
        nonlocal solved
        solved += result.solved
        mark = "solved" if result.solved else result.status
        print(f"{mark:16} {result.edits:3} edits  {result.kind:11} {result.instance_id}")
        sys.stdout.flush()

    started = perf_counter()
    results: list[MeasuredTask] = []
    broken: dict[str, str] = {}
    try:
        for task in tasks:
            try:
                results += measure([task], settings, model, shown)
            except Exception as error:
                # One task that cannot be run must not cost what the others gave.
                broken[task.instance_id] = f"{type(error).__name__}: {error}"
                print(f"{'raised':16} {task.instance_id}: {broken[task.instance_id]}", flush=True)
    finally:
        write(options.name, settings, model, results, broken, perf_counter() - started)


def write(
    under: str | None,
    settings: Settings,
    model: LoadedModel,
    results: list[MeasuredTask],
    broken: dict[str, str],
    seconds: float,
) -> None:
    """Write the record of what was run, also if it was not all, and print it."""
    found = {
        **machine(),
        "what": "held-out one-line repair tasks, agent solve --n 1",
        "model": model.engine.name,
        "fingerprint": model.engine.fingerprint,
        "settings": {
            "sandbox": settings.sandbox,
            "seed": settings.seed,
            "temperature": settings.temperature,
            "max_steps": settings.max_steps,
            "quantize": settings.quantize,
        },
        "threads": torch.get_num_threads(),
        **(summary(results) if results else {}),
        "raised": broken,
        "total_s": round(seconds),
        "results": [asdict(result) for result in results],
    }
    record("repair", found, under=under)
    print(json.dumps({k: v for k, v in found.items() if k != "results"}, indent=1))


if __name__ == "__main__":
    main()
