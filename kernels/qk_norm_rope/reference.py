"""From an attention layer's input projection to its queries, gates, keys and values."""

from __future__ import annotations

from torch import Tensor

from kernels.rms_norm.reference import rms_norm
from kernels.rope.reference import rope


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
    """Split a projection by heads; normalise and turn queries and keys.

    Args:
        projected: ``[batch, time, (2 * heads + 2 * kv_heads) * dim]``: for each head its query and
            then its gate, after all of them the keys, then the values.
        query_weight: ``[dim]``, zero-centred weight of the RMSNorm over each query head.
        key_weight: the same for key heads.
        cos: ``[time, rotary_dim / 2]`` or ``[batch, time, rotary_dim / 2]``, see ``kernels.rope``.
        sin: like ``cos``.
        eps: of the norms.
        heads: query heads.
        kv_heads: key and value heads.

    Returns:
        Queries and gates ``[batch, time, heads, dim]``, keys and values
        ``[batch, time, kv_heads, dim]``. Gates and values are views of ``projected``.
    """
    batch, time, width = projected.shape
    dim = width // (2 * heads + 2 * kv_heads)
    both, key, value = projected.split_with_sizes(
        [2 * heads * dim, kv_heads * dim, kv_heads * dim], dim=-1
    )
    query, gate = both.reshape(batch, time, heads, 2 * dim).chunk(2, dim=-1)
    key = key.reshape(batch, time, kv_heads, dim)
    value = value.reshape(batch, time, kv_heads, dim)
    if cos.dim() == 2:
        cos, sin = (x.expand(batch, -1, -1) for x in (cos, sin))
    turned = []
    for x, weight in ((query, query_weight), (key, key_weight)):
        normed = rms_norm(x, weight, eps, zero_centred=True)
        # Rows one after the other as one sequence: each has its own positions.
        flat = normed.reshape(1, batch * time, *normed.shape[2:])
        turned.append(rope(flat, cos.flatten(0, 1), sin.flatten(0, 1)).reshape(x.shape))
    return turned[0], gate, turned[1], value
