"""Measure what it brings to decode several sessions in one pass.

    python -m benchmarks.batch [--shape qwen3_5_0.8b] [--sessions 1 2 4 8] [--tokens 24] [--record]

Each session is driven from its own thread, as the attempts of a run are, after a prompt of its own.
First it is checked that every session says greedily what it says alone (if not, where it first
differs, and by how much the logits do, is printed). Then the aggregate decode rate is taken, the
sizes in turn and several times over, and the medians are printed with the ratio to one session.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from time import perf_counter

import torch

from benchmarks.support.random_model import random_engine
from benchmarks.support.recording import machine, record
from model.engine import Engine
from model.sampling import SamplingParams
from model.session import Session

GREEDY = SamplingParams(temperature=0.0)
NEVER: frozenset[int] = frozenset()
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def prompts(engine: Engine, count: int, length: int) -> list[Session]:
    """Sessions that have read different prompts."""
    sessions = []
    for number in range(count):
        session = engine.session(seed=number)
        generator = torch.Generator().manual_seed(number)
        ids = torch.randint(engine.config.vocab_size, (length + number,), generator=generator)
        session.extend(ids.tolist())
        sessions.append(session)
    return sessions


def say(session: Session, tokens: int) -> list[int]:
    """Greedy ids."""
    return [e.id for e in session.generate(GREEDY, max_tokens=tokens, stop_ids=NEVER)]


def together(sessions: list[Session], tokens: int) -> tuple[list[list[int]], float]:
    """Let forks of ``sessions`` speak in threads; return it and the seconds that took."""
    forks = [session.fork() for session in sessions]
    barrier = Barrier(len(forks) + 1)

    def drive(session: Session) -> list[int]:
        barrier.wait()
        return say(session, tokens)

    with ThreadPoolExecutor(len(forks)) as pool:
        futures = [pool.submit(drive, fork) for fork in forks]
        barrier.wait()
        started = perf_counter()
        said = [future.result() for future in futures]
        took = perf_counter() - started
    for fork in forks:
        fork.close()
    return said, took


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="qwen3_5_0.8b")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--torch", action="store_true", help="not the compiled path")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = random_engine(options.shape, DTYPES[options.dtype], native=not options.torch)
    sessions = prompts(engine, max(options.sessions), options.prompt)

    alone = [say(session.fork(), options.tokens) for session in sessions[:8]]
    joined, _ = together(sessions[:8], options.tokens)
    equal = sum(a == b for a, b in zip(alone, joined, strict=True))
    print(f"{equal} of {len(alone)} sessions say the same alone and in a pass of {len(alone)}")

    rates: dict[int, list[float]] = {count: [] for count in options.sessions}
    for _ in range(options.repeats):
        for count in options.sessions:
            _, took = together(sessions[:count], options.tokens)
            rates[count].append(count * options.tokens / took)
    medians = {count: statistics.median(each) for count, each in rates.items()}
    first = medians[options.sessions[0]]
    for count, rate in medians.items():
        low, high = min(rates[count]), max(rates[count])
        print(
            f"{count:3} sessions: {rate:7.1f} tokens/s ({low:.1f} to {high:.1f}), "
            f"{rate / first:.2f} times one"
        )
    if options.record:
        record(
            f"batch_{options.shape}",
            {
                **machine(),
                "path": "torch" if options.torch else "compiled",
                "dtype": options.dtype,
                "threads": options.threads,
                "prompt_tokens": options.prompt,
                "tokens": options.tokens,
                "sessions_equal_to_alone": f"{equal} of {len(alone)}",
                "tokens_per_s": medians,
                "ratio_to_one": {count: rate / first for count, rate in medians.items()},
            },
        )


if __name__ == "__main__":
    main()
