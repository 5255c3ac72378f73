"""Top-k, top-p and min-p sampling in Triton; nothing goes to the host.

Programs first find the likeliest ids of each stretch of the vocabulary, then one program a row
finds the likeliest of those, filters and draws. A logit and its id are one 64-bit number that
sorts as they do, so that no ids need to be carried along.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import KernelError, power_of_two

MOST_KEPT = 64
"""The largest top-k."""

_NONE = tl.constexpr(-(1 << 63))


@triton.jit
def _find(logits, found, vocab, row_stride, STRETCH: tl.constexpr, KEPT: tl.constexpr):
    row, stretch = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = stretch * STRETCH + tl.arange(0, STRETCH)
    there = token < vocab
    x = tl.load(logits + row * row_stride + token, mask=there, other=0.0)
    bits = x.to(tl.float32).to(tl.int32, bitcast=True)
    # Negative numbers are turned round: then the order of the bits is that of the numbers.
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    both = (order.to(tl.int64) << 32) | (0x7FFFFFFF - token).to(tl.int64)
    best = tl.topk(tl.where(there, both, _NONE), KEPT)
    start = found + (row * tl.num_programs(1) + stretch) * KEPT
    tl.store(start + tl.arange(0, KEPT), best)


@triton.jit
def _draw(found, uniform, filters, ids, batch, count, COUNT: tl.constexpr, KEPT: tl.constexpr):
    row = tl.program_id(0)
    place = tl.arange(0, COUNT)
    both = tl.load(found + row.to(tl.int64) * count + place, mask=place < count, other=_NONE)
    best = tl.topk(both, KEPT)
    rank = tl.arange(0, KEPT)
    token = 0x7FFFFFFF - (best & 0xFFFFFFFF).to(tl.int32)
    order = (best >> 32).to(tl.int32)
    x = (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)

    temperature = tl.load(filters + row)
    top_k = tl.load(filters + batch + row)
    top_p = tl.load(filters + 2 * batch + row)
    min_p = tl.load(filters + 3 * batch + row)
    there = (best != _NONE) & (rank.to(tl.float32) < top_k)
    largest = tl.max(tl.where(there, x, float("-inf")), axis=0)
    # A temperature too small for a float32 division leaves the likeliest id alone, as it should.
    far = (x - largest) / tl.maximum(temperature, 1e-30)
    p = tl.where(there, tl.exp(far), 0.0)
    p /= tl.sum(p, axis=0)
    before = tl.cumsum(p, axis=0) - p
    # The likeliest is always kept; top_p 1 keeps all, whatever rounding makes of their sum.
    within = (before < tl.where(top_p >= 1.0, 2.0, top_p)) | (rank == 0)
    p = tl.where(within & (p >= min_p * tl.max(p, axis=0)), p, 0.0)
    edges = tl.cumsum(p, axis=0)
    point = tl.load(uniform + row).to(tl.float32) * tl.max(edges, axis=0)
    drawn = tl.sum((edges <= point).to(tl.int32), axis=0)
    # Rounding can carry the point onto the last edge, where only dropped ids follow.
    last = tl.sum((p > 0.0).to(tl.int32), axis=0) - 1
    drawn = tl.where(temperature == 0.0, 0, tl.minimum(drawn, last))
    tl.store(ids + row, tl.sum(tl.where(rank == drawn, token, 0), axis=0).to(tl.int64))


def options_of(
    temperature: Sequence[float],
    top_k: Sequence[int],
    top_p: Sequence[float],
    min_p: Sequence[float],
) -> Tensor:
    """Return what ``sample_batch_at`` reads: float32 ``[4, batch]``. Raises ``KernelError`` if a
    top-k is 0 (no limit) or above ``MOST_KEPT`` where the temperature is not 0.
    """
    for heat, k in zip(temperature, top_k, strict=True):
        if heat != 0 and not 0 < k <= MOST_KEPT:
            raise KernelError(
                f"sample_batch: the Triton kernel takes a top_k from 1 to {MOST_KEPT}, not {k};"
                " use backend='torch'"
            )
    limits = [k if k > 0 else 1 for k in top_k]
    return torch.tensor([list(temperature), limits, list(top_p), list(min_p)])


def sample_batch_at(
    logits: Tensor,
    uniform: Tensor,
    options: Tensor,
    *,
    kept: int = MOST_KEPT,
    stretch: int = 4096,
) -> Tensor:
    """Run ``sample_batch`` with its ``options_of`` on the device already, none of whose top-k is
    above ``kept``; a program searches ``stretch`` ids, a power of two. Reads nothing on the host,
    so it can be captured in a CUDA graph.
    """
    batch, vocab = logits.shape
    logits = logits if logits.stride(1) == 1 else logits.contiguous()
    stretch = min(stretch, power_of_two(vocab, 16))
    kept = min(power_of_two(kept, 8), stretch)
    stretches = triton.cdiv(vocab, stretch)
    found = torch.empty(batch, stretches, kept, dtype=torch.int64, device=logits.device)
    ids = torch.empty(batch, dtype=torch.int64, device=logits.device)
    if batch:
        _find[(batch, stretches)](
            logits, found, vocab, logits.stride(0), STRETCH=stretch, KEPT=kept, num_warps=8
        )
        count = stretches * kept
        _draw[(batch,)](
            found,
            uniform,
            options,
            ids,
            batch,
            count,
            COUNT=power_of_two(count),
            KEPT=kept,
            num_warps=16,
        )
    return ids


def sample_batch(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: Sequence[float],
    top_k: Sequence[int],
    top_p: Sequence[float],
    min_p: Sequence[float],
) -> Tensor:
    """Compute ``reference.sample_batch`` for a top-k from 1 to 64, in float32."""
    options = options_of(temperature, top_k, top_p, min_p).to(logits.device)
    most = max((k for k in top_k if k <= MOST_KEPT), default=1)
    return sample_batch_at(logits, uniform, options, kept=most)
