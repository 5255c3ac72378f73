"""The parts that both kinds of layer share: the feed-forward network, and the block around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from kernels.linear import linear
from kernels.rms_norm import rms_norm
from kernels.swiglu import swiglu
from model.passes import LayerMemory

Take = Callable[[str], Tensor]
"""Fetches a tensor of one layer by the name it has in the checkpoint."""


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the positions at hand, for all layers: ``[time, rotary_dim / 2]``, or
    ``[batch, 1, rotary_dim / 2]`` in a pass over several sequences."""

    cos: Tensor
    sin: Tensor


class Mixer(Protocol):
    """What mixes tokens: attention or DeltaNet. Without a memory the sequence starts here and
    nothing is kept."""

    def __call__(self, x: Tensor, rotation: Rotation, memory: LayerMemory | None) -> Tensor:
        """``x [batch, time, hidden]`` mixed along time; what it leaves is written to ``memory``."""
        ...


@dataclass(frozen=True)
class Norm:
    """A zero-centred RMSNorm: those over the hidden size and over query and key heads."""

    weight: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps, zero_centred=True)


@dataclass(frozen=True)
class FeedForward:
    """SwiGLU feed-forward. ``gate_up`` ``[2 * intermediate, hidden]`` is both projections."""

    gate_up: Tensor
    down: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return linear(swiglu(linear(x, self.gate_up)), self.down)


@dataclass(frozen=True)
class Block:
    """One layer: a mixer and a feed-forward network, each on a normalised residual stream."""

    input_norm: Norm
    mixer: Mixer
    post_norm: Norm
    feed_forward: FeedForward

    def __call__(self, x: Tensor, rotation: Rotation, memory: LayerMemory | None) -> Tensor:
        x = x + self.mixer(self.input_norm(x), rotation, memory)
        return x + self.feed_forward(self.post_norm(x))
