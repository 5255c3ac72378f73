"""Measure how fast an engine runs on this machine."""

from __future__ import annotations

import resource
import time
from typing import Any

import torch

from model.engine import Engine
from model.sampling import SamplingParams

_READ_BYTES = 256 << 20


def measure(engine: Engine, prompt: int, decode: int) -> dict[str, Any]:
    """Run ``prompt`` tokens and decode ``decode`` more; return rates in tokens a second.

    ``bandwidth_share`` is the weights read for each decoded token over what one pass over a large
    tensor reads in the same time. Memory is the process's peak in bytes.
    """
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(engine.network.vocab_size, (prompt,), generator=random).tolist()
    greedy = SamplingParams(temperature=0.0)
    warm = engine.session()
    warm.extend(ids[: min(16, prompt)])
    list(warm.generate(greedy, max_tokens=2, stop_ids=frozenset()))
    warm.close()
    session = engine.session()
    start = time.perf_counter()
    session.extend(ids)
    list(session.generate(greedy, max_tokens=1, stop_ids=frozenset()))
    prefilled = time.perf_counter()
    count = len(list(session.generate(greedy, max_tokens=decode, stop_ids=frozenset())))
    done = time.perf_counter()
    session.close()
    placed = engine.placement
    weights = 0 if placed is None else placed.weight_bytes
    device = "cpu" if placed is None else placed.device
    rate = count / (done - prefilled)
    bandwidth = read_bandwidth(torch.device(device))
    return {
        "device": device,
        "prefill_tokens_per_s": prompt / (prefilled - start),
        "decode_tokens_per_s": rate,
        "weight_bytes": weights,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "read_bandwidth_bytes_per_s": bandwidth,
        "bandwidth_share": weights * rate / bandwidth,
    }


def read_bandwidth(device: torch.device) -> float:
    """Return the bytes a second that a sum over a large tensor reads; the best of three."""
    numbers = torch.ones(_READ_BYTES // 4, device=device)
    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        numbers.sum().item()
        best = max(best, _READ_BYTES / (time.perf_counter() - start))
    return best
