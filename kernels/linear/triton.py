"""Products with the general quantised form in Triton, from the blocks in which it is stored.

One row of activations is a sum of products over blocks of 16 outputs, bound by memory: each word
of codes is read once, and scales multiply sums in float32. More rows go through the matrix units,
with weights that are first scaled and rounded to bfloat16 (float32 for float32 activations).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import KernelError, interpreting
from kernels.linear.formats import BLOCK, QuantizedWeight
from kernels.tiles import tiles

UNITS = {4: (8, 1), 5: (32, 5), 6: (16, 3), 8: (4, 1)}
"""Inputs, and words of 32 bits an output, that are stored together, by the bits of a code."""
_POSITIONS = 32
"""Units of each output that a matrix-vector program reads together."""
DEPTH = 64
"""Inputs that a matrix program reads together."""


@triton.jit
def _code(low, high, WORD: tl.constexpr, BYTE: tl.constexpr, BITS: tl.constexpr):
    """Return 2^BITS plus a code, float32: its bits become the upper ones of the mantissa.

    That takes a shift and one logic operation, where a conversion runs at a quarter of the rate.
    """
    place: tl.constexpr = 23 - BITS
    first: tl.constexpr = (127 + BITS) << 23
    start: tl.constexpr = 8 * BYTE + (0 if BITS == 8 else 4 * (WORD % 2)) - place
    mask: tl.constexpr = (255 if BITS == 8 else 15) << place
    bits = ((low >> start) if start >= 0 else (low << -start)) & mask
    if BITS == 5 or BITS == 6:
        width: tl.constexpr = BITS - 4
        above: tl.constexpr = 8 * BYTE + width * WORD - place - 4
        upper: tl.constexpr = ((1 << width) - 1) << (place + 4)
        bits |= ((high >> above) if above >= 0 else (high << -above)) & upper
    return (bits | first).to(tl.float32, bitcast=True)


@triton.jit
def vector_sums(
    x,
    data,
    scales,
    tops,
    table,
    block,
    blocks,
    inputs,
    less,
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
    """Return one row times the outputs of BLOCKS blocks, float32 ``[BLOCKS, 16]``.

    ``less`` is what codes are read too large by. With a SPAN, GROUPS of them have one top.
    """
    PER: tl.constexpr = GROUP // UNIT
    KINDS: tl.constexpr = 2 if TERMS else 1
    groups = inputs // GROUP
    first_block = block.to(tl.int64)
    own = tl.arange(0, BLOCKS)[:, None, None, None]
    part = tl.arange(0, GROUPS)[None, :, None, None]
    unit = tl.arange(0, PER)[None, None, :, None]
    lane = tl.arange(0, 16)[None, None, None, :]
    held = own + block < blocks
    data += first_block * (groups * PER * WORDS * 16)
    scales += first_block * (groups * KINDS * 16)
    if SPAN:
        tops += first_block * (inputs // SPAN * KINDS * 16)
    total = tl.zeros([BLOCKS, GROUPS, PER, 16], tl.float32)
    for first in range(0, groups, GROUPS):
        group = first + part
        there = group < groups
        at_unit = group * PER + unit
        mask = held & there & (unit >= 0) & (lane >= 0)
        at = (own * (groups * PER) + at_unit) * (WORDS * 16) + lane
        high = tl.zeros([1, 1, 1, 1], tl.int32)
        if WORDS > 1:
            high = tl.load(data + at + (WORDS - 1) * 16, mask=mask, other=0)
        every = tl.zeros([1, GROUPS, PER, 1], tl.float32)
        sums = tl.zeros([BLOCKS, GROUPS, PER, 16], tl.float32)
        for n in tl.static_range(WORDS if WORDS == 1 else WORDS - 1):
            low = tl.load(data + at + n * 16, mask=mask, other=0)
            for word in tl.static_range(1 if BITS == 8 else 2):
                for byte in tl.static_range(4):
                    from_x = x + at_unit * UNIT + n * 8 + word * 4 + byte
                    left = tl.load(from_x, mask=there & (unit >= 0), other=0.0).to(tl.float32)
                    every += left
                    if TABLE:
                        code = (low >> (8 * byte + 4 * word)) & 15
                        sums += tl.load(table + code) * left
                    else:
                        sums += _code(low, high, 2 * n + word, byte, BITS) * left
        if not TABLE:
            sums -= every * less
        at_scale = (own * groups + group) * (KINDS * 16) + lane
        known = held & there & (lane >= 0)
        scale = tl.load(scales + at_scale, mask=known, other=0).to(tl.float32)
        if SPAN:
            at_top = (own * (inputs // SPAN) + first * GROUP // SPAN) * (KINDS * 16) + lane
            in_span = held & (lane >= 0)
            scale *= tl.load(tops + at_top, mask=in_span, other=0.0).to(tl.float32)
        sums *= scale
        if TERMS:
            term = tl.load(scales + at_scale + 16, mask=known, other=0).to(tl.float32)
            if SPAN:
                term *= tl.load(tops + at_top + 16, mask=in_span, other=0.0).to(tl.float32)
            sums += term * every
        total += sums
    return tl.sum(tl.sum(total, axis=2), axis=1)


@triton.jit
def weight_tile(
    data,
    scales,
    tops,
    table,
    output,
    exists,
    first,
    inputs,
    less,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SPAN: tl.constexpr,
    TERMS: tl.constexpr,
    TABLE: tl.constexpr,
    UNIT: tl.constexpr,
    WORDS: tl.constexpr,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Return inputs ``first`` to ``first + DEPTH`` of the outputs ``output [COLUMNS]``, float32.

    The result is ``[DEPTH, COLUMNS]``; what lies beyond the matrix is 0.
    """
    KINDS: tl.constexpr = 2 if TERMS else 1
    NUMBERS: tl.constexpr = 1 if GROUP >= DEPTH else DEPTH // GROUP
    LOWS: tl.constexpr = 1 if WORDS == 1 else WORDS - 1
    CODES: tl.constexpr = UNIT // LOWS
    block, lane = (output // 16).to(tl.int64), output % 16
    unit = first // UNIT + tl.arange(0, DEPTH // UNIT)
    at = (block * (inputs // UNIT))[None, :] + unit[:, None]
    at = at * (WORDS * 16) + lane[None, :]
    there = exists[None, :] & (unit < inputs // UNIT)[:, None]
    n = tl.arange(0, CODES)[None, None, :, None]
    part = tl.arange(0, LOWS)[None, :, None, None]
    from_low = data + at[:, None, None, :] + part * 16
    low = tl.load(from_low, mask=there[:, None, None, :] & (part >= 0), other=0)
    if BITS == 8:
        code = (low >> (8 * n)) & 255
    else:
        code = (low >> (8 * (n % 4) + 4 * (n // 4))) & 15
        if WORDS > 1:
            width: tl.constexpr = BITS - 4
            high = tl.load(data + at + LOWS * 16, mask=there, other=0)[:, None, None, :]
            upper = high >> (8 * (n % 4) + width * (2 * part + n // 4))
            code |= (upper & ((1 << width) - 1)) << 4
    number = tl.load(table + code) if TABLE else (code - less).to(tl.float32)
    group = first // GROUP + tl.arange(0, NUMBERS)
    known = exists[None, :] & (group * GROUP < inputs)[:, None]
    at_scale = (block * (inputs // GROUP))[None, :] + group[:, None]
    at_scale = at_scale * (KINDS * 16) + lane[None, :]
    scale = tl.load(scales + at_scale, mask=known, other=0).to(tl.float32)
    if SPAN:
        at_top = (block * (inputs // SPAN))[None, :] + (group * GROUP // SPAN)[:, None]
        at_top = at_top * (KINDS * 16) + lane[None, :]
        scale *= tl.load(tops + at_top, mask=known, other=0.0).to(tl.float32)
    tile = number.reshape(NUMBERS, DEPTH // NUMBERS, COLUMNS) * scale[:, None, :]
    if TERMS:
        term = tl.load(scales + at_scale + 16, mask=known, other=0).to(tl.float32)
        if SPAN:
            term *= tl.load(tops + at_top + 16, mask=known, other=0.0).to(tl.float32)
        tile += term[:, None, :]
    return tile.reshape(DEPTH, COLUMNS)


@triton.jit
def _coded_vector(
    x,
    data,
    scales,
    tops,
    table,
    out,
    outputs,
    inputs,
    less,
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
    block = tl.program_id(0) * BLOCKS
    sums = vector_sums(
        x,
        data,
        scales,
        tops,
        table,
        block,
        tl.cdiv(outputs, 16),
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
    output = (block + tl.arange(0, BLOCKS))[:, None] * 16 + tl.arange(0, 16)[None, :]
    tl.store(out + output, sums.to(out.dtype.element_ty), mask=output < outputs)


@triton.jit
def _coded_matrix(
    x,
    data,
    scales,
    tops,
    table,
    out,
    rows,
    outputs,
    inputs,
    less,
    x_stride,
    out_stride,
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
    # Programs with the same columns run together and share the weight in the L2 cache.
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, DEPTH)
    from_x = x + row.to(tl.int64)[:, None] * x_stride + inner[None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, inputs, DEPTH):
        present = (row < rows)[:, None] & (first + inner < inputs)[None, :]
        left = tl.load(from_x + first, mask=present, other=0.0).to(DOT)
        tile = weight_tile(
            data,
            scales,
            tops,
            table,
            column,
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
        total = tl.dot(left, tile.to(DOT), total, input_precision="tf32x3")
    at = row.to(tl.int64)[:, None] * out_stride + column[None, :]
    mask = (row < rows)[:, None] & (column < outputs)[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _coded_rows(
    ids,
    data,
    scales,
    tops,
    table,
    out,
    count,
    inputs,
    less,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    SPAN: tl.constexpr,
    TERMS: tl.constexpr,
    TABLE: tl.constexpr,
    UNIT: tl.constexpr,
    WORDS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    place = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    asked = place < count
    first = tl.program_id(1) * DEPTH
    tile = weight_tile(
        data,
        scales,
        tops,
        table,
        tl.load(ids + place, mask=asked, other=0),
        asked,
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
    inner = first + tl.arange(0, DEPTH)
    at = out + place.to(tl.int64)[None, :] * inputs + inner[:, None]
    tl.store(at, tile.to(out.dtype.element_ty), mask=asked[None, :] & (inner < inputs)[:, None])


@cache
def _levels(table: tuple[int, ...], device: torch.device) -> Tensor:
    """Return a table in float32 on ``device``; kept for good, since there are only a few."""
    return torch.tensor(table, dtype=torch.float32, device=device)


def held(weight: QuantizedWeight) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], dict[str, Any]]:
    """Return the tensors that kernels read (data, scales, tops, table) and what they are built for.

    Where there are no tops or no table the scales stand in their place, unread.
    """
    code, scales = weight.code, weight.scales
    unit, words = UNITS[code.bits]
    table = scales if code.table is None else _levels(code.table, scales.device)
    tops = scales if weight.tops is None else weight.tops
    span = 0 if weight.tops is None else weight.inputs // weight.tops.shape[1]
    kind = {"BITS": code.bits, "GROUP": weight.group, "SPAN": span, "TERMS": weight.has_terms}
    kind |= {"TABLE": code.table is not None, "UNIT": unit, "WORDS": words}
    return (weight.data.view(torch.int32), scales, tops, table), kind


def together(weight: QuantizedWeight) -> int:
    """Return how many groups a matrix-vector program reads at once: of one top, where one is."""
    if weight.tops is not None:
        return weight.inputs // weight.tops.shape[1] // weight.group
    return max(1, _POSITIONS * UNITS[weight.bits][0] // weight.group)


def per_program(weight: QuantizedWeight) -> int:
    """Return the blocks of a matrix-vector program: few where the weight has few, so that there are
    enough programs; else so many that reading the row again costs little."""
    return 4 if weight.outputs >= 4096 and weight.bits == 4 else 2


def coded_linear(x: Tensor, weight: QuantizedWeight, *, out: Tensor | None = None) -> Tensor:
    """Multiply ``x [..., inputs]`` by the weight transposed.

    ``out [rows, outputs]``, whose rows may lie apart, is written in place of a new tensor. Reads
    nothing on the host, so it can be captured in a CUDA graph.
    """
    if x.shape[-1] != weight.inputs:
        raise KernelError(f"linear: {x.shape[-1]} inputs do not fit a weight of {weight.inputs}")
    outputs, inputs = weight.outputs, weight.inputs
    result = x.new_empty(*x.shape[:-1], outputs) if out is None else out
    if x.numel() == 0 or outputs == 0:
        return result
    flat = x.reshape(-1, inputs)
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    rows, wide = flat.shape[0], x.dtype == torch.float32
    tensors, kind = held(weight)
    zero = 0 if weight.code.table is not None else weight.code.zero
    if rows == 1:
        blocks = per_program(weight)
        _coded_vector[(triton.cdiv(outputs, blocks * BLOCK),)](
            flat,
            *tensors,
            result,
            outputs,
            inputs,
            float((1 << weight.bits) + zero),
            BLOCKS=blocks,
            GROUPS=together(weight),
            num_warps=4,
            **kind,
        )
        return result
    tile, columns, warps, stages = tiles(x.device, rows, wide)
    _coded_matrix[(triton.cdiv(rows, tile), triton.cdiv(outputs, columns))](
        flat,
        *tensors,
        result,
        rows,
        outputs,
        inputs,
        zero,
        flat.stride(0),
        result.stride(-2),
        ROWS=tile,
        COLUMNS=columns,
        DEPTH=DEPTH,
        DOT=tl.float32 if wide or interpreting() else tl.bfloat16,
        num_warps=warps,
        num_stages=stages,
        **kind,
    )
    return result


def coded_rows(ids: Tensor, weight: QuantizedWeight, dtype: torch.dtype) -> Tensor:
    """Return the rows ``ids [n]`` of the matrix, ``[n, inputs]``; read nothing on the host."""
    out = torch.empty(len(ids), weight.inputs, dtype=dtype, device=ids.device)
    tensors, kind = held(weight)
    zero = 0 if weight.code.table is not None else weight.code.zero
    columns = 16
    grid = (triton.cdiv(len(ids), columns), triton.cdiv(weight.inputs, DEPTH))
    if len(ids):
        sizes = (len(ids), weight.inputs, zero)
        _coded_rows[grid](ids, *tensors, out, *sizes, COLUMNS=columns, DEPTH=DEPTH, **kind)
    return out
