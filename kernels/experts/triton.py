"""Products of the chosen experts in Triton: rows find their expert's weights by its number.

Few rows: one program for each choice and run of outputs, bound by memory; choices that share an
expert share it in the L2 cache. Many rows: choices are sorted by expert on the device and cut into
tiles of one expert each, which go through the matrix units. Nothing is read on the host, and the
launches depend on shapes alone, so that a step can be captured in a CUDA graph.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import KernelError
from kernels.experts.codes_triton import coded_products
from kernels.experts.stacks import DeviceStack, ExpertWeight
from kernels.experts.triton_plan import planned
from kernels.fp8_linear.reference import GROUP, Fp8Weight
from kernels.fp8_linear.triton import e4m3_numbers
from kernels.linear import QuantizedWeight
from kernels.swiglu.triton import swiglu

MOST_GATHERED = 8
"""Up to so many rows run choice by choice."""
_DEPTH = 64
"""Inputs of plain weights that are read together."""


@triton.jit
def _gather(
    x,
    chosen,
    data,
    scales,
    out,
    outputs,
    inputs,
    groups,
    PER: tl.constexpr,
    FP8: tl.constexpr,
    BY_ROWS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
):
    slot = tl.program_id(0).to(tl.int64)
    expert = tl.load(chosen + slot).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = row < outputs
    place = expert * outputs + row
    inner = tl.arange(0, GROUP)
    from_x = x + slot // PER * inputs
    from_data = data + place[:, None] * inputs + inner[None, :]
    total = tl.zeros([ROWS, GROUP], tl.float32)
    for group in range(groups):
        there = group * GROUP + inner < inputs
        mask = inside[:, None] & there[None, :]
        numbers = tl.load(from_data + group * GROUP, mask=mask, other=0)
        left = tl.load(from_x + group * GROUP + inner, mask=there, other=0.0).to(tl.float32)
        if FP8:
            at = (place if BY_ROWS else place // GROUP) * groups + group
            scale = tl.load(scales + at, mask=inside, other=0.0).to(tl.float32)
            total += e4m3_numbers(numbers).to(tl.float32) * left[None, :] * scale[:, None]
        else:
            total += numbers.to(tl.float32) * left[None, :]
    result = tl.sum(total, axis=1)
    if FP8:
        result *= 256.0
    tl.store(out + slot * outputs + row, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _grouped(
    x,
    order,
    tile_expert,
    tile_first,
    tile_last,
    data,
    scales,
    out,
    outputs,
    inputs,
    groups,
    PER: tl.constexpr,
    FP8: tl.constexpr,
    BY_ROWS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    DOT: tl.constexpr,
):
    tile = tl.program_id(0)
    expert = tl.load(tile_expert + tile).to(tl.int64)
    if expert >= 0:
        spot = tl.load(tile_first + tile) + tl.arange(0, ROWS)
        present = spot < tl.load(tile_last + tile)
        slot = tl.load(order + spot, mask=present, other=0).to(tl.int64)
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        exists = column < outputs
        place = expert * outputs + column
        half: tl.constexpr = GROUP // 2
        inner = tl.arange(0, half)
        from_x = x + (slot // PER)[:, None] * inputs + inner[None, :]
        from_data = data + place[:, None] * inputs + inner[None, :]
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        for group in range(groups):
            near = group * GROUP + inner < inputs
            far = group * GROUP + half + inner < inputs
            left = tl.load(
                from_x + group * GROUP, mask=present[:, None] & near[None, :], other=0.0
            ).to(DOT)
            right = tl.load(
                from_x + group * GROUP + half, mask=present[:, None] & far[None, :], other=0.0
            ).to(DOT)
            one = tl.load(from_data + group * GROUP, mask=exists[:, None] & near[None, :], other=0)
            two = tl.load(
                from_data + group * GROUP + half, mask=exists[:, None] & far[None, :], other=0
            )
            if FP8:
                first = e4m3_numbers(one).to(tl.float32).to(DOT)
                second = e4m3_numbers(two).to(tl.float32).to(DOT)
                product = tl.dot(left, tl.trans(first), input_precision="tf32x3")
                product = tl.dot(right, tl.trans(second), product, input_precision="tf32x3")
                at = (place if BY_ROWS else place // GROUP) * groups + group
                scale = tl.load(scales + at, mask=exists, other=0.0).to(tl.float32)
                total += product * scale[None, :]
            else:
                total = tl.dot(left, tl.trans(one.to(DOT)), total, input_precision="tf32x3")
                total = tl.dot(right, tl.trans(two.to(DOT)), total, input_precision="tf32x3")
        if FP8:
            total *= 256.0
        at_out = out + slot[:, None] * outputs + column[None, :]
        mask = present[:, None] & exists[None, :]
        tl.store(at_out, total.to(out.dtype.element_ty), mask=mask)


def product(x: Tensor, chosen: Tensor, weight: ExpertWeight, *, per: int, gathered: bool) -> Tensor:
    """Multiply, for each of ``chosen [slots]``, row ``slot // per`` of ``x`` by that expert.

    ``weight`` is a plain tensor ``[experts, outputs, inputs]`` or a stack for the device;
    ``gathered`` runs choice by choice. Returns ``[slots, outputs]`` in ``x.dtype``.
    """
    if weight.shape[2] != x.shape[-1]:
        raise KernelError(f"experts: {x.shape[-1]} inputs do not fit weights of {weight.shape[2]}")
    out = x.new_empty(len(chosen), weight.shape[1])
    if not len(chosen):
        return out
    if isinstance(weight, Tensor):
        _products(x, chosen, weight, None, weight.shape[0], out, per, gathered)
    elif isinstance(weight, DeviceStack) and isinstance(weight.whole, QuantizedWeight):
        coded_products(x, chosen, weight.whole, weight.count, out, per=per, gathered=gathered)
    elif isinstance(weight, DeviceStack):
        whole = weight.whole
        assert isinstance(whole, Fp8Weight)
        _products(x, chosen, whole.data, whole, weight.count, out, per, gathered)
    else:
        raise KernelError("experts: these weights lie as the CPU takes them; stack them first")
    return out


def _products(
    x: Tensor,
    chosen: Tensor,
    data: Tensor,
    blocks: Fp8Weight | None,
    count: int,
    out: Tensor,
    per: int,
    gathered: bool,
) -> None:
    """Fill ``out`` by plain weights, or by those of e4m3 ``blocks``."""
    inputs, outputs, slots = x.shape[-1], out.shape[1], len(chosen)
    scales = data if blocks is None else blocks.scales
    group = _DEPTH if blocks is None else GROUP
    shared = {"PER": per, "FP8": blocks is not None, "GROUP": group}
    shared["BY_ROWS"] = blocks is not None and blocks.by_rows
    sizes = (outputs, inputs, triton.cdiv(inputs, group))
    if gathered:
        rows = 4 if blocks is None else 8
        grid = (slots, triton.cdiv(outputs, rows))
        _gather[grid](x, chosen, data, scales, out, *sizes, ROWS=rows, num_warps=4, **shared)
        return
    plan, rows, columns, options = planned(x, chosen, count)
    _grouped[(len(plan[1]), triton.cdiv(outputs, columns))](
        x, *plan, data, scales, out, *sizes, ROWS=rows, COLUMNS=columns, **options, **shared
    )


def experts(
    x: Tensor, chosen: Tensor, weights: Tensor, gate_up: ExpertWeight, down: ExpertWeight
) -> Tensor:
    """Compute ``reference.experts``; sums over a row's experts are in float32."""
    rows, per = chosen.shape
    slots = chosen.reshape(-1).contiguous()
    few = rows <= MOST_GATHERED
    wide = swiglu(product(x.contiguous(), slots, gate_up, per=per, gathered=few))
    own = product(wide, slots, down, per=1, gathered=few).reshape(rows, per, -1)
    return (own.float() * weights.float().unsqueeze(-1)).sum(1).to(x.dtype)
