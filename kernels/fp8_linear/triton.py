"""Products with blocks of e4m3 numbers in Triton.

Weights become numbers in registers, and their scale is applied to the sum over a block: e4m3
numbers are exact in bfloat16, so nothing is rounded beside the sums. One row of activations is a
sum of products over whole rows of the weight, bound by memory; more rows go through the matrix
units.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, float32

from kernels.backend import KernelError, interpreting
from kernels.fp8_linear.reference import GROUP, Fp8Weight
from kernels.tiles import tiles


@triton.jit
def e4m3_numbers(bits):
    """Return the numbers that the bits of e4m3 ones stand for, divided by 256."""
    # Both formats have the exponent above the mantissa: shifted into a float16 it is off by the
    # difference of their biases, 8, and subnormal numbers come out right too.
    wide = bits.to(tl.uint16)
    return (((wide & 0x80) << 8) | ((wide & 0x7F) << 7)).to(tl.float16, bitcast=True)


@triton.jit
def _vector(
    x,
    data,
    scales,
    out,
    outputs,
    groups,
    BY_ROWS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inner = tl.arange(0, GROUP)
    start = data + row.to(tl.int64)[:, None] * (groups * GROUP) + inner[None, :]
    known = row < outputs
    total = tl.zeros([ROWS, GROUP], tl.float32)
    for group in range(groups):
        bits = tl.load(start + group * GROUP, mask=known[:, None] & (inner >= 0)[None, :], other=0)
        left = tl.load(x + group * GROUP + inner).to(tl.float32)
        at_scale = row * groups + group if BY_ROWS else row // GROUP * groups + group
        scale = tl.load(scales + at_scale, mask=known, other=0.0).to(tl.float32)
        total += e4m3_numbers(bits).to(tl.float32) * left[None, :] * scale[:, None]
    result = tl.sum(total, axis=1) * 256.0
    tl.store(out + row, result.to(out.dtype.element_ty), mask=known)


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
    BY_ROWS: tl.constexpr,
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
    from_data = data + column.to(tl.int64)[:, None] * (groups * GROUP) + inner[None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for group in range(groups):
        left = tl.load(from_x + group * GROUP, mask=present, other=0.0).to(DOT)
        right = tl.load(from_x + group * GROUP + HALF, mask=present, other=0.0).to(DOT)
        one = tl.load(from_data + group * GROUP, mask=exists, other=0)
        two = tl.load(from_data + group * GROUP + HALF, mask=exists, other=0)
        first = e4m3_numbers(one).to(tl.float32).to(DOT)
        second = e4m3_numbers(two).to(tl.float32).to(DOT)
        product = tl.dot(left, tl.trans(first), input_precision="tf32x3")
        product = tl.dot(right, tl.trans(second), product, input_precision="tf32x3")
        at_scale = column * groups + group if BY_ROWS else column // GROUP * groups + group
        scale = tl.load(scales + at_scale, mask=column < outputs, other=0.0).to(tl.float32)
        total += product * scale[None, :]
    total *= 256.0
    at = row.to(tl.int64)[:, None] * out_stride + column[None, :]
    mask = (row < rows)[:, None] & (column < outputs)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


def fp8_linear(x: Tensor, weight: Fp8Weight, *, out: Tensor | None = None) -> Tensor:
    """Compute ``reference.fp8_linear``. ``out [rows, outputs]``, whose rows may lie apart, is
    written in place of a new tensor. Reads nothing on the host, so it can be captured in a CUDA
    graph."""
    if x.shape[-1] != weight.inputs:
        raise KernelError(
            f"fp8_linear: {x.shape[-1]} inputs do not fit a weight of {weight.inputs}"
        )
    outputs, groups = weight.outputs, weight.inputs // GROUP
    result = x.new_empty(*x.shape[:-1], outputs) if out is None else out
    if x.numel() == 0 or outputs == 0:
        return result
    flat = x.reshape(-1, weight.inputs)
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    rows, wide = flat.shape[0], x.dtype == float32
    kind = {"BY_ROWS": weight.by_rows, "GROUP": GROUP}
    if rows == 1:
        # Few rows a program where the weight has few: enough programs to fill the device.
        per_program = 8 if outputs <= 4096 else 32
        _vector[(triton.cdiv(outputs, per_program),)](
            flat,
            weight.data,
            weight.scales,
            result,
            outputs,
            groups,
            ROWS=per_program,
            num_warps=4,
            **kind,
        )
        return result
    tile, columns, warps, stages = tiles(x.device, rows, wide)
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
        HALF=GROUP // 2,
        DOT=tl.float32 if wide or interpreting() else tl.bfloat16,
        num_warps=warps,
        num_stages=stages,
        **kind,
    )
    return result
