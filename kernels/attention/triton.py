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

from kernels import backend
from kernels.attention.triton_tiles import attend_all, places
from kernels.backend import addresses, interpreting, power_of_two, require_power_of_two
from kernels.kv_cache import SCALE_BYTES, in_bytes

SPLITS = 64
"""How many programs share one sequence's cache in a decode step, for each KV head. A split is at
least one block long. Fixed, so that a result depends on nothing but its own sequence, and so that
the grid of a captured step fits any length."""

MOST_ROWS = 64
"""Up to this many rows (tokens times query heads a KV head) the cache is split; half in float32."""

_LOG2E = 1.4426950408889634


@triton.jit
def _span(length, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """Return how many positions each split of a sequence takes: whole blocks."""
    return tl.cdiv(tl.cdiv(length, BLOCK), SPLITS) * BLOCK


@triton.jit(do_not_specialize=["layer"])
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
    if begin < length:
        end = tl.minimum(begin + span, length)
        token, used, base, place = places(0, head, sequence, time, ROWS, GROUP, KV_HEADS)
        total, largest, weight = attend_all(
            query,
            used,
            base,
            place,
            length - time + token,
            begin,
            begin,
            end,
            table + sequence.to(tl.int64) * pages,
            length,
            layer,
            head,
            scale,
            True,
            ROWS,
            KV_HEADS,
            PAGE,
            DIM,
            BLOCK,
            CACHE,
            DOT,
        )
        base = base * SPLITS + split
        at = (place * (SPLITS * DIM))[:, None] + tl.arange(0, DIM)[None, :]
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


@triton.jit(do_not_specialize=["layer", "zero"])
def _prefill(
    query,
    table,
    lengths,
    gate,
    out,
    time,
    layer,
    zero,
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
    token, used, base, place = places(block, head, sequence, time, ROWS, GROUP, KV_HEADS)
    first = length - time + block * ROWS // GROUP
    last = length - time + tl.minimum((block * ROWS + ROWS - 1) // GROUP, time - 1)
    total, _, weight = attend_all(
        query,
        used,
        base,
        place,
        length - time + token,
        0,
        (first + 1) // BLOCK * BLOCK,
        last + 1,
        table + sequence.to(tl.int64) * pages,
        length,
        layer,
        head,
        scale,
        False,
        ROWS,
        KV_HEADS,
        PAGE,
        DIM,
        BLOCK,
        CACHE,
        DOT,
    )
    # Places are worked out anew, with a 0 that the compiler does not know to be one: kept through
    # the loops they would not fit in the registers.
    token, used, base, place = places(block + zero, head, sequence, time, ROWS, GROUP, KV_HEADS)
    inner = tl.arange(0, DIM)
    begin = block * ROWS // GROUP
    gate += sequence.to(tl.int64) * gate_batch + begin * gate_time + head * GROUP * gate_head
    at_gate = (token - begin) * gate_time + place % GROUP * gate_head
    at_gate = at_gate[:, None] + inner[None, :]
    shut = tl.load(gate + at_gate, mask=used[:, None], other=0.0)
    result = total / weight[:, None] * tl.sigmoid(shut.to(tl.float32))
    at = (place * DIM)[:, None] + inner[None, :]
    tl.store(out + base * DIM + at, result.to(out.dtype.element_ty), mask=used[:, None])


@triton.jit
def _store_codes(to, place, x, PAGE: tl.constexpr, DIM: tl.constexpr, CACHE: tl.constexpr):
    """Round a row as ``kernels.kv_cache.quantise`` does, and store it at ``place`` of a head."""
    MOST: tl.constexpr = 127.0 if tl.int8 == CACHE else 448.0
    x = x.to(tl.float32)
    largest = tl.max(tl.abs(x), axis=0)
    scaled = x * tl.where(largest > 0, MOST / largest, 0.0)
    if tl.int8 == CACHE:
        # Adding and taking away this number rounds to the nearest, ties to even.
        scaled = scaled + 12582912.0 - 12582912.0
    tl.store(to + place * DIM + tl.arange(0, DIM), scaled.to(CACHE))
    tl.store((to + PAGE * DIM).to(tl.pointer_type(tl.float32)) + place, largest / MOST)


@triton.jit(do_not_specialize=["layer"])
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
    CACHE: tl.constexpr,
):
    token, sequence = tl.program_id(0), tl.program_id(1).to(tl.int64)
    position = tl.load(lengths + sequence) - time + token
    page = tl.load(table + sequence * pages + position // PAGE)
    EIGHT: tl.constexpr = CACHE.primitive_bitwidth == 8
    HEAD: tl.constexpr = PAGE * (DIM + 4) if EIGHT else PAGE * DIM
    to = tl.multiple_of(page.to(tl.pointer_type(CACHE)), 16)
    to += layer.to(tl.int64) * (2 * KV_HEADS * HEAD)
    inner = tl.arange(0, DIM)
    for head in tl.static_range(KV_HEADS):
        k = tl.load(keys + sequence * key_batch + token * key_time + head * DIM + inner)
        v = tl.load(values + sequence * value_batch + token * value_time + head * DIM + inner)
        own = to + head * HEAD
        if EIGHT:
            _store_codes(own, position % PAGE, k, PAGE, DIM, CACHE)
            _store_codes(own + KV_HEADS * HEAD, position % PAGE, v, PAGE, DIM, CACHE)
        else:
            tl.store(own + position % PAGE * DIM + inner, k)
            tl.store(own + KV_HEADS * HEAD + position % PAGE * DIM + inner, v)


def _as_triton(dtype: torch.dtype) -> tl.dtype:
    names = {torch.float8_e4m3fn: "float8e4nv"}
    return getattr(tl, names.get(dtype, str(dtype).removeprefix("torch.")))


def _most_rows(wide: bool) -> int:
    return 32 if wide else MOST_ROWS


def _tiles(device: torch.device, rows: int, page: int, wide: bool) -> tuple[int, int, int, int]:
    """Rows, positions, warps and stages of a program that attends for ``rows`` rows in all: what
    no chip spills on, and what fits the shared memory (99 KiB on the chips not named here)."""
    large = backend.capability(device) in (80, 90, 100, 103)
    if rows > _most_rows(wide):
        found = (32, 32, 4, 1) if wide else (64, 64 if large else 32, 8, 2)
    elif rows <= 16:
        found = (16, 64 if large and not wide else 32, 4, 1 if wide else 2)
    else:
        found = (power_of_two(rows), 32, 8, 1 if wide else 3)
    return found[0], min(found[1], page), *found[2:]


def paged_attention_at(
    query: Tensor,
    table: Tensor,
    layer: int,
    lengths: Tensor,
    gate: Tensor,
    *,
    page: int,
    kv_heads: int,
    kv: torch.dtype | None = None,
) -> Tensor:
    """Compute ``paged_attention`` with the addresses of the pages ``[batch, max_pages]`` (int64)
    and the lengths (int32) on the device already. Reads nothing on the host, so it can be captured
    in a CUDA graph; ``max_pages`` may be more than is used. ``kv`` is the dtype of the pages, by
    default that of ``query``; 8 bits are read as ``kernels.kv_cache`` has them.
    """
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
    dot = _as_triton(query.dtype)
    cache = _as_triton(kv or query.dtype)
    # exp2 is what the hardware has, so the scale holds the factor that makes it exp.
    scale = dim**-0.5 * _LOG2E
    shape = {"GROUP": group, "KV_HEADS": kv_heads, "PAGE": page, "DIM": dim}
    types = {"CACHE": cache, "DOT": tl.float32 if wide or interpreting() else dot}
    gates = gate.stride()[:3]
    rows, block, warps, stages = _tiles(query.device, time * group, page, wide)
    if time * group > _most_rows(wide):
        _prefill[(triton.cdiv(time * group, rows), kv_heads, batch)](
            query,
            table,
            lengths,
            gate,
            out,
            time,
            layer,
            0,
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
        ROWS=rows,
        BLOCK=block,
        SPLITS=SPLITS,
        num_warps=warps,
        num_stages=stages,
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
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    layer: int,
    lengths: Tensor,
    *,
    page: int,
    kv: torch.dtype | None = None,
) -> None:
    """Write ``keys`` and ``values [batch, time, kv_heads, dim]`` where ``paged_attention_at`` with
    the same table, lengths and ``kv`` looks for the last ``time`` positions."""
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
            CACHE=_as_triton(kv or keys.dtype),
            num_warps=2,
        )


def paged_attention(
    query: Tensor,
    pages: Sequence[Sequence[Tensor]],
    layer: int,
    lengths: Sequence[int],
    gate: Tensor,
) -> Tensor:
    """Compute ``reference.paged_attention``; head dimension and page are powers of two from 16 on,
    the former up to 256.
    """
    first = pages[0][0]
    kv_heads, page = first.shape[2], first.shape[3]
    if in_bytes(first):
        page = page // (query.shape[-1] + SCALE_BYTES)
    own = torch.tensor(lengths, dtype=torch.int32).to(query.device)
    table = addresses(pages)
    return paged_attention_at(
        query, table, layer, own, gate, page=page, kv_heads=kv_heads, kv=first.dtype
    )
