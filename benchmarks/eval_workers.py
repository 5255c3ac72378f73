"""How much faster are 8 workers on one engine than 1? Instances per minute, and tokens prefilled.

    python benchmarks/eval_workers.py [--workers 1 8] [--instances N] [--sandbox KIND]

The instances are the example repositories, several attempts at each with different seeds, with the
embedded model in Docker (or `--sandbox KIND`), sampled, at most `--max-steps` turns.
Every number of workers does the same attempts, each in a fresh folder. The results of the two runs
are compared: with kernels whose rows do not depend on each other they are equal, else nearly so.
The record goes to benchmarks/results/eval_workers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from agent.loading import load_model
from evals.begin import Options, begin
from evals.rundir import RunFolder

RECORD = Path(__file__).resolve().parent / "results" / "eval_workers.json"


def cpu_s() -> float:
    """Processor seconds of this process and of its children so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def run(folder: Path, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run; what it took."""
    flags = {
        "sandbox": options.sandbox,
        "seed": 1,
        "max_steps": options.max_steps,
        "max_turn_tokens": 256,
    }
    attempts = -(-options.instances // 11)
    model = load_model("embedded")
    chosen = Options(options.suite, None, folder, workers=workers, attempts=attempts)
    began, used = perf_counter(), cpu_s()
    begin(chosen, flags, model=model)
    seconds, used = perf_counter() - began, cpu_s() - used
    results = RunFolder(folder).results()

    def total(name: str) -> float:
        return sum(result.usage[name] for result in results.values())

    new = total("context_tokens") - total("generated_tokens")
    scheduler = model.engine.scheduler
    return {
        "workers": workers,
        "attempts": len(results),
        "seconds": round(seconds, 1),
        "attempts_per_minute": round(60 * len(results) / seconds, 2),
        "processor_s": round(used, 1),
        "prefilled_per_new_token": round(
            (total("prefilled_tokens") + total("shared_tokens")) / new, 3
        ),
        "generated_per_s": round(total("generated_tokens") / seconds, 1),
        "passes": scheduler.passes,
        "tokens_per_pass": round((scheduler.passes + scheduler.joined) / scheduler.passes, 2),
        "in_all": {
            name: round(total(name), 1) for name in ("prefill_s", "decode_s", "tool_s", "wall_s")
        },
    }


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--instances", type=int, default=11)
    parser.add_argument("--max-steps", type=int, default=4)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--suite", default="repair")
    parser.add_argument("--output", type=Path, default=RECORD)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenuto-workers-") as scratch:
        os.environ["XDG_STATE_HOME"] = str(Path(scratch) / "state")
        runs = [run(Path(scratch) / str(n), n, options) for n in options.workers]
        found = [RunFolder(Path(scratch) / str(n)).results() for n in options.workers]
    same = sum(found[0][key].patch == found[-1][key].patch for key in found[0])
    record = {
        "what": "example repositories, embedded model, one engine",
        "sandbox": options.sandbox,
        "suite": Path(options.suite).name,
        "max_steps": options.max_steps,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "runs": runs,
        "speed_up": round(runs[-1]["attempts_per_minute"] / runs[0]["attempts_per_minute"], 2),
        "equal_patches": f"{same} of {len(found[0])}",
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
