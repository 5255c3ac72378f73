"""Sampling in plain torch. The filters apply in the order transformers and vLLM use:
presence penalty, temperature, top-k, top-p (over what top-k left), min-p.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def presence_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Return ``logits [vocab]`` less ``penalty`` at the ids in ``seen [n]``, once however often
    seen.
    """
    return logits.index_put((seen,), logits[seen] - penalty)


def log_probability(logits: Tensor, token: int) -> float:
    """Return the log-probability of ``token`` under the softmax of ``logits [vocab]``."""
    logits = logits.float()
    return float(logits[token] - logits.logsumexp(0))


def sample(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    generator: torch.Generator,
) -> int:
    """Draw one id from ``logits [vocab]``.

    ``temperature`` 0 takes the most likely id and draws nothing from ``generator``; otherwise one
    uniform number is drawn from it (a CPU generator). ``top_k`` 0 keeps every id, ``top_p`` keeps
    the smallest set of most likely ids whose probability reaches it, ``min_p`` drops ids less
    likely than that part of the most likely one. The most likely id is always kept.
    """
    if temperature == 0:
        return int(logits.argmax())
    count = min(top_k, logits.shape[0]) if top_k > 0 else logits.shape[0]
    best, ids = logits.float().topk(count)
    # The best logit is subtracted first, so that a tiny temperature cannot overflow; in float64,
    # where the smallest temperature is not yet 0.
    kept = ((best - best[0]).double() / temperature).softmax(0)
    if top_p < 1:
        kept = kept.where(kept.cumsum(0) - kept < top_p, 0)
    if min_p > 0:
        kept = kept.where(kept >= min_p * kept[0], 0)
    edges = kept.cumsum(0)
    point = torch.rand((), generator=generator, dtype=torch.float64).to(edges.device) * edges[-1]
    # Rounding can carry the point onto the last edge, where only dropped ids follow.
    drawn = torch.searchsorted(edges, point, right=True).clamp(max=int(kept.count_nonzero()) - 1)
    return int(ids[drawn])


def sample_batch(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: Sequence[float],
    top_k: Sequence[int],
    top_p: Sequence[float],
    min_p: Sequence[float],
) -> Tensor:
    """One id for each row of ``logits [batch, vocab]``: int64 ``[batch]`` on their device.

    The filters are those of ``sample``, for each row its own; of two equal logits the smaller id
    is the likelier. ``uniform [batch]`` holds the random numbers, from 0 to below 1.
    """
    ids = []
    for row, own in enumerate(logits.float()):
        count = min(top_k[row], own.shape[0]) if top_k[row] > 0 else own.shape[0]
        best, order = own.sort(descending=True, stable=True)
        best, order = best[:count], order[:count]
        if temperature[row] == 0:
            ids.append(order[0])
            continue
        kept = ((best - best[0]).double() / temperature[row]).softmax(0)
        if top_p[row] < 1:
            kept = kept.where(kept.cumsum(0) - kept < top_p[row], 0)
        if min_p[row] > 0:
            kept = kept.where(kept >= min_p[row] * kept[0], 0)
        edges = kept.cumsum(0)
        point = uniform[row].double() * edges[-1]
        drawn = torch.searchsorted(edges, point, right=True)
        ids.append(order[drawn.minimum(kept.count_nonzero() - 1)])
    return torch.stack(ids) if ids else torch.empty(0, dtype=torch.int64, device=logits.device)
