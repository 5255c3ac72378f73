"""What a hybrid network remembers: per layer a DeltaNet state of fixed size or a growing KV cache.

All of it is immutable from outside. DeltaNet states are replaced, never written to. KV caches are
views of a shared buffer that only grows at its end, so going back to an earlier view, or forking
from it, costs nothing until it grows differently, and then one copy of what both have in common.
Sessions that share a buffer (forks) must run in one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import ModelConfig
from model.errors import StateError

_GRAIN = 256


@dataclass(frozen=True)
class DeltaState:
    """One DeltaNet layer's memory.

    ``conv`` ``[batch, width - 1, conv_dim]`` holds the last inputs of the short convolution,
    ``recurrent`` ``[batch, value_heads, key_dim, value_dim]`` the delta rule's state, in float32
    whatever the weights are.
    """

    conv: Tensor
    recurrent: Tensor


@dataclass
class _Buffer:
    """Keys and values ``[2, batch, kv_heads, capacity, dim]``, used up to ``filled``."""

    store: Tensor
    filled: int


@dataclass(frozen=True)
class KVCache:
    """One attention layer's keys and values of the first ``length`` positions."""

    buffer: _Buffer
    length: int

    @classmethod
    def empty(cls, batch: int, kv_heads: int, dim: int, like: Tensor) -> KVCache:
        """A cache without positions, in the dtype and on the device of ``like``."""
        return cls(_Buffer(like.new_empty(2, batch, kv_heads, 0, dim), 0), 0)

    @property
    def keys(self) -> Tensor:
        """``[batch, kv_heads, length, dim]``."""
        return self.buffer.store[0, :, :, : self.length]

    @property
    def values(self) -> Tensor:
        """``[batch, kv_heads, length, dim]``."""
        return self.buffer.store[1, :, :, : self.length]

    def append(self, keys: Tensor, values: Tensor) -> KVCache:
        """A cache with ``keys`` and ``values [batch, kv_heads, time, dim]`` added at the end."""
        end = self.length + keys.shape[2]
        buffer = self.buffer
        # Only the longest view may write in place: behind a shorter one lies another's future.
        if buffer.filled != self.length or end > buffer.store.shape[3]:
            buffer = self._copy(capacity=_capacity(end, buffer.store.shape[3]))
        buffer.store[0, :, :, self.length : end] = keys
        buffer.store[1, :, :, self.length : end] = values
        buffer.filled = end
        return KVCache(buffer, end)

    def _copy(self, capacity: int) -> _Buffer:
        old = self.buffer.store
        store = old.new_empty(*old.shape[:3], capacity, old.shape[4])
        store[:, :, :, : self.length] = old[:, :, :, : self.length]
        return _Buffer(store, self.length)


def _capacity(needed: int, present: int) -> int:
    """Room for ``needed`` positions, growing by half so that all copies together stay linear."""
    grown = present + present // 2 if needed > present else needed
    return -(-max(needed, grown) // _GRAIN) * _GRAIN


LayerState = DeltaState | KVCache


@dataclass(frozen=True)
class HybridState:
    """The memory of all layers after ``length`` tokens."""

    length: int
    layers: tuple[LayerState, ...]

    @classmethod
    def empty(cls, config: ModelConfig, like: Tensor, batch: int = 1) -> HybridState:
        """Before the first token; caches take the dtype and device of ``like``."""
        return cls(0, tuple(_empty_layer(config, kind, like, batch) for kind in config.layer_types))

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name: ``layers.N.conv``, ``.recurrent``, ``.keys``, ``.values``."""
        named: dict[str, Tensor] = {}
        for index, layer in enumerate(self.layers):
            for name in _fields(layer):
                named[f"layers.{index}.{name}"] = getattr(layer, name)
        return named

    def load(self, tensors: Mapping[str, Tensor], length: int) -> HybridState:
        """The state whose ``tensors()`` these are; ``self`` is an empty one of the same network.

        Raises ``StateError`` if a tensor is missing, unknown, or of another shape or dtype.
        """
        left = dict(tensors)
        layers = []
        for index, layer in enumerate(self.layers):
            given = []
            for name in _fields(layer):
                key = f"layers.{index}.{name}"
                like: Tensor = getattr(layer, name)
                shape = list(like.shape)
                if isinstance(layer, KVCache):
                    shape[2] = length
                found = left.pop(key, None)
                if found is None or list(found.shape) != shape or found.dtype != like.dtype:
                    raise StateError(f"the saved state's {key} is missing or does not fit")
                given.append(found.to(like.device))
            layers.append(
                layer.append(*given) if isinstance(layer, KVCache) else DeltaState(*given)
            )
        if left:
            raise StateError(f"the saved state holds an unknown tensor, {sorted(left)[0]}")
        return HybridState(length, tuple(layers))


def _fields(layer: LayerState) -> tuple[str, str]:
    return ("keys", "values") if isinstance(layer, KVCache) else ("conv", "recurrent")


def _empty_layer(config: ModelConfig, kind: str, like: Tensor, batch: int) -> LayerState:
    if kind == "full_attention":
        return KVCache.empty(batch, config.num_key_value_heads, config.head_dim, like)
    return DeltaState(
        like.new_zeros(batch, config.linear_conv_kernel_dim - 1, config.conv_dim),
        torch.zeros(
            batch,
            config.linear_num_value_heads,
            config.linear_key_head_dim,
            config.linear_value_head_dim,
            dtype=torch.float32,
            device=like.device,
        ),
    )
