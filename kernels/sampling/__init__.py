"""Sampling: from the logits of one position to one token id."""

from __future__ import annotations

from kernels.sampling.reference import log_probability, presence_penalty, sample

__all__ = ["log_probability", "presence_penalty", "sample"]
