"""Sampling: from the logits of one position to one token id."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.sampling import reference
from kernels.sampling.reference import log_probability, presence_penalty, sample

__all__ = ["log_probability", "presence_penalty", "sample", "sample_batch"]


def sample_batch(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: Sequence[float],
    top_k: Sequence[int],
    top_p: Sequence[float],
    min_p: Sequence[float],
    backend: Backend = "torch",
) -> Tensor:
    """Run ``reference.sample_batch`` by the implementation for the device."""
    if backend == "triton":
        require_triton("sample_batch", logits, uniform)
        from kernels.sampling import triton

        run = triton.sample_batch
    else:
        run = reference.sample_batch
    return run(logits, uniform, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
