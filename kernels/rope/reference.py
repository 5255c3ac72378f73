"""Rotary position embedding in plain torch, after Su et al., "RoFormer" (2021), in the interleaved
multimodal form of the Qwen family: a token has three positions (time, height, width), and
frequency ``j`` turns with one of them. Text has three equal positions, which makes it plain RoPE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Yarn:
    """A context stretched to ``factor`` times the ``original`` length (Peng et al., "YaRN", 2023).

    Dimensions that turn more than ``beta_fast`` times in the original context stay as they are,
    those that turn less than ``beta_slow`` times are slowed by ``factor``, with a ramp between,
    whose ends ``truncate`` rounds outwards. Cosines and sines are multiplied by ``magnitude``.
    """

    factor: float
    original: int
    magnitude: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def slowed(self, speed: Tensor, theta: float) -> Tensor:
        """Return ``speed [rotary_dim / 2]`` of plain rotation with base ``theta`` as YaRN has it,
        in the steps of transformers' ``_compute_yarn_parameters``."""
        dim = 2 * len(speed)

        def turning(times: float) -> float:
            """Return the dimension that turns so often in the original context."""
            return dim * math.log(self.original / (times * 2 * math.pi)) / (2 * math.log(theta))

        low, high = turning(self.beta_fast), turning(self.beta_slow)
        if self.truncate:
            low, high = float(math.floor(low)), float(math.ceil(high))
        low, high = max(low, 0.0), min(high, dim - 1.0)
        if low == high:
            high += 0.001
        ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
        kept = 1 - ramp
        period = theta ** (torch.arange(0, dim, 2).float() / dim)
        return 1.0 / (self.factor * period) * (1 - kept) + 1.0 / period * kept


def frequencies(
    rotary_dim: int, theta: float, section: Sequence[int], yarn: Yarn | None = None
) -> tuple[Tensor, Tensor]:
    """Return the angular speed of each pair of dimensions, and which position it turns with.

    Of the frequencies in turn, every third one counts height and every third one width, the first
    ``section[1]`` and ``section[2]`` of them; all others count time. Both results are
    ``[rotary_dim / 2]``, float32 and int64.
    """
    speed = 1.0 / theta ** (torch.arange(0, rotary_dim, 2, dtype=torch.float32) / rotary_dim)
    axis = torch.zeros(rotary_dim // 2, dtype=torch.int64)
    for position in (1, 2):
        axis[position : 3 * section[position] : 3] = position
    return speed if yarn is None else yarn.slowed(speed, theta), axis


def tables(
    positions: Tensor, speed: Tensor, axis: Tensor, magnitude: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Cosines and sines ``[time, rotary_dim / 2]`` in float32 for ``positions [3, time]``, times
    ``magnitude``."""
    angles = positions[axis].T.float() * speed
    return angles.cos() * magnitude, angles.sin() * magnitude


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
