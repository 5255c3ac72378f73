"""Measure how fast a small model decodes and prefills on this CPU. Random weights, one thread.

    python -m benchmarks.decode [--threads N] [--context TOKENS] [--torch]

The model has the shape of the embedded one: about 5 million parameters in 8 layers. Both wall
and processor time are printed: on a busy machine only the latter says something of the code.
"""

from __future__ import annotations

import argparse
from time import perf_counter, process_time

import torch

from benchmarks.support.random_model import random_engine
from model.checkpoint.weights import parameter_count


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--torch", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = random_engine("small", torch.float32, native=not options.torch)
    session = engine.session()
    ids = torch.randint(4096, (options.context,)).tolist()
    session.extend(ids[:64])
    list(session.generate(engine.generation, max_tokens=16, stop_ids=frozenset()))

    started = perf_counter()
    session.extend(ids)
    prefill = len(ids) / (perf_counter() - started)
    rates: list[float] = []
    busy_rates: list[float] = []
    for _ in range(5):
        started, busy = perf_counter(), process_time()
        said = list(session.generate(engine.generation, max_tokens=100, stop_ids=frozenset()))
        rates.append(len(said) / (perf_counter() - started))
        busy_rates.append(len(said) / (process_time() - busy))
    rates.sort()
    busy_rates.sort()
    print(
        f"{parameter_count(engine.config) / 1e6:.1f}M parameters, {options.threads} thread(s),"
        f" context {options.context}, {'torch' if options.torch else 'compiled'}:"
        f" prefill {prefill:.0f} tokens/s,"
        f" decode {rates[2]:.0f} tokens/s (median of 5, {rates[0]:.0f} to {rates[-1]:.0f}),"
        f" {busy_rates[2]:.0f} tokens per processor second"
    )


if __name__ == "__main__":
    main()
