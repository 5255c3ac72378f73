"""Rotary position embedding in plain torch, after Su et al., "RoFormer" (2021), in the interleaved
multimodal form of the Qwen family: a token has three positions (time, height, width), and
frequency ``j`` turns with one of them. Text has three equal positions, which makes it plain RoPE.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def frequencies(rotary_dim: int, theta: float, section: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the angular speed of each pair of dimensions, and which position it turns with.

    Of the frequencies in turn, every third one counts height and every third one width, the first
    ``section[1]`` and ``section[2]`` of them; all others count time. Both results are
    ``[rotary_dim / 2]``, float32 and int64.
    """
    speed = 1.0 / theta ** (torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim)
    axis = torch.zeros(rotary_dim // 2, dtype=torch.int64)
    for position in (1, 2):
        axis[position : 3 * section[position] : 3] = position
    return speed, axis


def tables(positions: Tensor, speed: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[time, rotary_dim / 2]`` in float32 for ``positions [3, time]``."""
    angles = positions[axis].T.float() * speed
    return angles.cos(), angles.sin()


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first ``rotary_dim`` dimensions of ``x [batch, time, heads, dim]``.

    ``cos`` and ``sin`` are ``[time, rotary_dim / 2]``, or ``[batch, time, rotary_dim / 2]`` if the
    rows are at different positions.
    Dimension ``i`` of the first half is paired with dimension ``i`` of the second half; dimensions
    from ``rotary_dim`` on pass through. Computes in float32, returns the dtype of ``x``.
    """
    half = cos.shape[-1]
    first, second = x[..., :half].float(), x[..., half : 2 * half].float()
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return torch.cat([turned.to(x.dtype), x[..., 2 * half :]], dim=-1)
