"""Products of the chosen experts with weights in the general quantised form, in Triton."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.experts.triton_plan import planned
from kernels.linear import QuantizedWeight
from kernels.linear.triton import DEPTH, held, per_program, together, vector_sums, weight_tile


@triton.jit
def _coded_gather(
    x,
    chosen,
    data,
    scales,
    tops,
    table,
    out,
    outputs,
    inputs,
    less,
    PER: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SPAN: tl.constexpr,
    TERMS: tl.constexpr,
    TABLE: tl.constexpr,
    UNIT: tl.constexpr,
    WORDS: tl.constexpr,
    BLOCKS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    slot = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * BLOCKS
    before = tl.load(chosen + slot) * (outputs // 16)
    sums = vector_sums(
        x + slot // PER * inputs,
        data,
        scales,
        tops,
        table,
        before + first,
        before + outputs // 16,
        inputs,
        less,
        BITS,
        GROUP,
        SPAN,
        TERMS,
        TABLE,
        UNIT,
        WORDS,
        BLOCKS,
        GROUPS,
    )
    output = (first + tl.arange(0, BLOCKS))[:, None] * 16 + tl.arange(0, 16)[None, :]
    at = out + slot * outputs + output
    tl.store(at, sums.to(out.dtype.element_ty), mask=output < outputs)


@triton.jit
def _coded_grouped(
    x,
    order,
    tile_expert,
    tile_first,
    tile_last,
    data,
    scales,
    tops,
    table,
    out,
    outputs,
    inputs,
    less,
    PER: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SPAN: tl.constexpr,
    TERMS: tl.constexpr,
    TABLE: tl.constexpr,
    UNIT: tl.constexpr,
    WORDS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    DOT: tl.constexpr,
):
    tile = tl.program_id(0)
    expert = tl.load(tile_expert + tile).to(tl.int64)
    if expert >= 0:
        spot = tl.load(tile_first + tile) + tl.arange(0, ROWS)
        present = spot < tl.load(tile_last + tile)
        slot = tl.load(order + spot, mask=present, other=0).to(tl.int64)
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        inner = tl.arange(0, DEPTH)
        from_x = x + (slot // PER)[:, None] * inputs + inner[None, :]
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        for first in range(0, inputs, DEPTH):
            mask = present[:, None] & (first + inner < inputs)[None, :]
            left = tl.load(from_x + first, mask=mask, other=0.0).to(DOT)
            weights = weight_tile(
                data,
                scales,
                tops,
                table,
                expert * outputs + column,
                column < outputs,
                first,
                inputs,
                less,
                BITS,
                GROUP,
                SPAN,
                TERMS,
                TABLE,
                UNIT,
                WORDS,
                DEPTH,
                COLUMNS,
            )
            total = tl.dot(left, weights.to(DOT), total, input_precision="tf32x3")
        at_out = out + slot[:, None] * outputs + column[None, :]
        mask = present[:, None] & (column < outputs)[None, :]
        tl.store(at_out, total.to(out.dtype.element_ty), mask=mask)


def coded_products(
    x: Tensor,
    chosen: Tensor,
    whole: QuantizedWeight,
    count: int,
    out: Tensor,
    *,
    per: int,
    gathered: bool,
) -> None:
    """Fill ``out [slots, outputs]``, for each of ``chosen [slots]``, with row ``slot // per`` of
    ``x`` times that expert of the ``count`` whose weights lie one below the other in ``whole``.
    """
    outputs, inputs = whole.outputs // count, whole.inputs
    tensors, kind = held(whole)
    zero = 0 if whole.code.table is not None else whole.code.zero
    if gathered:
        blocks = per_program(whole)
        _coded_gather[(len(chosen), triton.cdiv(outputs, 16 * blocks))](
            x,
            chosen,
            *tensors,
            out,
            outputs,
            inputs,
            float((1 << whole.bits) + zero),
            PER=per,
            BLOCKS=blocks,
            GROUPS=together(whole),
            num_warps=4,
            **kind,
        )
        return
    plan, rows, columns, options = planned(x, chosen, count)
    _coded_grouped[(len(plan[1]), triton.cdiv(outputs, columns))](
        x,
        *plan,
        *tensors,
        out,
        outputs,
        inputs,
        zero,
        PER=per,
        ROWS=rows,
        COLUMNS=columns,
        DEPTH=DEPTH,
        **options,
        **kind,
    )
