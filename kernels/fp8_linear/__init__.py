"""Matrix products with weights in blocks of 8-bit floating point numbers."""

from __future__ import annotations

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.fp8_linear import reference
from kernels.fp8_linear.reference import Fp8Weight, round_to_fp8

__all__ = ["Fp8Weight", "fp8_linear", "round_to_fp8"]


def fp8_linear(x: Tensor, weight: Fp8Weight, *, backend: Backend = "torch") -> Tensor:
    """Run ``reference.fp8_linear`` by the implementation for the device."""
    if backend == "triton":
        require_triton("fp8_linear", x, weight.data, weight.scales)
        from kernels.fp8_linear import triton

        return triton.fp8_linear(x, weight)
    return reference.fp8_linear(x, weight)
