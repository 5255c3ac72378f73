"""Root-mean-square normalisation: plain, zero-centred, gated, and after a residual sum."""

from __future__ import annotations

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.rms_norm import reference

__all__ = ["add_rms_norm", "gated_rms_norm", "rms_norm"]


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    *,
    zero_centred: bool = False,
    backend: Backend = "torch",
) -> Tensor:
    """Run ``reference.rms_norm`` by the implementation for the device."""
    if backend == "triton":
        require_triton("rms_norm", x, weight)
        from kernels.rms_norm import triton

        return triton.rms_norm(x, weight, eps, zero_centred=zero_centred)
    return reference.rms_norm(x, weight, eps, zero_centred=zero_centred)


def gated_rms_norm(
    x: Tensor, gate: Tensor, weight: Tensor, eps: float, *, backend: Backend = "torch"
) -> Tensor:
    """Run ``reference.gated_rms_norm`` by the implementation for the device."""
    if backend == "triton":
        require_triton("gated_rms_norm", x, gate, weight)
        from kernels.rms_norm import triton

        return triton.gated_rms_norm(x, gate, weight, eps)
    return reference.gated_rms_norm(x, gate, weight, eps)


def add_rms_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor,
    eps: float,
    *,
    zero_centred: bool = False,
    backend: Backend = "torch",
) -> tuple[Tensor, Tensor]:
    """Run ``reference.add_rms_norm`` by the implementation for the device."""
    if backend == "triton":
        require_triton("add_rms_norm", x, residual, weight)
        from kernels.rms_norm import triton

        return triton.add_rms_norm(x, residual, weight, eps, zero_centred=zero_centred)
    return reference.add_rms_norm(x, residual, weight, eps, zero_centred=zero_centred)
