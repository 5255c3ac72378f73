"""Matrix products with weights of 4 or 8 bits, in the layouts of the device kernels."""

from __future__ import annotations

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.quantized_linear import reference
from kernels.quantized_linear.reference import GROUPS, PackedWeight, pack, pack_integers, unpack

__all__ = ["GROUPS", "PackedWeight", "pack", "pack_integers", "quantized_linear", "unpack"]


def quantized_linear(x: Tensor, weight: PackedWeight, *, backend: Backend = "torch") -> Tensor:
    """Run ``reference.quantized_linear`` by the implementation for the device."""
    if backend == "triton":
        require_triton("quantized_linear", x, weight.data, weight.scales)
        from kernels.quantized_linear import triton

        return triton.quantized_linear(x, weight)
    return reference.quantized_linear(x, weight)
