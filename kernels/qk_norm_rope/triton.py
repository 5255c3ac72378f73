"""Head normalisation and partial rotation in one Triton kernel.

A program takes a few heads of one token. The gate and the values are not touched: they are views
of the projection, which the attention kernels read where they lie.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import power_of_two, require_power_of_two

_HEADS = 4


@triton.jit
def _qk_norm_rope(
    projected,
    query_weight,
    key_weight,
    cos,
    sin,
    query,
    key,
    token_stride,
    angle_tokens,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    column = tl.arange(0, DIM)
    is_query = head < HEADS
    inside = (head < HEADS + KV_HEADS)[:, None] & (column >= 0)[None, :]
    # A query head takes two places in the projection (its gate is the second), a key head one.
    first = tl.where(is_query, 2 * head, HEADS + head) * DIM
    start = projected + token * token_stride + first[:, None]

    # The other dimension of each rotated pair, read again rather than exchanged between threads.
    low = column < HALF
    turned = column < 2 * HALF
    pair = tl.where(low, column + HALF, tl.where(turned, column - HALF, column))
    x = tl.load(start + column[None, :], mask=inside, other=0.0).to(tl.float32)
    other = tl.load(start + pair[None, :], mask=inside, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(x * x, axis=1) / DIM + eps)[:, None]

    q_scale = 1.0 + tl.load(query_weight + column).to(tl.float32)[None, :]
    k_scale = 1.0 + tl.load(key_weight + column).to(tl.float32)[None, :]
    q_pair = 1.0 + tl.load(query_weight + pair).to(tl.float32)[None, :]
    k_pair = 1.0 + tl.load(key_weight + pair).to(tl.float32)[None, :]
    narrow = query.dtype.element_ty
    # Rounded between norm and rotation, as the reference does.
    x = (x * inverse * tl.where(is_query[:, None], q_scale, k_scale)).to(narrow).to(tl.float32)
    other = other * inverse * tl.where(is_query[:, None], q_pair, k_pair)
    other = other.to(narrow).to(tl.float32)

    angle = (token % angle_tokens) * HALF + tl.where(low, column, column - HALF)
    c = tl.load(cos + angle, mask=turned, other=1.0)[None, :]
    s = tl.load(sin + angle, mask=turned, other=0.0)[None, :]
    result = (x * c + tl.where(low[None, :], -other, other) * s).to(narrow)

    to_query = query + (token * HEADS + head)[:, None] * DIM + column[None, :]
    tl.store(to_query, result, mask=inside & is_query[:, None])
    to_key = key + (token * KV_HEADS + head - HEADS)[:, None] * DIM + column[None, :]
    tl.store(to_key, result, mask=inside & (head >= HEADS)[:, None])


def qk_norm_rope(
    projected: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    eps: float,
    *,
    heads: int,
    kv_heads: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute ``reference.qk_norm_rope`` for a head dimension that is a power of two up to 512."""
    batch, time, width = projected.shape
    dim = width // (2 * heads + 2 * kv_heads)
    require_power_of_two("qk_norm_rope", "head dimension", dim, 16, 512)
    flat = projected.reshape(batch * time, width)
    flat = flat if flat.stride(-1) == 1 else flat.contiguous()
    query = projected.new_empty(batch, time, heads, dim)
    key = projected.new_empty(batch, time, kv_heads, dim)
    half = cos.shape[-1]
    if batch * time:
        block = min(_HEADS, power_of_two(heads + kv_heads))
        _qk_norm_rope[(batch * time, triton.cdiv(heads + kv_heads, block))](
            flat,
            query_weight,
            key_weight,
            cos.contiguous(),
            sin.contiguous(),
            query,
            key,
            flat.stride(0),
            cos.numel() // half,
            eps,
            HEADS=heads,
            KV_HEADS=kv_heads,
            DIM=dim,
            HALF=half,
            BLOCK=block,
            num_warps=4,
        )
    both = projected[..., : 2 * heads * dim].reshape(batch, time, heads, 2 * dim)
    value = projected[..., (2 * heads + kv_heads) * dim :].reshape(batch, time, kv_heads, dim)
    return query, both[..., dim:], key, value
