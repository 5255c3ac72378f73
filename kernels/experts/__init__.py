"""The routed experts of a mixture-of-experts layer: their choice and their products."""

from __future__ import annotations

from kernels.experts.reference import experts, route
from kernels.experts.stacks import ExpertStack, ExpertWeight

__all__ = ["ExpertStack", "ExpertWeight", "experts", "route"]
