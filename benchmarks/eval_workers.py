"""Measure how much faster 8 workers on one engine are than 1, in instances
per minute and tokens prefilled.

    python -m benchmarks.eval_workers [--workers 1 8] [--instances N] [--sandbox KIND]
        [--shape qwen3_5_0.8b] [--record NAME]

The instances are the example repositories, several attempts at each with different seeds, with the
embedded model in Docker (or `--sandbox KIND`), sampled, at most `--max-steps` turns.

With `--shape` it is a network of that shape with random weights whose tokens are forced
(`forced.py`): it computes everything and says what repairs the example, so that every instance
makes real calls in a real container and is graded by its check, at the decode cost of a model of
that size.

Every number of workers does the same attempts, each in a fresh folder. The results of the two runs
are compared: with kernels whose rows do not depend on each other they are equal, else nearly so.
With `--record` it goes into benchmarks/results/eval_workers.json under NAME.
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

from agent.loading import LoadedModel, load_model
from benchmarks.support.forced import ForcedNetwork
from benchmarks.support.random_model import random_engine
from benchmarks.support.recording import machine, record
from benchmarks.support.repairs import repairs
from benchmarks.support.trajectory import chat_format
from evals import grade
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from model.engine import Engine

ENGINE_PROCESSES = ("dockerd", "containerd")


def cpu_s() -> dict[str, float]:
    """Processor seconds so far: of this process, its children, Docker, and the whole machine."""
    tick = os.sysconf("SC_CLK_TCK")
    own, children = (
        (used.ru_utime + used.ru_stime)
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    daemons = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "comm").read_text().strip() in ENGINE_PROCESSES:
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                daemons += sum(map(int, fields[11:13]))
        except OSError:
            continue
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, interrupt, soft = map(int, first[:7])
    return {
        "agent": own,
        "git": children,
        "docker engine": daemons / tick,
        "machine": (user + nice + system + interrupt + soft) / tick,
    }


def forced_model(shape: str, folder: Path) -> LoadedModel:
    """Return the shape with random weights, which says what repairs the examples."""
    chat, tokenizer = chat_format(folder)
    scripts, issues = {}, {}
    for name, (issue, turns) in repairs().items():
        scripts[name] = [tokenizer.encode_markup(said) for said in turns]
        issues[name] = issue

    def which(prompt: Any) -> str:
        text = tokenizer.decode(list(prompt))
        return next((name for name, issue in issues.items() if issue in text), "")

    engine = random_engine(shape, context_length=1 << 15)
    network = ForcedNetwork(engine.network, scripts, which)
    forced = Engine(network, engine.config, name=shape, generation=engine.generation)
    return LoadedModel(forced, chat)


def run(folder: Path, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run; what it took."""
    flags = {
        "sandbox": options.sandbox,
        "seed": 1,
        "max_steps": options.max_steps,
        "max_turn_tokens": 256,
    }
    attempts = -(-options.instances // 11)
    if options.shape:
        model = forced_model(options.shape, folder.with_name(f"chat-{workers}"))
    else:
        model = load_model("embedded")
    chosen = RunOptions(
        options.suite,
        None,
        folder,
        workers=workers,
        attempts=attempts,
        slice=f":{min(options.instances, 11)}",
    )
    # What all prompts begin with is stored by this one, and not part of what is measured.
    first = RunOptions(options.suite, None, folder.with_name(f"first-{workers}"), slice="-1:")
    begin(first, flags | {"max_steps": 1, "max_turn_tokens": 1}, model=model)
    before = model.engine.scheduler.passes, model.engine.scheduler.joined
    began, used = perf_counter(), cpu_s()
    begin(chosen, flags, model=model)
    seconds = perf_counter() - began
    spent = {name: now - used[name] for name, now in cpu_s().items()}
    results = RunFolder(folder).results()

    def total(name: str) -> float:
        return sum(result.usage[name] for result in results.values())

    new = total("context_tokens") - total("generated_tokens")
    passes = model.engine.scheduler.passes - before[0]
    joined = model.engine.scheduler.joined - before[1]
    done = {
        "workers": workers,
        "attempts": len(results),
        "seconds": round(seconds, 1),
        "attempts_per_minute": round(60 * len(results) / seconds, 2),
        "processor_s": {name: round(value, 1) for name, value in spent.items()},
        "busy_cores": round(spent["machine"] / seconds, 2),
        "prefilled_per_new_token": round(
            (total("prefilled_tokens") + total("shared_tokens")) / new, 3
        ),
        "new_tokens": new,
        "shared_tokens": total("shared_tokens"),
        "prefilled_tokens": total("prefilled_tokens"),
        "generated_tokens": total("generated_tokens"),
        "generated_per_s": round(total("generated_tokens") / seconds, 1),
        "passes": passes,
        "tokens_per_pass": round((passes + joined) / passes, 2),
        "in_all": {
            name: round(total(name), 1) for name in ("prefill_s", "decode_s", "tool_s", "wall_s")
        },
    }
    if isinstance(model.engine.network, ForcedNetwork):
        done["digests"] = model.engine.network.digests
        grade.grade(grade.GradeOptions(folder, workers=2))
        verdicts = RunFolder(folder).grades().values()
        done["resolved"] = sum(verdict.resolved is True for verdict in verdicts)
    return done


def main() -> None:
    """Measure, print, and write the record if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--instances", type=int, default=11)
    parser.add_argument("--max-steps", type=int, default=4)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--suite", default="repair")
    parser.add_argument("--shape", default=None)
    parser.add_argument("--record", metavar="NAME", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tenuto-workers-") as scratch:
        os.environ["XDG_STATE_HOME"] = str(Path(scratch) / "state")
        runs = []
        for number in options.workers:
            # A stored beginning of an earlier run would spare this one its prefill.
            os.environ["XDG_CACHE_HOME"] = str(Path(scratch) / f"cache-{number}")
            runs.append(run(Path(scratch) / str(number), number, options))
        results = [RunFolder(Path(scratch) / str(n)).results() for n in options.workers]
    same = sum(results[0][key].patch == results[-1][key].patch for key in results[0])
    digests = [each.pop("digests", {}) for each in runs]
    found = {
        **machine(),
        "what": "example repositories, one engine",
        "model": f"{options.shape}, random weights, forced" if options.shape else "embedded",
        "sandbox": options.sandbox,
        "suite": Path(options.suite).name,
        "max_steps": options.max_steps,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "runs": runs,
        "speed_up": round(runs[-1]["attempts_per_minute"] / runs[0]["attempts_per_minute"], 2),
        "equal_patches": f"{same} of {len(results[0])}",
    }
    if options.shape:
        equal = sum(digests[0][name] == digests[-1].get(name) for name in digests[0])
        found["equal_logits"] = f"{equal} of {len(digests[0])} instances, to the bit"
    if options.record:
        record("eval_workers", found, under=options.record)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
