"""The body that both of the Triton attention kernels share: a tile of query rows attends to a run
of a paged cache, block by block with a running softmax (FlashAttention-2, Dao, 2023).
"""

from __future__ import annotations

import triton
import triton.language as tl


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
    # Codes have their scales behind the rows of each head (kernels.kv_cache).
    EIGHT: tl.constexpr = CACHE.primitive_bitwidth == 8
    HEAD: tl.constexpr = PAGE * (DIM + 4) if EIGHT else PAGE * DIM
    page = tl.multiple_of(tl.load(table + at // PAGE).to(tl.pointer_type(CACHE)), 16)
    start = page + layer_start
    key = at + tl.arange(0, BLOCK)
    inner = tl.arange(0, DIM)
    key_scales = (start + PAGE * DIM).to(tl.pointer_type(tl.float32)) + at % PAGE
    value_scales = (start + KV_HEADS * HEAD + PAGE * DIM).to(
        tl.pointer_type(tl.float32)
    ) + at % PAGE
    start += at % PAGE * DIM
    within = tl.arange(0, BLOCK)[:, None] * DIM + inner[None, :]
    values = start + KV_HEADS * HEAD
    if MASKED:
        k = tl.load(start + within, mask=(key < length)[:, None], other=0.0)
        v = tl.load(values + within, mask=(key < length)[:, None], other=0.0)
    else:
        k = tl.load(start + within)
        v = tl.load(values + within)
    scores = tl.dot(q, tl.trans(k.to(DOT)), input_precision="tf32x3")
    if EIGHT:
        every = tl.arange(0, BLOCK)
        key_scale = tl.load(key_scales + every, mask=key < length, other=0.0)
        value_scale = tl.load(value_scales + every, mask=key < length, other=0.0)
        scores = scores * key_scale[None, :]
    if MASKED:
        scores = tl.where(key[None, :] <= position[:, None], scores, float("-inf"))
    top = tl.maximum(largest, tl.max(scores, axis=1))
    # A row that has seen nothing yet has no largest score; any finite one gives it weight 0.
    safe = tl.where(top == float("-inf"), 0.0, top)
    shrink = tl.exp2(largest - safe)
    p = tl.exp2(scores - safe[:, None])
    total = total * shrink[:, None]
    weight = weight * shrink + tl.sum(p, axis=1)
    if EIGHT:
        p = p * value_scale[None, :]
    total = tl.dot(p.to(DOT), v.to(DOT), total, input_precision="tf32x3")
    return total, top, weight


@triton.jit
def places(
    block,
    head,
    sequence,
    time,
    ROWS: tl.constexpr,
    GROUP: tl.constexpr,
    KV_HEADS: tl.constexpr,
):
    """Return a tile's rows in turn: which token each is of, whether it is there, and its place
    among all (tokens times heads) as one 64-bit number and, from the tile's first token on, small
    ones.
    """
    row = block * ROWS + tl.arange(0, ROWS)
    begin = block * ROWS // GROUP
    base = ((sequence.to(tl.int64) * time + begin) * KV_HEADS + head) * GROUP
    place = (row // GROUP - begin) * (KV_HEADS * GROUP) + row % GROUP
    return row // GROUP, row < time * GROUP, base, place


@triton.jit
def attend_all(
    query,
    used,
    base,
    place,
    position,
    begin,
    whole,
    end,
    table,
    length,
    layer,
    head,
    scale,
    SPLIT: tl.constexpr,
    ROWS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    PAGE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
    CACHE: tl.constexpr,
    DOT: tl.constexpr,
):
    """Let the rows at ``place`` attend to positions ``begin`` to ``end``, of which every row sees
    all before ``whole``, a multiple of ``BLOCK`` as ``begin`` is: a weighted sum of values, the
    largest score, and the sum of weights. A split takes the masked loop alone, for registers' sake.
    """
    inner = tl.arange(0, DIM)
    at_query = (place * DIM)[:, None] + inner[None, :]
    q = tl.load(query + base * DIM + at_query, mask=used[:, None], other=0.0)
    q = (q.to(tl.float32) * scale).to(DOT)
    EIGHT: tl.constexpr = CACHE.primitive_bitwidth == 8
    layer_start = (layer.to(tl.int64) * 2 * KV_HEADS + head) * (
        PAGE * (DIM + 4) if EIGHT else PAGE * DIM
    )
    total = tl.zeros([ROWS, DIM], tl.float32)
    largest = tl.full([ROWS], float("-inf"), tl.float32)
    weight = tl.zeros([ROWS], tl.float32)
    if not SPLIT:
        for at in range(begin, whole, BLOCK):
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
    for at in range(whole, end, BLOCK):
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
    return total, largest, weight
