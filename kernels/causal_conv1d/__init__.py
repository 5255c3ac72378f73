"""A short causal convolution over time, one filter a channel, whose last inputs are carried on."""

from __future__ import annotations

from kernels.causal_conv1d.reference import causal_conv1d

__all__ = ["causal_conv1d"]
