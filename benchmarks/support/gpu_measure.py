"""Timing on a CUDA device, shared by the GPU benchmarks."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable

import torch


def require_gpu() -> None:
    """Leave with one line if there is no CUDA device."""
    if not torch.cuda.is_available():
        print("skipped: no CUDA device; benchmarks.aot reports what can be known without one")
        sys.exit(0)


def describe() -> str:
    """Return the device and the versions, in one line."""
    import triton

    name = torch.cuda.get_device_name()
    major, minor = torch.cuda.get_device_capability()
    return f"{name}, sm_{major}{minor}, torch {torch.__version__}, triton {triton.__version__}"


def seconds(run: Callable[[], object], *, repeats: int = 20, flush: bool = True) -> float:
    """Return the median time of ``run`` by CUDA events, after three calls to warm up.

    With ``flush`` the L2 cache is overwritten before each call, so that weights and caches come
    from memory, as they do within a model.
    """
    for _ in range(3):
        run()
    scratch = torch.empty(256 << 20, dtype=torch.int8, device="cuda") if flush else None
    times: list[float] = []
    for _ in range(repeats):
        if scratch is not None:
            scratch.zero_()
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def bandwidth() -> float:
    """Bytes a second of a copy of 2 GB, reads and writes both counted."""
    source = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), repeats=10, flush=False)


def matrix_rate() -> float:
    """Operations a second of a bfloat16 matrix product of 8,192."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / seconds(lambda: a @ b, repeats=10, flush=False)
