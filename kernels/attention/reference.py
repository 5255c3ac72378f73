"""Gated causal attention in plain torch. Query heads that share a KV head are rows of one matrix
product with it (Ainslie et al., "GQA", 2023), so keys and values are never repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels.kv_cache import dequantise, in_bytes, parts

_SCORES = 1 << 24
"""About how many scores are held at once (64 MiB in float32)."""


def attention(query: Tensor, keys: Tensor, values: Tensor, gate: Tensor) -> Tensor:
    """Attend from the last ``time`` of ``total`` positions to those up to each.

    Args:
        query: ``[batch, time, heads, dim]``, the positions ``total - time`` onwards.
        keys: ``[batch, kv_heads, total, dim]``; query head ``h`` uses KV head
            ``h // (heads // kv_heads)``.
        values: like ``keys``.
        gate: like ``query``; the result is multiplied by its sigmoid.

    Returns:
        ``[batch, time, heads, dim]`` in the dtype of ``query``. Scores are scaled by
        ``dim ** -0.5``, and the softmax is taken in float32. Long inputs go in blocks of queries.
    """
    batch, time, heads, dim = query.shape
    kv_heads, total = keys.shape[1:3]
    group, before = heads // kv_heads, total - time
    # [batch, kv_heads, group, time, dim]
    grouped = (query * dim**-0.5).reshape(batch, time, kv_heads, group, dim).permute(0, 2, 3, 1, 4)
    block = max(1, _SCORES // max(1, batch * heads * total))
    outputs = []
    for start in range(0, time, block):
        rows = min(block, time - start)
        end = before + start + rows
        q = grouped[:, :, :, start : start + rows].reshape(batch, kv_heads, group * rows, dim)
        scores = (q @ keys[:, :, :end].mT).float()
        if rows > 1:
            later = torch.ones(rows, end, dtype=torch.bool, device=query.device)
            later = later.triu(end - rows + 1).repeat(group, 1)
            scores = scores.masked_fill(later, float("-inf"))
        out = scores.softmax(-1).to(values.dtype) @ values[:, :, :end]
        outputs.append(out.reshape(batch, kv_heads, group, rows, dim))
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=3)
    attended = joined.permute(0, 3, 1, 2, 4).reshape(batch, time, heads, dim)
    return attended * gate.sigmoid()


def paged_attention(
    query: Tensor,
    pages: Sequence[Sequence[Tensor]],
    layer: int,
    lengths: Sequence[int],
    gate: Tensor,
) -> Tensor:
    """Compute ``attention`` over keys and values that lie in pages.

    Args:
        query: ``[batch, time, heads, dim]``, each row the last positions of its sequence.
        pages: for each row the tensors ``[layers, 2, kv_heads, page, dim]`` that hold its keys
            (index 0) and values (index 1), in order; or pages in 8 bits (``kernels.kv_cache``).
        layer: which layer of the pages to read.
        lengths: how many positions of each row there are, those of ``query`` included.
        gate: like ``query``.

    Returns:
        As ``attention`` does.
    """
    rows = []
    for row, (held, length) in enumerate(zip(pages, lengths, strict=True)):
        own = [_plain(page[layer], query.shape[-1]) for page in held]
        both = own[0] if len(own) == 1 else torch.cat(own, dim=2)
        keys, values = both[:, None, :, :length]
        out = attention(query[row : row + 1].to(both.dtype), keys, values, gate[row : row + 1])
        rows.append(out.to(query.dtype))
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _plain(page: Tensor, dim: int) -> Tensor:
    """Return keys and values ``[2, kv_heads, page, dim]``; those of 8 bits in float32."""
    return dequantise(*parts(page, dim)) if in_bytes(page) else page
