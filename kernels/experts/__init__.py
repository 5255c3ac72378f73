"""The routed experts of a mixture-of-experts layer: their choice and their products."""

from __future__ import annotations

from kernels.experts.formats import ExpertStack, ExpertWeight
from kernels.experts.reference import experts, route

__all__ = ["ExpertStack", "ExpertWeight", "experts", "route"]
