"""Products with packed weights in Triton.

Weights become numbers in registers, and their scale is applied to the sum over a group: integers
up to 8 bits and e4m3 numbers are exact in bfloat16, so the only rounding is that of the packing.
One row of activations is a sum of products over whole rows of the weight, bound by memory; more
rows go through the matrix units.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import backend
from kernels.backend import KernelError, interpreting
from kernels.quantized_linear.reference import PackedWeight

_AT_ONCE = 4
"""Groups that a matrix-vector program reads together."""


@triton.jit
def _numbers(bits, FP8: tl.constexpr):
    """int8 as they are; the bits of e4m3 numbers as these, divided by 256."""
    if FP8:
        # Both formats have the exponent above the mantissa: shifted into a float16 it is off by
        # the difference of their biases, 8, and subnormal numbers come out right too.
        wide = bits.to(tl.uint16)
        return (((wide & 0x80) << 8) | ((wide & 0x7F) << 7)).to(tl.float16, bitcast=True)
    else:
        return bits


@triton.jit
def _vector(
    x,
    data,
    scales,
    out,
    outputs,
    groups,
    INT4: tl.constexpr,
    FP8: tl.constexpr,
    ROWS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    GROUP: tl.constexpr,
):
    width: tl.constexpr = GROUP // 2 if INT4 else GROUP
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    part = tl.arange(0, AT_ONCE)
    inner = tl.arange(0, width)
    start = data + row.to(tl.int64)[:, None, None] * (groups * width)
    total = tl.zeros([ROWS, AT_ONCE, width], tl.float32)
    for first in range(0, groups, AT_ONCE):
        group = first + part
        there = group < groups
        mask = (row < outputs)[:, None, None] & there[None, :, None]
        at = (group[:, None] * width + inner[None, :])[None, :, :]
        packed = tl.load(start + at, mask=mask, other=0)
        if FP8:
            at_scale = (row // GROUP)[:, None] * groups + group[None, :]
        else:
            at_scale = row[:, None] * groups + group[None, :]
        scale_mask = (row < outputs)[:, None] & there[None, :]
        scale = tl.load(scales + at_scale, mask=scale_mask, other=0.0).to(tl.float32)
        from_x = x + group[:, None] * GROUP + inner[None, :]
        left = tl.load(from_x, mask=there[:, None] & (inner >= 0)[None, :], other=0.0)
        if INT4:
            right = tl.load(from_x + width, mask=there[:, None] & (inner >= 0)[None, :], other=0.0)
            low = ((packed & 15).to(tl.int32) - 8).to(tl.float32)
            high = ((packed >> 4).to(tl.int32) - 8).to(tl.float32)
            product = low * left.to(tl.float32)[None, :, :]
            product += high * right.to(tl.float32)[None, :, :]
        else:
            product = _numbers(packed, FP8).to(tl.float32) * left.to(tl.float32)[None, :, :]
        total += product * scale[:, :, None]
    result = tl.sum(tl.sum(total, axis=2), axis=1)
    if FP8:
        result *= 256.0
    tl.store(out + row, result.to(out.dtype.element_ty), mask=row < outputs)


@triton.jit
def _matrix(
    x,
    data,
    scales,
    out,
    rows,
    outputs,
    groups,
    x_stride,
    out_stride,
    INT4: tl.constexpr,
    FP8: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    HALF: tl.constexpr,
    DOT: tl.constexpr,
):
    # Programs with the same columns run together and share the weight in the L2 cache.
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, HALF)
    present = (row < rows)[:, None] & (inner >= 0)[None, :]
    exists = (column < outputs)[:, None] & (inner >= 0)[None, :]
    from_x = x + row.to(tl.int64)[:, None] * x_stride + inner[None, :]
    stride = groups * (HALF if INT4 else GROUP)
    from_data = data + column.to(tl.int64)[:, None] * stride + inner[None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for group in range(groups):
        left = tl.load(from_x + group * GROUP, mask=present, other=0.0).to(DOT)
        right = tl.load(from_x + group * GROUP + HALF, mask=present, other=0.0).to(DOT)
        if INT4:
            packed = tl.load(from_data + group * HALF, mask=exists, other=0)
            first = ((packed & 15).to(tl.int32) - 8).to(tl.float32).to(DOT)
            second = ((packed >> 4).to(tl.int32) - 8).to(tl.float32).to(DOT)
        else:
            one = tl.load(from_data + group * GROUP, mask=exists, other=0)
            two = tl.load(from_data + group * GROUP + HALF, mask=exists, other=0)
            first = _numbers(one, FP8).to(tl.float32).to(DOT)
            second = _numbers(two, FP8).to(tl.float32).to(DOT)
        product = tl.dot(left, tl.trans(first), input_precision="tf32x3")
        product = tl.dot(right, tl.trans(second), product, input_precision="tf32x3")
        at_scale = column // GROUP * groups + group if FP8 else column * groups + group
        scale = tl.load(scales + at_scale, mask=column < outputs, other=0.0).to(tl.float32)
        total += product * scale[None, :]
    if FP8:
        total *= 256.0
    at = row.to(tl.int64)[:, None] * out_stride + column[None, :]
    mask = (row < rows)[:, None] & (column < outputs)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


def _tiles(device: torch.device, rows: int, wide: bool) -> tuple[int, int, int, int]:
    """Rows, columns, warps and stages of a matrix program."""
    if rows <= 16 or wide:
        return 16, 32, 4, 1 if wide else 3
    if rows <= 64:
        return 64, 64, 4, 3
    # Only there do 128 columns fit the registers.
    return (128, 128, 8, 2) if backend.capability(device) == 90 else (128, 64, 8, 2)


def quantized_linear(x: Tensor, weight: PackedWeight, *, out: Tensor | None = None) -> Tensor:
    """Compute ``reference.quantized_linear``. ``out [rows, outputs]``, whose rows may lie apart, is
    written in place of a new tensor. Reads nothing on the host, so it can be captured in a CUDA
    graph."""
    if x.shape[-1] != weight.inputs:
        raise KernelError(
            f"quantized_linear: {x.shape[-1]} inputs do not fit a weight of {weight.inputs}"
        )
    outputs, groups = weight.outputs, weight.inputs // weight.group
    result = x.new_empty(*x.shape[:-1], outputs) if out is None else out
    if x.numel() == 0 or outputs == 0:
        return result
    flat = x.reshape(-1, weight.inputs)
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    rows, wide = flat.shape[0], x.dtype == torch.float32
    group = weight.group
    kind = {"INT4": weight.kind == "int4", "FP8": weight.kind == "fp8", "GROUP": group}
    if rows == 1:
        # Few rows a program where the weight has few: enough programs to fill the device.
        per_program = 4 if outputs <= 4096 else 8
        _vector[(triton.cdiv(outputs, per_program),)](
            flat,
            weight.data,
            weight.scales,
            result,
            outputs,
            groups,
            ROWS=per_program,
            AT_ONCE=_AT_ONCE,
            num_warps=4,
            **kind,
        )
        return result
    tile, columns, warps, stages = _tiles(x.device, rows, wide)
    _matrix[(triton.cdiv(rows, tile), triton.cdiv(outputs, columns))](
        flat,
        weight.data,
        weight.scales,
        result,
        rows,
        outputs,
        groups,
        flat.stride(0),
        result.stride(-2),
        ROWS=tile,
        COLUMNS=columns,
        HALF=group // 2,
        DOT=tl.float32 if wide or interpreting() else tl.bfloat16,
        num_warps=warps,
        num_stages=stages,
        **kind,
    )
    return result
