"""Rounding of weights to 8 or 4 bits by groups."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kernels.backend import KernelError
from kernels.linear.blocks import lay_out
from kernels.linear.formats import BLOCK, INT4, INT8, SIZES, QuantizedWeight
from kernels.native import native

GROUPS = (128, 64, 32)
"""Sizes of a group that are tried in turn."""

_CODES = {4: INT4, 8: INT8}
_CLIPS = (1.0, 0.94, 0.88, 0.82, 0.76)


def group_for(inputs: int) -> int:
    """Return the largest of ``GROUPS`` that divides ``inputs``. Raises ``KernelError``."""
    for group in GROUPS:
        if inputs % group == 0:
            return group
    raise KernelError(
        f"a matrix with {inputs} inputs cannot be quantised: no group of {GROUPS} divides it; "
        "use quantize none"
    )


def quantize(weight: Tensor, bits: int, group: int | None = None) -> QuantizedWeight:
    """Return ``weight [outputs, inputs]`` rounded to ``bits`` 8 or 4, by groups of ``group``
    inputs.

    int8 takes the largest magnitude of a group as 127. int4 takes the largest one as -8 (a scale
    may be negative), or a clipped range where that lowers the squared error. Raises
    ``KernelError`` if the group does not divide the inputs.
    """
    outputs, inputs = weight.shape
    group = group_for(inputs) if group is None else group
    if bits not in (4, 8):
        raise KernelError(f"weights of {bits} bits are not supported; use 8 or 4")
    if group not in SIZES or inputs % group:
        raise KernelError(
            f"groups of {group} do not divide {inputs} inputs; use one of {GROUPS} that does"
        )
    blocks = -(-outputs // BLOCK)
    data = torch.empty(blocks, inputs * BLOCK * bits // 8, dtype=torch.uint8)
    scales = torch.empty(blocks, inputs // group, BLOCK, dtype=torch.bfloat16)
    library = native()
    if library is not None and weight.dtype in (torch.bfloat16, torch.float32):
        source = weight.detach().cpu().contiguous()
        threads = torch.get_num_threads()
        scratch = torch.empty(threads, inputs)
        library.call.tenuto_quantize(
            source.data_ptr(),
            source.dtype == torch.bfloat16,
            outputs,
            inputs,
            group,
            bits,
            data.data_ptr(),
            scales.data_ptr(),
            scratch.data_ptr(),
            threads,
        )
    else:
        _quantize_reference(weight, bits, group, data, scales)
    return QuantizedWeight(_CODES[bits], group, outputs, inputs, data, scales)


def _quantize_reference(
    weight: Tensor, bits: int, group: int, data: Tensor, scales: Tensor
) -> None:
    outputs, inputs = weight.shape
    padded = torch.zeros(data.shape[0] * BLOCK, inputs)
    padded[:outputs] = weight.detach().float()
    grouped = padded.reshape(-1, inputs // group, group)
    top = grouped.gather(-1, grouped.abs().argmax(-1, keepdim=True))
    if bits == 8:
        scale = (top.abs() / 127).bfloat16().float()
    else:
        scale = torch.zeros_like(top)
        least = torch.full_like(top, math.inf)
        for clip in _CLIPS:
            tried = (top / -8 * clip).bfloat16().float()
            error = (grouped - _rounded(grouped, tried, bits) * tried).square().sum(-1, True)
            better = (error < least) & (tried != 0)
            scale, least = torch.where(better, tried, scale), torch.where(better, error, least)
    codes = _CODES[bits].codes(_rounded(grouped, scale, bits))
    data.copy_(lay_out(codes.reshape(-1, inputs), bits))
    scales.copy_(scale.reshape(-1, BLOCK, inputs // group).transpose(1, 2))


def _rounded(values: Tensor, scale: Tensor, bits: int) -> Tensor:
    by = torch.where(scale != 0, 1 / scale, torch.zeros_like(scale))
    low, high = (-127, 127) if bits == 8 else (-8, 7)
    return (values * by).round().clamp(low, high)
