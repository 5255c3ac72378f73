"""Measure what fork, snapshot, restore, save and load cost, against the length of the context.

    python -m benchmarks.state [--contexts 1024 8192 32768 131072] [--big] [--record]

On a small configuration (5 million parameters, float32), with sessions whose states are put
together from random keys and values, since only their size matters here. First it is checked on a
real session that a fork, a restored snapshot and a loaded save go on bit for bit as the original.

``left for its first token`` is what the first token of a fork costs more than its second: the page
that both have begun is copied then. ``save of a step`` adds 200 tokens to a session that was saved
before. ``--big`` also compares loading 8,192 tokens with prefilling them, in the 0.8B shape in
bfloat16; ``--prefill`` says how many of them to prefill (the rest is taken to cost as much, which
flatters prefilling).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.support.random_model import random_engine
from benchmarks.support.recording import machine, record
from model import persist
from model.engine import Engine
from model.hybrid.model import HybridNetwork
from model.sampling import SamplingParams
from model.session import Session
from model.state.pages import PAGE

GREEDY = SamplingParams(temperature=0.0)
NEVER: frozenset[int] = frozenset()
STEP = 200


def layout_of(engine: Engine) -> Any:
    """Return the engine's state layout."""
    assert isinstance(engine.network, HybridNetwork)
    return engine.network.layout


def made_up(engine: Engine, length: int, folder: Path) -> Session:
    """Return a session of ``length`` tokens that nobody prefilled."""
    lay = layout_of(engine)
    layers, two, heads, _, dim = lay.page
    generator = torch.Generator().manual_seed(length)

    def cut(start: int, end: int) -> dict[str, torch.Tensor]:
        shape = (end - start, layers, two, heads, dim)
        kv = torch.randn(shape, generator=generator).to(lay.dtype)
        return {"ids": torch.zeros(end - start, dtype=torch.int32), "kv": kv}

    point = {
        "network.conv": torch.randn(lay.conv, generator=generator).to(lay.dtype),
        "network.recurrent": torch.randn(lay.recurrent, generator=generator) * 0.01,
        "logits": torch.randn(engine.network.vocab_size, generator=generator),
        "generator": torch.Generator().get_state(),
    }
    record_ = {
        "fingerprint": engine.fingerprint,
        "state_length": length,
        "pending": [],
        "turn_start": length,
        "usage": {},
    }
    persist.write(folder, record_, point, length, (), cut)
    return engine.resume(folder)


def say(session: Session, count: int) -> list[int]:
    """Greedy ids."""
    return [e.id for e in session.generate(GREEDY, max_tokens=count, stop_ids=NEVER)]


def check(engine: Engine, folder: Path) -> None:
    """Check that every way back goes on bit for bit."""
    session = engine.session()
    session.extend(list(range(1000)))
    say(session, 3)
    point = session.snapshot()
    session.save(folder)
    expected = [(e.id, e.logprob) for e in session.generate(GREEDY, max_tokens=20, stop_ids=NEVER)]
    session.restore(point)
    for other in (session.fork(), session, engine.resume(folder)):
        got = [(e.id, e.logprob) for e in other.generate(GREEDY, max_tokens=20, stop_ids=NEVER)]
        assert got == expected


def median_ms(work: Callable[[], Any], repeats: int) -> float:
    """Milliseconds of one call."""
    times = []
    for _ in range(repeats):
        started = perf_counter()
        work()
        times.append(perf_counter() - started)
    return statistics.median(times) * 1000


def measure(engine: Engine, length: int, folder: Path, repeats: int) -> dict[str, float]:
    """Measure the costs at one length, in milliseconds."""
    session = made_up(engine, length, folder / "made")
    point = session.snapshot()
    forks: list[Session] = []
    result = {
        "fork": median_ms(lambda: forks.append(session.fork()), 200),
        "snapshot": median_ms(session.snapshot, 200),
        "restore": median_ms(lambda: session.restore(point), 200),
    }

    def token(twin: Session) -> float:
        started = perf_counter()
        say(twin, 1)
        twin.extend([1])
        return (perf_counter() - started) * 1000

    # All but the first fork find the tip page taken and copy it.
    extra = [token(twin) - token(twin) for twin in forks[: repeats * 4]]
    forks.clear()
    result["left for its first token"] = statistics.median(extra)
    saves, sizes = [], []
    for _ in range(repeats):
        session.extend([1] * STEP)
        before = {path.name for path in (folder / "made" / "state").iterdir()}
        saves.append(median_ms(lambda: session.save(folder / "made"), 1))
        new = [p for p in (folder / "made" / "state").iterdir() if p.name not in before]
        sizes.append(sum(path.stat().st_size for path in new) / 2**20)
    result["save of a step"] = statistics.median(saves)
    result["written by it, MiB"] = statistics.median(sizes)
    result["load"] = median_ms(lambda: engine.resume(folder / "made").close(), repeats)
    return result


def big(folder: Path, tokens: int, prefill: int) -> dict[str, float]:
    """Loading against prefilling in the 0.8B shape."""
    engine = random_engine("qwen3_5_0.8b", torch.bfloat16)
    made_up(engine, tokens, folder / "big").close()
    load_s = median_ms(lambda: engine.resume(folder / "big").close(), 3) / 1000
    session = engine.session()
    started = perf_counter()
    session.extend([i % 1000 for i in range(prefill)])
    prefill_s = (perf_counter() - started) * tokens / prefill
    return {
        "tokens": tokens,
        "prefilled_to_measure": prefill,
        "load_s": load_s,
        "prefill_s": prefill_s,
        "ratio": prefill_s / load_s,
    }


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 8192, 32768, 131072])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--big", action="store_true")
    parser.add_argument("--prefill", type=int, default=1024)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    engine = random_engine("small", torch.float32, context_length=1 << 20)
    lay = layout_of(engine)
    result: dict[str, Any] = {
        **machine(),
        "slot_bytes": lay.slot_bytes,
        "page_bytes": lay.page_bytes,
        "page_tokens": PAGE,
        "step_tokens": STEP,
        "ms": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        check(engine, folder / "check")
        for length in options.contexts:
            costs = measure(engine, length, folder / str(length), options.repeats)
            result["ms"][length] = costs
            print(f"{length:7} tokens: " + ", ".join(f"{k} {v:.3f}" for k, v in costs.items()))
        if options.big:
            torch.set_num_threads(2)
            result["load_against_prefill_0.8b"] = costs = big(folder, 8192, options.prefill)
            print("0.8B: " + ", ".join(f"{k} {v:.3g}" for k, v in costs.items()))
    if options.record:
        record("state", result)


if __name__ == "__main__":
    main()
