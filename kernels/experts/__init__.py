"""The routed experts of a mixture-of-experts layer: their choice and their products."""

from __future__ import annotations

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.experts import reference
from kernels.experts.reference import route
from kernels.experts.stacks import DeviceStack, ExpertStack, ExpertWeight

__all__ = ["DeviceStack", "ExpertStack", "ExpertWeight", "experts", "route"]


def experts(
    x: Tensor,
    chosen: Tensor,
    weights: Tensor,
    gate_up: ExpertWeight,
    down: ExpertWeight,
    *,
    backend: Backend = "torch",
) -> Tensor:
    """Run ``reference.experts`` by the implementation for the device."""
    if backend == "triton":
        require_triton("experts", x)
        from kernels.experts import triton

        return triton.experts(x, chosen, weights, gate_up, down)
    return reference.experts(x, chosen, weights, gate_up, down)
