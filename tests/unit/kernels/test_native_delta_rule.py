"""The compiled gated delta rule, token by token and in chunks, against the recurrent reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import KernelError
from kernels.gated_delta_rule import native as compiled
from kernels.gated_delta_rule import recurrent
from kernels.native import LEVELS
from tests.support.native import dirty_memory, library


@settings(max_examples=40, deadline=None)
@given(
    level=st.sampled_from(LEVELS),
    steps=st.booleans(),
    batch=st.integers(1, 2),
    time=st.integers(1, 150),
    heads=st.sampled_from([(1, 1), (2, 2), (2, 6)]),
    dims=st.sampled_from([(16, 16), (32, 64), (128, 128), (48, 16)]),
    forgetting=st.sampled_from([0.0, 0.1, 3.0, 200.0]),
    writes_fully=st.booleans(),
    with_state=st.booleans(),
    threads=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_equals_the_reference(
    level: str,
    steps: bool,
    batch: int,
    time: int,
    heads: tuple[int, int],
    dims: tuple[int, int],
    forgetting: float,
    writes_fully: bool,
    with_state: bool,
    threads: int,
    seed: int,
) -> None:
    g = torch.Generator().manual_seed(seed)
    (key_heads, value_heads), (key_dim, value_dim) = heads, dims
    query, key = torch.randn(2, batch, time, key_heads, key_dim, generator=g)
    value = torch.randn(batch, time, value_heads, value_dim, generator=g)
    log_decay = -forgetting * torch.rand(batch, time, value_heads, generator=g)
    beta = torch.rand(batch, time, value_heads, generator=g)
    if writes_fully:
        beta = torch.ones_like(beta)
    state = torch.randn(batch, value_heads, key_dim, value_dim, generator=g) if with_state else None
    before = None if state is None else state.clone()
    inputs = (query, key, value, log_decay, beta, state)
    with dirty_memory(threads):
        got, after = compiled.gated_delta_rule(library(level), *inputs, steps=steps)
    expected, expected_after = recurrent(*inputs)
    torch.testing.assert_close(got, expected, atol=5e-4, rtol=1e-3)
    torch.testing.assert_close(after, expected_after, atol=5e-4, rtol=1e-3)
    if state is not None and before is not None:
        assert torch.equal(state, before)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    g = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 90, 4, 32, generator=g)
    gates = torch.rand(2, 1, 90, 4, generator=g)
    runs = []
    for threads in (1, 2, 3):
        with dirty_memory(threads):
            runs.append(
                compiled.gated_delta_rule(library("plain"), query, key, value, -gates[0], gates[1])
            )
    for out, after in runs[1:]:
        assert torch.equal(out, runs[0][0])
        assert torch.equal(after, runs[0][1])


@pytest.mark.parametrize("level", LEVELS)
def test_states_that_go_past_the_caches_are_the_same_ones(level: str) -> None:
    g = torch.Generator().manual_seed(3)
    batch, heads, dim = 9, 16, 128  # 9.4 MB of states; one sequence has a ninth of that
    query, key, value = torch.randn(3, batch, 2, heads, dim, generator=g)
    gates = torch.rand(2, batch, 2, heads, generator=g)
    inputs = (query, key, value, -gates[0], gates[1])
    state = torch.randn(batch, heads, dim, dim, generator=g)
    with dirty_memory(3):
        out, after = compiled.gated_delta_rule(library(level), *inputs, state)
    for row in (0, batch - 1):
        one = (*(t[row : row + 1] for t in inputs), state[row : row + 1])
        alone, after_alone = compiled.gated_delta_rule(library(level), *one)
        assert torch.equal(out[row : row + 1], alone)
        assert torch.equal(after[row : row + 1], after_alone)


def test_other_head_dimensions_name_the_reference() -> None:
    x = torch.ones(1, 2, 1, 8)
    with pytest.raises(KernelError, match="multiples of 16, not 8 and 8; use the reference"):
        compiled.gated_delta_rule(library("plain"), x, x, x, x[..., 0], x[..., 0])
