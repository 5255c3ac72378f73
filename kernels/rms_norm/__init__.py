"""Root-mean-square normalisation: plain, zero-centred, and gated."""

from __future__ import annotations

from kernels.rms_norm.reference import gated_rms_norm, rms_norm

__all__ = ["gated_rms_norm", "rms_norm"]
