"""Mixture of experts in plain torch, after Fedus et al., "Switch Transformers" (2021), with the
router of Qwen3-MoE (transformers 5.23, ``Qwen3_5MoeTopKRouter``)."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.experts.stacks import ExpertWeight
from kernels.linear import Weight, linear
from kernels.swiglu.reference import swiglu


def route(x: Tensor, router: Weight, count: int) -> tuple[Tensor, Tensor]:
    """Choose ``count`` experts for each row of ``x [rows, hidden]``.

    Return their numbers ``[rows, count]``, the likeliest first, and their weights in ``x.dtype``:
    the softmax over all experts, in float32, scaled so that those of the chosen sum to one.
    """
    odds = linear(x, router).float().softmax(-1)
    weights, chosen = odds.topk(count, dim=-1)
    return chosen, (weights / weights.sum(-1, keepdim=True)).to(x.dtype)


def experts(
    x: Tensor, chosen: Tensor, weights: Tensor, gate_up: ExpertWeight, down: ExpertWeight
) -> Tensor:
    """Return for each row of ``x [rows, hidden]`` the weighted sum of its chosen experts.

    ``chosen`` and ``weights`` are ``[rows, count]``; ``gate_up [experts, 2 * inner, hidden]`` has
    the rows of the gate first, ``down`` is ``[experts, hidden, inner]``. An expert is run once, on
    all rows that chose it.
    """
    out = torch.zeros_like(x)
    for expert in sorted(set(chosen.flatten().tolist())):
        row, place = torch.where(chosen == expert)
        wide = swiglu(linear(x[row], gate_up[expert]))
        own = linear(wide, down[expert]) * weights[row, place, None]
        out = out.index_add(0, row, own)
    return out
