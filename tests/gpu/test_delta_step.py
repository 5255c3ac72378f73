"""The fused DeltaNet step in Triton against its reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.backend import KernelError
from kernels.delta_step import SlotTensors, delta_step
from tests.gpu.comparing import CALM, close, randn

pytestmark = pytest.mark.gpu

WIDTH = 4


def make(
    batch: int,
    time: int,
    key_heads: int,
    group: int,
    dims: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[list[Tensor | float], list[SlotTensors]]:
    """All arguments up to ``eps``, and one memory a sequence."""
    key_dim, value_dim = dims
    heads = key_heads * group
    conv_dim = 2 * key_heads * key_dim + heads * value_dim
    projected = randn(time, batch, time, conv_dim + heads * value_dim + 2 * heads, dtype=dtype)
    arguments: list[Tensor | float] = [
        projected.to(device),
        randn(1, WIDTH, conv_dim, dtype=dtype, device=device),
        -randn(2, heads, device=device).exp(),
        randn(3, heads, device=device),
        randn(4, value_dim, device=device),
        1e-6,
    ]
    memory = [
        (
            randn(5 + row, WIDTH - 1, conv_dim, dtype=dtype, device=device),
            randn(50 + row, heads, key_dim, value_dim, device=device),
        )
        for row in range(batch)
    ]
    return arguments, memory


def blank(memory: list[SlotTensors]) -> list[SlotTensors]:
    return [(torch.empty_like(conv), torch.empty_like(state)) for conv, state in memory]


@CALM
@given(
    known=st.lists(st.booleans(), min_size=1, max_size=2),
    time=st.integers(1, 5),
    key_heads=st.integers(1, 2),
    group=st.integers(1, 2),
    dims=st.sampled_from([(16, 16), (32, 16), (16, 64)]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_the_reference(
    device: torch.device,
    known: list[bool],
    time: int,
    key_heads: int,
    group: int,
    dims: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    arguments, memory = make(len(known), time, key_heads, group, dims, dtype, device)
    sources = [own if here else None for own, here in zip(memory, known, strict=True)]
    before = [(conv.clone(), state.clone()) for conv, state in memory]
    got_memory, expected_memory = blank(memory), blank(memory)
    got = delta_step(*arguments, sources, got_memory, backend="triton")
    expected = delta_step(*arguments, sources, expected_memory)
    close(got, expected, float32=1e-4, bfloat16=4e-2)
    for row in range(len(known)):
        assert torch.equal(got_memory[row][0], expected_memory[row][0])
        close(
            got_memory[row][1],
            expected_memory[row][1],
            float32=1e-4 if dtype == torch.float32 else 2e-2,
        )
        assert all(torch.equal(a, b) for a, b in zip(memory[row], before[row], strict=True))


@pytest.mark.parametrize("time", [1, 8])
def test_real_head_dimensions(device: torch.device, time: int) -> None:
    arguments, memory = make(1, time, 1, 3, (128, 128), torch.bfloat16, device)
    got_memory, expected_memory = blank(memory), blank(memory)
    got = delta_step(*arguments, memory, got_memory, backend="triton")
    close(got, delta_step(*arguments, memory, expected_memory), bfloat16=4e-2)
    close(got_memory[0][1], expected_memory[0][1], float32=2e-2)


def test_a_row_does_not_depend_on_the_others(device: torch.device) -> None:
    arguments, memory = make(3, 2, 1, 2, (16, 16), torch.float32, device)
    together, alone = blank(memory), blank(memory)
    out = delta_step(*arguments, memory, together, backend="triton")
    for row in range(3):
        own = [arguments[0][row : row + 1], *arguments[1:]]
        part = delta_step(*own, memory[row : row + 1], alone[row : row + 1], backend="triton")
        assert torch.equal(out[row : row + 1], part)
        assert torch.equal(together[row][1], alone[row][1])


def test_more_than_eight_tokens_name_the_way_out(device: torch.device) -> None:
    arguments, memory = make(1, 9, 1, 1, (16, 16), torch.float32, device)
    with pytest.raises(KernelError, match=r"at most 8 tokens a step, not 9; use backend='torch'"):
        delta_step(*arguments, memory, blank(memory), backend="triton")
