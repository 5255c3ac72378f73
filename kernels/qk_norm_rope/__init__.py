"""Head normalisation, rotation and gate split of an attention layer's input projection."""

from __future__ import annotations

from torch import Tensor

from kernels.backend import Backend, require_triton
from kernels.qk_norm_rope import reference

__all__ = ["qk_norm_rope"]


def qk_norm_rope(
    projected: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    *,
    heads: int,
    kv_heads: int,
    backend: Backend = "torch",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run ``reference.qk_norm_rope`` by the implementation for the device."""
    if backend == "triton":
        require_triton("qk_norm_rope", projected, query_weight, key_weight, cos, sin)
        from kernels.qk_norm_rope import triton

        run = triton.qk_norm_rope
    else:
        run = reference.qk_norm_rope
    return run(projected, query_weight, key_weight, cos, sin, eps, heads=heads, kv_heads=kv_heads)
