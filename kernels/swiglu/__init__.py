"""The gated activation of the feed-forward layers."""

from __future__ import annotations

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.swiglu import reference

__all__ = ["swiglu"]


def swiglu(x: Tensor, *, backend: Backend = "torch") -> Tensor:
    """Run ``reference.swiglu`` by the implementation for the device."""
    if backend == "triton":
        require_triton("swiglu", x)
        from kernels.swiglu import triton

        return triton.swiglu(x)
    return reference.swiglu(x)
