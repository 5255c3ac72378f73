"""KV caches: growth, sharing between views, and states as saved tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.cache import DeltaState, HybridState, KVCache
from model.config import ModelConfig
from model.errors import StateError


def rows(count: int, value: float) -> tuple[torch.Tensor, torch.Tensor]:
    keys = torch.full((1, 2, count, 4), value)
    return keys, -keys


@pytest.fixture
def empty() -> KVCache:
    return KVCache.empty(1, 2, 4, torch.zeros(1))


def test_appending_grows_and_keeps_what_is_there(empty: KVCache) -> None:
    cache, expected = empty, []
    for step, count in enumerate([1, 300, 1, 1, 700]):
        cache = cache.append(*rows(count, step))
        expected += [float(step)] * count
        # Unwritten room must never show.
        cache.buffer.store[:, :, :, cache.length :] = float("nan")
    assert cache.length == len(expected)
    assert cache.keys[0, 1, :, 3].tolist() == expected
    assert torch.equal(cache.values, -cache.keys)


def test_growth_copies_rarely(empty: KVCache) -> None:
    cache, buffers = empty, set()
    for _ in range(3000):
        cache = cache.append(*rows(1, 0.0))
        buffers.add(cache.buffer.store.data_ptr())
    assert len(buffers) <= 8
    assert cache.buffer.store.shape[3] < 2 * 3000


def test_views_of_one_buffer_do_not_disturb_each_other(empty: KVCache) -> None:
    trunk = empty.append(*rows(5, 1.0))
    left = trunk.append(*rows(2, 2.0))
    right = trunk.append(*rows(3, 3.0))
    again = left.append(*rows(1, 4.0))
    assert left.buffer is trunk.buffer
    assert right.buffer is not trunk.buffer
    assert trunk.keys[0, 0, :, 0].tolist() == [1.0] * 5
    assert left.keys[0, 0, :, 0].tolist() == [1.0] * 5 + [2.0] * 2
    assert right.keys[0, 0, :, 0].tolist() == [1.0] * 5 + [3.0] * 3
    assert again.keys[0, 0, :, 0].tolist() == [1.0] * 5 + [2.0] * 2 + [4.0]


@pytest.fixture
def config(tiny_checkpoint: Path) -> ModelConfig:
    return ModelConfig.load(tiny_checkpoint)


def filled(config: ModelConfig, length: int) -> HybridState:
    layers = []
    for layer in HybridState.empty(config, torch.zeros(1)).layers:
        if isinstance(layer, KVCache):
            layers.append(layer.append(*torch.randn(2, 1, 2, length, 16)))
        else:
            layers.append(DeltaState(layer.conv + 1, torch.randn_like(layer.recurrent)))
    return HybridState(length, tuple(layers))


def test_a_state_survives_its_tensors(config: ModelConfig) -> None:
    state = filled(config, 9)
    copy = HybridState.empty(config, torch.zeros(1)).load(state.tensors(), 9)
    assert copy.length == 9
    assert copy.tensors().keys() == state.tensors().keys()
    assert all(torch.equal(t, copy.tensors()[name]) for name, t in state.tensors().items())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "dtype", "length"])
def test_tensors_that_do_not_fit_are_refused(config: ModelConfig, fault: str) -> None:
    tensors, length = filled(config, 9).tensors(), 9
    name = "layers.0.recurrent"
    if fault == "missing":
        del tensors[name]
    elif fault == "unknown":
        tensors["layers.9.conv"] = torch.zeros(1)
    elif fault == "shape":
        tensors[name] = tensors[name][:, :1]
    elif fault == "dtype":
        tensors[name] = tensors[name].bfloat16()
    else:
        length = 8
    with pytest.raises(StateError):
        HybridState.empty(config, torch.zeros(1)).load(tensors, length)


def test_the_recurrent_state_is_float32_in_any_model(config: ModelConfig) -> None:
    state = HybridState.empty(config, torch.zeros(1, dtype=torch.bfloat16))
    assert state.tensors()["layers.0.recurrent"].dtype == torch.float32
    assert state.tensors()["layers.0.conv"].dtype == torch.bfloat16
    assert state.tensors()["layers.3.keys"].dtype == torch.bfloat16
