"""Matrix products with a weight, plain or quantised."""

from __future__ import annotations

from kernels.linear.blocks import dequantize, from_codes, from_integers, plain
from kernels.linear.embedding import StoredTable, Table, embed
from kernels.linear.formats import (
    BLOCK,
    INT4,
    INT8,
    Code,
    Part,
    QuantizedWeight,
    StackedWeight,
    Weight,
    join,
    join_exactly,
    stack,
)
from kernels.linear.reference import linear
from kernels.linear.rounding import quantize
from kernels.linear.stored_rows import StoredRows

__all__ = [
    "BLOCK",
    "INT4",
    "INT8",
    "Code",
    "Part",
    "QuantizedWeight",
    "StackedWeight",
    "StoredRows",
    "StoredTable",
    "Table",
    "Weight",
    "dequantize",
    "embed",
    "from_codes",
    "from_integers",
    "join",
    "join_exactly",
    "linear",
    "plain",
    "quantize",
    "stack",
]
