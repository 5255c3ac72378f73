"""The plan by which rows are multiplied expert by expert, made on the device."""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from kernels.backend import interpreting

Plan = tuple[Tensor, Tensor, Tensor, Tensor]


def planned(x: Tensor, chosen: Tensor, count: int) -> tuple[Plan, int, int, dict[str, Any]]:
    """Return ``tiles`` for the products of ``x`` by ``count`` experts, the rows and columns of a
    tile, and how its program is built.
    """
    single = x.dtype == torch.float32
    rows = 64 if len(chosen) > 32 * count and not single else 16
    options = {
        "DOT": tl.float32 if single or interpreting() else tl.bfloat16,
        "num_warps": 4 if rows == 16 else 8,
        "num_stages": 1 if single else 3,
    }
    return tiles(chosen, count, rows), rows, 32 if single else 64, options


def tiles(chosen: Tensor, count: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sort ``chosen [slots]`` by expert and cut the runs of ``count`` experts into tiles.

    Return the slots in their order, and for each tile of up to ``rows`` its expert (-1: none), its
    first place in that order and the one behind its last. There are as many tiles as the worst case
    needs, whatever was chosen.
    """
    slots = len(chosen)
    order = torch.argsort(chosen, stable=True)
    sizes = torch.zeros(count, dtype=torch.int64, device=chosen.device)
    sizes.scatter_add_(0, chosen, torch.ones_like(chosen))
    needed = (sizes + rows - 1) // rows
    ends, last = needed.cumsum(0), sizes.cumsum(0)
    index = torch.arange(slots // rows + min(count, slots), device=chosen.device)
    expert = torch.searchsorted(ends, index, right=True)
    own = expert.clamp(max=count - 1)
    first = (last - sizes)[own] + (index - (ends - needed)[own]) * rows
    until = torch.minimum(first + rows, last[own])
    return order, torch.where(expert < count, expert, -1), first, until
