"""Causal grouped-query attention over a cache, with an output gate."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from kernels.attention import reference
from kernels.attention.reference import attention
from kernels.backend import Backend, require_triton

__all__ = ["attention", "paged_attention"]


def paged_attention(
    query: Tensor,
    pages: Sequence[Sequence[Tensor]],
    layer: int,
    lengths: Sequence[int],
    gate: Tensor,
    *,
    backend: Backend = "torch",
) -> Tensor:
    """Run ``reference.paged_attention`` by the implementation for the device."""
    if backend == "triton":
        require_triton("paged_attention", query, gate, pages[0][0])
        from kernels.attention import triton

        return triton.paged_attention(query, pages, layer, lengths, gate)
    return reference.paged_attention(query, pages, layer, lengths, gate)
