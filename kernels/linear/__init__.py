"""Matrix products with a weight; quantised forms of the weight belong here too."""

from __future__ import annotations

from kernels.linear.reference import linear

__all__ = ["linear"]
