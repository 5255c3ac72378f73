"""The chunked delta rule in Triton against the token by token definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.backend import KernelError
from kernels.gated_delta_rule import gated_delta_rule, gated_delta_rule_at, recurrent
from tests.gpu.comparing import CALM, close, randn

pytestmark = pytest.mark.gpu


def make(
    batch: int,
    time: int,
    key_heads: int,
    group: int,
    dims: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> list[Tensor]:
    """Slices of one wide projection, as the layer has them, gates, and a state."""
    key_dim, value_dim = dims
    heads = key_heads * group
    width = 2 * key_heads * key_dim + heads * value_dim
    wide = randn(time, batch, time, width + 3, dtype=dtype)[..., :width]
    q, k, v = wide.split([key_heads * key_dim, key_heads * key_dim, heads * value_dim], dim=-1)
    log_decay = -3 * torch.sigmoid(randn(1, batch, time, heads))
    beta = torch.sigmoid(randn(2, batch, time, heads))
    state = randn(3, batch, heads, key_dim, value_dim)
    shaped = [x.unflatten(2, (key_heads, key_dim)) for x in (q, k)]
    shaped.append(v.unflatten(2, (heads, value_dim)))
    return [x.to(device) for x in (*shaped, log_decay, beta, state)]


@CALM
@given(
    batch=st.integers(1, 2),
    time=st.one_of(st.sampled_from([1, 63, 64, 65, 128]), st.integers(0, 150)),
    key_heads=st.integers(1, 2),
    group=st.integers(1, 2),
    dims=st.sampled_from([(16, 16), (32, 16), (16, 64)]),
    with_state=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_the_recurrence(
    device: torch.device,
    batch: int,
    time: int,
    key_heads: int,
    group: int,
    dims: tuple[int, int],
    with_state: bool,
    dtype: torch.dtype,
) -> None:
    *inputs, state = make(batch, time, key_heads, group, dims, dtype, device)
    start = state if with_state else None
    before = [x.clone() for x in (*inputs, state)]
    out, end = gated_delta_rule(*inputs, start, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(before, (*inputs, state), strict=True))
    if time == 0:
        assert out.shape == inputs[2].shape
        assert torch.equal(end, state if with_state else torch.zeros_like(state))
        return
    expected_out, expected_end = recurrent(*inputs, start)
    close(out, expected_out, float32=1e-4, bfloat16=3e-2)
    close(end, expected_end, float32=1e-4 if dtype == torch.float32 else 3e-3)


def test_real_head_dimensions(device: torch.device) -> None:
    *inputs, state = make(1, 70, 1, 3, (128, 128), torch.bfloat16, device)
    out, end = gated_delta_rule(*inputs, state, backend="triton")
    expected_out, expected_end = recurrent(*inputs, state)
    close(out, expected_out, bfloat16=3e-2)
    close(end, expected_end, float32=3e-3)


def test_repeated_keys_stay_accurate(device: torch.device) -> None:
    """Equal keys and beta 1 are the worst case for the triangular system of a chunk."""
    query, key, value, log_decay, beta, state = make(1, 64, 1, 1, (16, 16), torch.float32, device)
    key = key[:, :1].expand_as(key)
    inputs = (query, key, value, torch.zeros_like(log_decay), torch.ones_like(beta), state)
    got, expected = gated_delta_rule(*inputs, backend="triton"), recurrent(*inputs)
    for a, b in zip(got, expected, strict=True):
        close(a, b, float32=1e-4)


def test_strong_decay_gives_no_nan(device: torch.device) -> None:
    query, key, value, log_decay, beta, state = make(1, 80, 1, 2, (16, 16), torch.float32, device)
    inputs = (query, key, value, log_decay * 1000, beta, state)
    got, expected = gated_delta_rule(*inputs, backend="triton"), recurrent(*inputs)
    for a, b in zip(got, expected, strict=True):
        close(a, b, float32=1e-4)


@pytest.mark.parametrize("positions", [(), (64,), (128,), (64, 128, 192)])
def test_states_on_the_way(device: torch.device, positions: tuple[int, ...]) -> None:
    inputs = make(2, 192, 1, 2, (16, 16), torch.float32, device)
    got = gated_delta_rule_at(*inputs, positions, backend="triton")
    expected = gated_delta_rule_at(*inputs, positions)
    for a, b in zip(got, expected, strict=True):
        close(a, b, float32=1e-4)
    # The states are those that the same tokens lead to when nothing follows.
    for index, position in enumerate(positions):
        part = [x[:, :position] for x in inputs[:-1]]
        end = gated_delta_rule(*part, inputs[-1], backend="triton")[1]
        assert torch.equal(got[2][index], end)


@pytest.mark.parametrize("positions", [(63,), (0,), (128, 64), (64, 64), (256,)])
def test_other_positions_are_refused(device: torch.device, positions: tuple[int, ...]) -> None:
    inputs = make(1, 192, 1, 1, (16, 16), torch.float32, device)
    for backend in ("torch", "triton"):
        with pytest.raises(KernelError, match="rising multiples of 64 up to 192"):
            gated_delta_rule_at(*inputs, positions, backend=backend)


def test_an_unsupported_key_dimension_names_the_way_out(device: torch.device) -> None:
    inputs = make(1, 5, 1, 1, (24, 16), torch.float32, device)
    with pytest.raises(KernelError, match=r"key dimension .* not 24; use backend='torch'"):
        gated_delta_rule(*inputs, backend="triton")
