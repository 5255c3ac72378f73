"""Matrix products with a weight, plain or quantised."""

from __future__ import annotations

from kernels.linear.formats import (
    QuantizedWeight,
    StackedWeight,
    Weight,
    dequantize,
    plain,
    quantize,
    stack,
)
from kernels.linear.reference import linear

__all__ = [
    "QuantizedWeight",
    "StackedWeight",
    "Weight",
    "dequantize",
    "linear",
    "plain",
    "quantize",
    "stack",
]
