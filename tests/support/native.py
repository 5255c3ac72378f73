"""The compiled CPU path for tests: built if it is missing, at any level this machine runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels.native import LEVELS, Native, native
from kernels.native.build import BuildError, build
from model.checkpoint.config import ModelConfig
from model.checkpoint.weights import tensor_shapes


def library(level: str) -> Native:
    """The library at ``level``; the test is skipped where this machine cannot run or build it."""
    try:
        build(levels=LEVELS[:1])
        plain = native("plain")
        runs = 0 if plain is None else plain.call.tenuto_level()
        build(levels=LEVELS[: runs + 1])
    except BuildError as error:
        pytest.skip(str(error))
    found = native(level)
    if found is None or found.level != level:
        pytest.skip(f"this machine does not run level {level}")
    return found


@contextmanager
def dirty_memory(threads: int = 2) -> Iterator[None]:
    """Every ``torch.empty`` is full of NaN, and ``threads`` threads run."""
    before, count = torch.utils.deterministic.fill_uninitialized_memory, torch.get_num_threads()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before
        torch.set_num_threads(count)


def small_config(**changes: object) -> ModelConfig:
    """The smallest network that the compiled path runs: grouped heads, both kinds of layer."""
    config = replace(
        ModelConfig.tiny(vocab_size=300, context_length=4096),
        hidden_size=64,
        intermediate_size=96,
        head_dim=32,
        linear_key_head_dim=16,
        linear_value_head_dim=32,
        rotary_dim=8,
        mrope_section=(2, 1, 1),
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def random_tensors(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """Weights for ``config`` that keep activations near one."""
    g = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=g) * (0.6 * shape[-1] ** -0.5)
        for name, shape in tensor_shapes(config).items()
    }
