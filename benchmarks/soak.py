"""Hundreds of random operations on sessions, a plain model beside them, and kills in the middle.

    python -m benchmarks.soak [--operations 500] [--seed 0] [--kills 25] [--kv-memory BYTES]

Sessions of a tiny random network are extended, generated from, forked, snapshot, restored, rewound,
parked, saved, killed with SIGKILL in another process, and resumed. Every 25 operations each live
session must equal, to the last bit of its logits and its state, a session that did only what counts
on an engine without a memory limit; and every byte of state must belong to a session or a snapshot.
Prints one line, and writes it to ``benchmarks/results/soak.json`` with ``--record``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter

from benchmarks.support.recording import machine, record
from model.engine import Engine
from tests.support.make_tiny_checkpoint import make
from tests.support.soak import OPERATIONS, TIGHT, Soak

CHECK_EVERY = 25
WEIGHTS = {"begin": 2, "fork": 2, "fork_seeded": 2, "close": 1}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=500)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kv-memory", type=int, default=TIGHT, help="bytes")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    weights = [WEIGHTS.get(name, 3) for name in OPERATIONS]
    done: Counter[str] = Counter()
    started = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make(Path(folder) / "checkpoint")
        sessions = Path(folder) / "sessions"
        sessions.mkdir()
        engine = Engine.load(checkpoint, name="tiny", kv_memory=options.kv_memory)
        soak = Soak(engine, Engine.load(checkpoint, name="tiny"), sessions)
        kills = set(rng.sample(range(options.operations), options.kills))
        for number in range(options.operations):
            if number in kills:
                soak.kill(rng.choice(soak.lives), checkpoint, rng)
                done["kill"] += 1
            else:
                (operation,) = rng.choices(OPERATIONS, weights)
                soak.do(operation, rng.randrange(6), rng.randrange(2000))
                done[operation] += 1
            if number % CHECK_EVERY == CHECK_EVERY - 1:
                soak.check()
                print(f"{number + 1} operations, {len(soak.lives)} sessions", file=sys.stderr)
        soak.check()
        soak.end()
    counted = ", ".join(f"{count} {name}" for name, count in sorted(done.items()))
    line = (
        f"seed {options.seed}: {options.operations} operations ({counted}) in "
        f"{perf_counter() - started:.0f} s: no difference, no byte and no file left"
    )
    print(line)
    if options.record:
        record("soak", {**machine(), "result": line})


if __name__ == "__main__":
    main()
