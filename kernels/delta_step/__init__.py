"""A DeltaNet layer's step: all it does between its projections, for a few tokens a sequence."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.delta_step import reference
from kernels.delta_step.reference import SlotTensors

__all__ = ["SlotTensors", "delta_step"]


def delta_step(
    projected: Tensor,
    conv: Tensor,
    decay_rate: Tensor,
    dt_bias: Tensor,
    norm: Tensor,
    eps: float,
    sources: Sequence[SlotTensors | None],
    targets: Sequence[SlotTensors],
    *,
    backend: Backend = "torch",
) -> Tensor:
    """Run ``reference.delta_step`` by the implementation for the device."""
    if backend == "triton":
        require_triton("delta_step", projected, conv, decay_rate, dt_bias, norm)
        from kernels.delta_step import triton

        run = triton.delta_step
    else:
        run = reference.delta_step
    return run(projected, conv, decay_rate, dt_bias, norm, eps, sources, targets)
