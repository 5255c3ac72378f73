"""Products with blocks of e4m3 numbers in Triton against the matrix as plain numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.backend import KernelError
from kernels.fp8_linear import Fp8Weight, fp8_linear, round_to_fp8
from tests.gpu.comparing import CALM, close, randn

pytestmark = pytest.mark.gpu


def weight_of(outputs: int, inputs: int, by_rows: bool) -> Fp8Weight:
    made = round_to_fp8(randn(outputs, outputs, inputs) * inputs**-0.5)
    if not by_rows:
        return made
    return Fp8Weight(made.data, randn(1, outputs, inputs // 128).abs() / 100)


@CALM
@given(
    rows=st.one_of(st.integers(0, 3), st.sampled_from([16, 17, 65])),
    outputs=st.one_of(st.integers(2, 40), st.sampled_from([127, 129, 200])),
    groups=st.integers(1, 6),
    by_rows=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_the_reference(
    device: torch.device,
    rows: int,
    outputs: int,
    groups: int,
    by_rows: bool,
    dtype: torch.dtype,
) -> None:
    weight = weight_of(outputs, groups * 128, by_rows).to(device)
    assert weight.by_rows == by_rows
    x = randn(rows, rows, groups * 128, dtype=dtype, device=device)
    got = fp8_linear(x, weight, backend="triton")
    close(got, fp8_linear(x, weight))


@pytest.mark.parametrize("rows", [1, 2])
def test_every_number_of_e4m3(device: torch.device, rows: int) -> None:
    bits = torch.arange(256, dtype=torch.uint8)
    bits = bits[(bits & 0x7F) != 0x7F]  # those two are NaN, which weights are not
    data = torch.zeros(len(bits), 128, dtype=torch.uint8)
    data[:, 5] = bits
    weight = Fp8Weight(data, torch.ones(2, 1)).to(device)
    x = torch.zeros(rows, 128, device=device)
    x[:, 5] = 1
    got = fp8_linear(x, weight, backend="triton")
    assert torch.equal(got[0].cpu(), bits.view(torch.float8_e4m3fn).float())


def test_an_input_that_does_not_fit_is_refused(device: torch.device) -> None:
    weight = weight_of(3, 128, False).to(device)
    with pytest.raises(KernelError, match="256 inputs do not fit a weight of 128"):
        fp8_linear(torch.zeros(1, 256, device=device), weight, backend="triton")
