"""The parts that both kinds of layer share: the feed-forward network, and the block around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from kernels.experts import DeviceStack, ExpertStack, ExpertWeight
from kernels.linear import Part, StackedWeight, Weight, linear, stack
from kernels.rms_norm import rms_norm
from kernels.swiglu import swiglu
from model.state.passes import LayerMemory


@dataclass(frozen=True)
class Take:
    """Fetches the weights of one layer by the names they have in the checkpoint.

    Matrices are cast to ``dtype``, except those that ``quantized`` holds, under the name of the
    first of those that were joined in it.
    """

    tensors: Mapping[str, Tensor]
    dtype: torch.dtype
    quantized: Mapping[str, Weight | ExpertStack | DeviceStack] = field(default_factory=dict)
    prefix: str = ""

    def under(self, prefix: str) -> Take:
        """Return the same for names that begin with ``prefix``."""
        return replace(self, prefix=self.prefix + prefix)

    def __call__(self, name: str) -> Tensor:
        """Return the tensor as it is stored."""
        return self.tensors[self.prefix + name]

    def floats(self, name: str) -> Tensor:
        """Return the tensor in float32."""
        return self(name).float()

    def matrix(self, *names: str, plain: tuple[str, ...] = ()) -> Weight:
        """Stack the matrices ``names``, then ``plain`` (never quantised), one below the other."""
        joined = self.quantized.get(self.prefix + names[0])
        parts: list[Part] = []
        if joined is not None:
            assert not isinstance(joined, ExpertStack | DeviceStack)
            parts += joined.parts if isinstance(joined, StackedWeight) else (joined,)
            names = ()
        parts += [self(name).to(self.dtype) for name in (*names, *plain)]
        return stack(parts)

    def experts(self, name: str) -> ExpertWeight:
        """Return the matrices ``name`` of all experts, ``[experts, outputs, inputs]``."""
        held = self.quantized.get(self.prefix + name)
        if held is None:
            return self(name).to(self.dtype)
        assert isinstance(held, ExpertStack | DeviceStack)
        return held


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the positions at hand, for all layers: ``[time, rotary_dim / 2]``, or
    ``[batch, 1, rotary_dim / 2]`` in a pass over several sequences."""

    cos: Tensor
    sin: Tensor


class Mixer(Protocol):
    """A layer that mixes tokens: attention or DeltaNet. Without a memory the sequence starts here
    and nothing is kept.
    """

    def __call__(self, x: Tensor, rotation: Rotation, memory: LayerMemory | None) -> Tensor:
        """Mix ``x [batch, time, hidden]`` along time; write what it leaves to ``memory``."""
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

    gate_up: Weight
    down: Weight

    @classmethod
    def build(cls, take: Take) -> FeedForward:
        """From the checkpoint's tensors of one network."""
        gate_up = take.matrix("gate_proj.weight", "up_proj.weight")
        return cls(gate_up, take.matrix("down_proj.weight"))

    def __call__(self, x: Tensor) -> Tensor:
        return linear(swiglu(linear(x, self.gate_up)), self.down)


class TokenMap(Protocol):
    """A map of each token by itself: a feed-forward network, or experts."""

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``x [batch, time, hidden]``."""
        ...


@dataclass(frozen=True)
class DecoderLayer:
    """One layer: a mixer and a feed-forward network, each on a normalised residual stream."""

    input_norm: Norm
    mixer: Mixer
    post_norm: Norm
    feed_forward: TokenMap

    def __call__(self, x: Tensor, rotation: Rotation, memory: LayerMemory | None) -> Tensor:
        x = x + self.mixer(self.input_norm(x), rotation, memory)
        return x + self.feed_forward(self.post_norm(x))
