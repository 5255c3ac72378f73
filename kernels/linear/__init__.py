"""Matrix products with a weight, plain or quantised."""

from __future__ import annotations

from kernels.linear.formats import (
    Part,
    QuantizedWeight,
    StackedWeight,
    Weight,
    dequantize,
    from_integers,
    packed,
    plain,
    quantize,
    stack,
)
from kernels.linear.reference import linear

__all__ = [
    "Part",
    "QuantizedWeight",
    "StackedWeight",
    "Weight",
    "dequantize",
    "from_integers",
    "linear",
    "packed",
    "plain",
    "quantize",
    "stack",
]
