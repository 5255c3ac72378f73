"""Causal grouped-query attention over a cache, with an output gate."""

from __future__ import annotations

from kernels.attention.reference import attention, paged_attention

__all__ = ["attention", "paged_attention"]
