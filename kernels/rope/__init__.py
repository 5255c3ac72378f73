"""Rotary position embedding on a part of each head, with interleaved multimodal positions."""

from __future__ import annotations

from kernels.rope.reference import frequencies, rope, tables

__all__ = ["frequencies", "rope", "tables"]
