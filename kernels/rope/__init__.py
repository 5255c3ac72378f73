"""Rotary position embedding on a part of each head, with interleaved multimodal positions."""

from __future__ import annotations

from kernels.rope.reference import Yarn, frequencies, rope, tables

__all__ = ["Yarn", "frequencies", "rope", "tables"]
