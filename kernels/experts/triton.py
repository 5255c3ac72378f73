"""Products of the chosen experts in Triton: rows find their expert's weights by its number.

Few rows: one program for each choice and run of outputs, bound by memory; choices that share an
expert share it in the L2 cache. Many rows: choices are sorted by expert on the device and cut into
tiles of one expert each, which go through the matrix units. Nothing is read on the host, and the
launches depend on shapes alone, so that a step can be captured in a CUDA graph.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import KernelError, interpreting
from kernels.experts.stacks import ExpertWeight, PackedStack
from kernels.quantized_linear.triton import _numbers
from kernels.swiglu.triton import swiglu

MOST_GATHERED = 8
"""Up to so many rows run choice by choice."""
_PLAIN, _INT8, _INT4, _FP8 = 0, 1, 2, 3
_KINDS = {"int8": _INT8, "int4": _INT4, "fp8": _FP8}
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
    KIND: tl.constexpr,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
):
    slot = tl.program_id(0).to(tl.int64)
    expert = tl.load(chosen + slot).to(tl.int64)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = row < outputs
    place = expert * outputs + row
    width: tl.constexpr = GROUP // 2 if KIND == 2 else GROUP
    inner = tl.arange(0, width)
    stride = inputs // 2 if KIND == 2 else inputs
    from_x = x + slot // PER * inputs
    from_data = data + place[:, None] * stride + inner[None, :]
    total = tl.zeros([ROWS, width], tl.float32)
    for group in range(groups):
        there = group * width + inner < stride
        mask = inside[:, None] & there[None, :]
        numbers = tl.load(from_data + group * width, mask=mask, other=0)
        left = tl.load(from_x + group * GROUP + inner, mask=there, other=0.0).to(tl.float32)
        if KIND == 2:
            right = tl.load(from_x + group * GROUP + width + inner, mask=there, other=0.0)
            low = ((numbers & 15).to(tl.int32) - 8).to(tl.float32)
            high = ((numbers >> 4).to(tl.int32) - 8).to(tl.float32)
            product = low * left[None, :] + high * right.to(tl.float32)[None, :]
        elif KIND == 0:
            product = numbers.to(tl.float32) * left[None, :]
        else:
            product = _numbers(numbers, KIND == 3).to(tl.float32) * left[None, :]
        if KIND == 0:
            total += product
        else:
            at = place // GROUP * groups + group if KIND == 3 else place * groups + group
            scale = tl.load(scales + at, mask=inside, other=0.0).to(tl.float32)
            total += product * scale[:, None]
    result = tl.sum(total, axis=1)
    if KIND == 3:
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
    KIND: tl.constexpr,
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
        stride = inputs // 2 if KIND == 2 else inputs
        from_x = x + (slot // PER)[:, None] * inputs + inner[None, :]
        from_data = data + place[:, None] * stride + inner[None, :]
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
            if KIND == 2:
                numbers = tl.load(from_data + group * half, mask=exists[:, None], other=0)
                first = ((numbers & 15).to(tl.int32) - 8).to(tl.float32).to(DOT)
                second = ((numbers >> 4).to(tl.int32) - 8).to(tl.float32).to(DOT)
            else:
                one = tl.load(
                    from_data + group * GROUP, mask=exists[:, None] & near[None, :], other=0
                )
                two = tl.load(
                    from_data + group * GROUP + half, mask=exists[:, None] & far[None, :], other=0
                )
                if KIND == 0:
                    first, second = one.to(DOT), two.to(DOT)
                else:
                    first = _numbers(one, KIND == 3).to(tl.float32).to(DOT)
                    second = _numbers(two, KIND == 3).to(tl.float32).to(DOT)
            if KIND == 0:
                total = tl.dot(left, tl.trans(first), total, input_precision="tf32x3")
                total = tl.dot(right, tl.trans(second), total, input_precision="tf32x3")
            else:
                product = tl.dot(left, tl.trans(first), input_precision="tf32x3")
                product = tl.dot(right, tl.trans(second), product, input_precision="tf32x3")
                at = place // GROUP * groups + group if KIND == 3 else place * groups + group
                scale = tl.load(scales + at, mask=exists, other=0.0).to(tl.float32)
                total += product * scale[None, :]
        if KIND == 3:
            total *= 256.0
        at_out = out + slot[:, None] * outputs + column[None, :]
        mask = present[:, None] & exists[None, :]
        tl.store(at_out, total.to(out.dtype.element_ty), mask=mask)


def tiles(chosen: Tensor, count: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sort ``chosen [slots]`` by expert and cut the runs of ``count`` experts into tiles.

    Return the slots in their order, and for each tile of up to ``rows`` its expert (-1: none), its
    first place in that order and the one behind its last. There are as many tiles as the worst case
    needs, whatever was chosen.
    """
    slots = len(chosen)
    order = torch.argsort(chosen, stable=True)
    sizes = torch.zeros(count, dtype=torch.int64, device=chosen.device)
    sizes.scatter_add_(0, chosen, torch.ones_like(chosen))
    needed = (sizes + rows - 1) // rows
    ends, last = needed.cumsum(0), sizes.cumsum(0)
    index = torch.arange(slots // rows + min(count, slots), device=chosen.device)
    expert = torch.searchsorted(ends, index, right=True)
    own = expert.clamp(max=count - 1)
    first = (last - sizes)[own] + (index - (ends - needed)[own]) * rows
    until = torch.minimum(first + rows, last[own])
    return order, torch.where(expert < count, expert, -1), first, until


def product(x: Tensor, chosen: Tensor, weight: ExpertWeight, *, per: int, gathered: bool) -> Tensor:
    """Multiply, for each of ``chosen [slots]``, row ``slot // per`` of ``x`` by that expert.

    ``weight`` is a plain tensor ``[experts, outputs, inputs]`` or packed; ``gathered`` runs choice
    by choice. Returns ``[slots, outputs]`` in ``x.dtype``.
    """
    count, outputs, inputs = weight.shape
    data, scales, kind, group = _parts(weight)
    if x.shape[-1] != inputs:
        raise KernelError(f"experts: {x.shape[-1]} inputs do not fit weights of {inputs}")
    slots = len(chosen)
    out = x.new_empty(slots, outputs)
    if not slots:
        return out
    groups = triton.cdiv(inputs, group)
    shared = {"PER": per, "KIND": kind, "GROUP": group}
    if gathered:
        rows = 4 if kind == _PLAIN else 8
        grid = (slots, triton.cdiv(outputs, rows))
        sizes = (outputs, inputs, groups)
        _gather[grid](x, chosen, data, scales, out, *sizes, ROWS=rows, num_warps=4, **shared)
        return out
    # Of int4 a wide tile does not fit the registers.
    wide = slots > 32 * count and x.dtype != torch.float32 and kind != _INT4
    rows = 64 if wide else 16
    columns = 32 if x.dtype == torch.float32 else 64
    plan = tiles(chosen, count, rows)
    _grouped[(len(plan[1]), triton.cdiv(outputs, columns))](
        x,
        *plan,
        data,
        scales,
        out,
        outputs,
        inputs,
        groups,
        ROWS=rows,
        COLUMNS=columns,
        DOT=tl.float32 if x.dtype == torch.float32 or interpreting() else tl.bfloat16,
        num_warps=4 if rows == 16 else 8,
        num_stages=1 if x.dtype == torch.float32 else 3,
        **shared,
    )
    return out


def _parts(weight: ExpertWeight) -> tuple[Tensor, Tensor, int, int]:
    """Return data, scales, kind and group size of a weight that the kernels take."""
    if isinstance(weight, Tensor):
        return weight, weight, _PLAIN, _DEPTH
    if isinstance(weight, PackedStack):
        held = weight.whole
        return held.data, held.scales, _KINDS[held.kind], held.group
    raise KernelError("experts: these weights are in the compiled CPU path's layout; pack them")


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
