"""Measure what drafts bring on a recorded trajectory, and check that they change nothing.

    python -m benchmarks.speculation [--shape qwen3_5_0.8b] [--steps 30] [--first 8] [--threads N]
        [--record NAME]

First the same prompt is answered with and without drafts, greedy and sampled: ids and
log-probabilities must be equal to the bit, or nothing is measured. Then the recorded trajectory
(``record_trajectory.py``) is decoded with and without drafts. The weights are random, so each token
is forced to be what the model said in the recording: how often a copy is right is a property of
that text, and what passes cost is real. Prompts are not timed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import model.session as sessions
from benchmarks.agent_trajectory import Pair, engine_of, trajectory
from benchmarks.support.recording import machine, record
from benchmarks.support.trajectory import chat_format
from model.engine import Engine
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.session import Session


class Forced:
    """Stands for ``sampling.choose``: the recorded ids, one after the other."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def __call__(self, *_: Any) -> tuple[int, float]:
        return self.ids.pop(0), 0.0


def check(engine: Engine, prompt: list[int]) -> None:
    """Drafts must change nothing."""
    for params in (SamplingParams(temperature=0.0), SamplingParams()):
        said = []
        for drafts in (False, True):
            session = Session(Scheduler(engine.network, drafts=drafts), seed=7)
            session.extend(prompt)
            said.append(list(session.generate(params, max_tokens=40, stop_ids=frozenset())))
        assert said[0] == said[1], "drafts have changed what is said"


def decode(engine: Engine, pairs: list[Pair], drafts: bool, first: int) -> dict[str, Any]:
    """Return the recorded turns from step ``first`` on, token by token."""
    session = Session(Scheduler(engine.network, drafts=drafts))
    forced = Forced()
    sessions.choose = forced  # type: ignore[assignment]
    before = session.usage
    for number, (prompt, said) in enumerate(pairs):
        session.extend(prompt)
        if number < first:
            session.extend(said)
            before = session.usage
            continue
        forced.ids = list(said)
        for _ in session.generate(SamplingParams(), max_tokens=len(said), stop_ids=frozenset()):
            pass
    usage = session.usage - before
    assert session.ids == tuple(i for pair in pairs for ids in pair for i in ids)
    return {
        "tokens": usage.generated_tokens,
        "seconds": round(usage.decode_s, 3),
        "tokens_per_s": round(usage.generated_tokens / usage.decode_s, 2),
        "drafted": usage.drafted_tokens,
        "accepted": usage.accepted_tokens,
    }


def main() -> None:
    """Check, measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen3_5_0.8b")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--first", type=int, default=8, help="steps that are only read")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--record", metavar="NAME", help="write benchmarks/results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        pairs = trajectory(*chat_format(Path(name)), options.steps)
    engine, path = engine_of(options.shape, None)
    started = perf_counter()
    check(engine, pairs[0][0][-300:])
    print(f"{options.shape}, {path}: equal with and without ({perf_counter() - started:.0f} s)")
    found = {}
    for name, drafts in (("without", False), ("with", True)):
        found[name] = decode(engine, pairs, drafts, options.first)
        print(name, found[name], flush=True)
    ratio = found["with"]["tokens_per_s"] / found["without"]["tokens_per_s"]
    print(f"with drafts {ratio:.2f} times as fast")
    if options.record:
        record(
            options.record, {**machine(), "shape": options.shape, "ratio": round(ratio, 3), **found}
        )


if __name__ == "__main__":
    main()
