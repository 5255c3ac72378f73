"""Attention over a paged cache in Triton: a few tokens a sequence with the cache split among
programs ("Flash-Decoding", Dao et al., 2023), and many tokens of it at once (FlashAttention-2, Dao,
2023).

In both, the query heads that share a KV head are rows of one tile, so each key and value is read
once for all of them. Pages are found through a table of their addresses: int64
``[batch, max_pages]``. What lies behind a sequence's length is never used, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import addresses, interpreting, power_of_two, require_power_of_two

SPLITS = 64
"""How many programs share one sequence's cache in a decode step, for each KV head. A split is at
least one block long. Fixed, so that a result depends on nothing but its own sequence, and so that
the grid of a captured step fits any length."""

MOST_ROWS = 64
"""Up to this many rows (tokens times query heads a KV head) the cache is split."""

_LOG2E = 1.4426950408889634


@triton.jit
def _attend(
    q,
    total,
    largest,
    weight,
    table,
    layer_start,
    at,
    length,
    position,
    KV_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    MASKED: tl.constexpr,
    CACHE: tl.constexpr,
    DOT: tl.constexpr,
):
    """Take ``BLOCK`` positions from ``at`` on into the running softmax of ``q``'s rows."""
    # A page's address is a multiple of 16, without which it would be read element by element.
    page = tl.multiple_of(tl.load(table + at // PAGE).to(tl.pointer_type(CACHE)), 16)
    start = page + layer_start
    key = at + tl.arange(0, BLOCK)
    inner = tl.arange(0, DIM)
    start += at % PAGE * DIM
    within = tl.arange(0, BLOCK)[:, None] * DIM + inner[None, :]
    values = start + KV_HEADS * PAGE * DIM
    if MASKED:
        k = tl.load(start + within, mask=(key < length)[:, None], other=0.0)
        v = tl.load(values + within, mask=(key < length)[:, None], other=0.0)
    else:
        k = tl.load(start + within)
        v = tl.load(values + within)
    scores = tl.dot(q, tl.trans(k.to(DOT)), input_precision="tf32x3")
    if MASKED:
        scores = tl.where(key[None, :] <= position[:, None], scores, float("-inf"))
    top = tl.maximum(largest, tl.max(scores, axis=1))
    # A row that has seen nothing yet has no largest score; any finite one gives it weight 0.
    safe = tl.where(top == float("-inf"), 0.0, top)
    shrink = tl.exp2(largest - safe)
    p = tl.exp2(scores - safe[:, None])
    total = total * shrink[:, None]
    total = tl.dot(p.to(DOT), v.to(DOT), total, input_precision="tf32x3")
    return total, top, weight * shrink + tl.sum(p, axis=1)


@triton.jit
def _span(length, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """How many positions each split of a sequence takes: whole blocks."""
    return tl.cdiv(tl.cdiv(length, BLOCK), SPLITS) * BLOCK


@triton.jit
def _split(
    query,
    table,
    lengths,
    partial,
    stats,
    time,
    layer,
    pages,
    scale,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    CACHE: tl.constexpr,
    DOT: tl.constexpr,
):
    split, head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + sequence)
    span = _span(length, SPLITS, BLOCK)
    begin = split * span
    end = tl.minimum(begin + span, length)
    if begin < length:
        row = tl.arange(0, ROWS)
        inner = tl.arange(0, DIM)
        used = row < time * GROUP
        base = (sequence.to(tl.int64) * time * KV_HEADS + head) * GROUP
        place = row // GROUP * (KV_HEADS * GROUP) + row % GROUP
        at_query = (place * DIM)[:, None] + inner[None, :]
        q = tl.load(query + base * DIM + at_query, mask=used[:, None], other=0.0)
        q = (q.to(tl.float32) * scale).to(DOT)
        position = length - time + row // GROUP
        layer_start = (layer.to(tl.int64) * 2 * KV_HEADS + head) * (PAGE * DIM)
        total = tl.zeros([ROWS, DIM], tl.float32)
        largest = tl.full([ROWS], float("-inf"), tl.float32)
        weight = tl.zeros([ROWS], tl.float32)
        for at in range(begin, end, BLOCK):
            total, largest, weight = _attend(
                q,
                total,
                largest,
                weight,
                table + sequence.to(tl.int64) * pages,
                layer_start,
                at,
                length,
                position,
                KV_HEADS,
                PAGE,
                DIM,
                BLOCK,
                True,
                CACHE,
                DOT,
            )
        base = base * SPLITS + split
        at = (place * (SPLITS * DIM))[:, None] + inner[None, :]
        tl.store(partial + base * DIM + at, total, mask=used[:, None])
        tl.store(stats + base * 2 + place * (SPLITS * 2), largest, mask=used)
        tl.store(stats + base * 2 + place * (SPLITS * 2) + 1, weight, mask=used)


@triton.jit
def _join(
    partial,
    stats,
    lengths,
    gate,
    out,
    time,
    gate_batch,
    gate_time,
    gate_head,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    STEP: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    token, head = place // HEADS, place % HEADS
    sequence = token // time
    length = tl.load(lengths + sequence)
    count = tl.cdiv(length, _span(length, SPLITS, BLOCK))
    inner = tl.arange(0, DIM)
    every = tl.arange(0, SPLITS)
    seen = tl.load(stats + (place * SPLITS + every) * 2, mask=every < count, other=float("-inf"))
    top = tl.max(seen, axis=0)
    total = tl.zeros([DIM], tl.float32)
    weight = 0.0
    for first in range(0, count, STEP):
        part = first + tl.arange(0, STEP)
        there = part < count
        at = place * SPLITS + part
        largest = tl.load(stats + at * 2, mask=there, other=float("-inf"))
        share = tl.exp2(largest - top)
        own = tl.load(partial + at[:, None] * DIM + inner[None, :], mask=there[:, None], other=0.0)
        total += tl.sum(own * share[:, None], axis=0)
        weight += tl.sum(tl.load(stats + at * 2 + 1, mask=there, other=0.0) * share, axis=0)
    at_gate = sequence * gate_batch + token % time * gate_time + head * gate_head
    opened = tl.sigmoid(tl.load(gate + at_gate + inner).to(tl.float32))
    tl.store(out + place * DIM + inner, (total / weight * opened).to(out.dtype.element_ty))


@triton.jit
def _prefill(
    query,
    table,
    lengths,
    gate,
    out,
    time,
    layer,
    pages,
    scale,
    gate_batch,
    gate_time,
    gate_head,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    CACHE: tl.constexpr,
    DOT: tl.constexpr,
):
    # The last rows attend to most: they start first.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    head, sequence = tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + sequence)
    row = block * ROWS + tl.arange(0, ROWS)
    inner = tl.arange(0, DIM)
    used = row < time * GROUP
    token = row // GROUP
    # Places are counted from the block's first token, where they are small numbers.
    begin = block * ROWS // GROUP
    own = sequence.to(tl.int64) * time + begin
    base = (own * KV_HEADS + head) * (GROUP * DIM)
    place = ((token - begin) * (KV_HEADS * GROUP) + row % GROUP) * DIM
    q = tl.load(query + base + (place[:, None] + inner[None, :]), mask=used[:, None], other=0.0)
    q = (q.to(tl.float32) * scale).to(DOT)
    position = length - time + token
    first = length - time + block * ROWS // GROUP
    last = length - time + tl.minimum((block * ROWS + ROWS - 1) // GROUP, time - 1)
    table += sequence.to(tl.int64) * pages
    layer_start = (layer.to(tl.int64) * 2 * KV_HEADS + head) * (PAGE * DIM)
    total = tl.zeros([ROWS, DIM], tl.float32)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    # Blocks that every row may see whole need no mask.
    whole = (first + 1) // BLOCK * BLOCK
    for at in range(0, whole, BLOCK):
        total, largest, weight = _attend(
            q,
            total,
            largest,
            weight,
            table,
            layer_start,
            at,
            length,
            position,
            KV_HEADS,
            PAGE,
            DIM,
            BLOCK,
            False,
            CACHE,
            DOT,
        )
    for at in range(whole, last + 1, BLOCK):
        total, largest, weight = _attend(
            q,
            total,
            largest,
            weight,
            table,
            layer_start,
            at,
            length,
            position,
            KV_HEADS,
            PAGE,
            DIM,
            BLOCK,
            True,
            CACHE,
            DOT,
        )
    # Places are worked out anew from a length read anew: kept through the loops they would not fit
    # in the registers, and the compiler must not see that they are the same.
    row += tl.load(lengths + sequence, volatile=True) - length
    used = row < time * GROUP
    token = row // GROUP
    place = ((token - begin) * (KV_HEADS * GROUP) + row % GROUP) * DIM
    gate += sequence.to(tl.int64) * gate_batch + begin * gate_time + head * GROUP * gate_head
    at_gate = ((token - begin) * gate_time + row % GROUP * gate_head)[:, None] + inner[None, :]
    shut = tl.load(gate + at_gate, mask=used[:, None], other=0.0)
    result = total / weight[:, None] * tl.sigmoid(shut.to(tl.float32))
    place = place[:, None] + inner[None, :]
    tl.store(out + base + place, result.to(out.dtype.element_ty), mask=used[:, None])


@triton.jit
def _append(
    keys,
    values,
    table,
    lengths,
    time,
    layer,
    pages,
    key_batch,
    key_time,
    value_batch,
    value_time,
    KV_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    DIM: tl.constexpr,
):
    token, sequence = tl.program_id(0), tl.program_id(1).to(tl.int64)
    position = tl.load(lengths + sequence) - time + token
    page = tl.load(table + sequence * pages + position // PAGE)
    to = tl.multiple_of(page.to(tl.pointer_type(keys.dtype.element_ty)), 16)
    to += layer.to(tl.int64) * (2 * KV_HEADS * PAGE * DIM)
    inner = tl.arange(0, DIM)
    for head in tl.static_range(KV_HEADS):
        at = (head * PAGE + position % PAGE) * DIM + inner
        k = tl.load(keys + sequence * key_batch + token * key_time + head * DIM + inner)
        tl.store(to + at, k)
        v = tl.load(values + sequence * value_batch + token * value_time + head * DIM + inner)
        tl.store(to + KV_HEADS * PAGE * DIM + at, v)


def _tiles(page: int, wide: bool) -> tuple[int, int, int, int]:
    """Rows, positions, warps and stages of a prefill program: what no chip spills on."""
    return (32, min(32, page), 4, 1) if wide else (64, min(64, page), 8, 2)


def paged_attention_at(
    query: Tensor,
    table: Tensor,
    layer: int,
    lengths: Tensor,
    gate: Tensor,
    *,
    page: int,
    kv_heads: int,
) -> Tensor:
    """``paged_attention`` with the addresses of the pages ``[batch, max_pages]`` (int64) and the
    lengths (int32) on the device already. Reads nothing on the host, so it can be captured in a
    CUDA graph; ``max_pages`` may be more than is used."""
    batch, time, heads, dim = query.shape
    require_power_of_two("paged_attention", "head dimension", dim, 16, 256)
    require_power_of_two("paged_attention", "page", page, 16, 1 << 16)
    query = query.contiguous()
    gate = gate if gate.stride(3) == 1 else gate.contiguous()
    out = torch.empty_like(query)
    if query.numel() == 0:
        return out
    group = heads // kv_heads
    wide = query.dtype == torch.float32
    cache = getattr(tl, str(query.dtype).removeprefix("torch."))
    # exp2 is what the hardware has, so the scale holds the factor that makes it exp.
    scale = dim**-0.5 * _LOG2E
    shape = {"GROUP": group, "KV_HEADS": kv_heads, "PAGE": page, "DIM": dim}
    types = {"CACHE": cache, "DOT": tl.float32 if wide or interpreting() else cache}
    gates = gate.stride()[:3]
    if time * group > MOST_ROWS:
        rows, block, warps, stages = _tiles(page, wide)
        _prefill[(triton.cdiv(time * group, rows), kv_heads, batch)](
            query,
            table,
            lengths,
            gate,
            out,
            time,
            layer,
            table.shape[1],
            scale,
            *gates,
            ROWS=rows,
            BLOCK=block,
            num_warps=warps,
            num_stages=stages,
            **shape,
            **types,
        )
        return out
    block = min(64, page)
    partial = query.new_empty(batch, time, heads, SPLITS, dim, dtype=torch.float32)
    stats = query.new_empty(batch, time, heads, SPLITS, 2, dtype=torch.float32)
    _split[(SPLITS, kv_heads, batch)](
        query,
        table,
        lengths,
        partial,
        stats,
        time,
        layer,
        table.shape[1],
        scale,
        ROWS=power_of_two(time * group, 16),
        BLOCK=block,
        SPLITS=SPLITS,
        num_warps=4 if time * group <= 16 else 8,
        num_stages=1 if wide else 2,
        **shape,
        **types,
    )
    _join[(batch * time * heads,)](
        partial,
        stats,
        lengths,
        gate,
        out,
        time,
        *gates,
        HEADS=heads,
        DIM=dim,
        BLOCK=block,
        SPLITS=SPLITS,
        STEP=8,
        num_warps=4,
    )
    return out


def append_at(
    keys: Tensor, values: Tensor, table: Tensor, layer: int, lengths: Tensor, *, page: int
) -> None:
    """Write ``keys`` and ``values [batch, time, kv_heads, dim]`` where ``paged_attention_at`` with
    the same table and lengths looks for the last ``time`` positions."""
    batch, time, kv_heads, dim = keys.shape
    require_power_of_two("append_at", "head dimension", dim, 16, 256)
    keys, values = (
        x if x.stride(3) == 1 and x.stride(2) == dim else x.contiguous() for x in (keys, values)
    )
    if keys.numel():
        _append[(time, batch)](
            keys,
            values,
            table,
            lengths,
            time,
            layer,
            table.shape[1],
            keys.stride(0),
            keys.stride(1),
            values.stride(0),
            values.stride(1),
            KV_HEADS=kv_heads,
            PAGE=page,
            DIM=dim,
            num_warps=2,
        )


def paged_attention(
    query: Tensor,
    pages: Sequence[Sequence[Tensor]],
    layer: int,
    lengths: Sequence[int],
    gate: Tensor,
) -> Tensor:
    """As ``reference.paged_attention``; head dimension and page are powers of two from 16 on, the
    former up to 256."""
    _, _, kv_heads, page, _ = pages[0][0].shape
    own = torch.tensor(lengths, dtype=torch.int32).to(query.device)
    table = addresses(pages)
    return paged_attention_at(query, table, layer, own, gate, page=page, kv_heads=kv_heads)
