"""The linear map in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.fp8_linear.reference import Fp8Weight, fp8_linear
from kernels.linear.blocks import dequantize
from kernels.linear.formats import QuantizedWeight, StackedWeight, Weight
from kernels.linear.stored_rows import StoredRows


def linear(x: Tensor, weight: Weight) -> Tensor:
    """Multiply ``x [..., inputs]`` by ``weight [outputs, inputs]`` transposed; there are no biases.

    The definition for every form of a weight. A quantised one is turned into a plain tensor at
    each call, which is exact and slow.
    """
    if isinstance(weight, StackedWeight):
        return torch.cat([linear(x, part) for part in weight.parts], dim=-1)
    if isinstance(weight, QuantizedWeight):
        return F.linear(x.float(), dequantize(weight)).to(x.dtype)
    if isinstance(weight, StoredRows):
        return F.linear(x.float(), weight.floats()).to(x.dtype)
    if isinstance(weight, Fp8Weight):
        return fp8_linear(x, weight)
    if weight.dtype != x.dtype:
        return F.linear(x.float(), weight.float()).to(x.dtype)
    return F.linear(x, weight)
