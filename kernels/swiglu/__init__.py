"""The gated activation of the feed-forward layers."""

from __future__ import annotations

from kernels.swiglu.reference import swiglu

__all__ = ["swiglu"]
