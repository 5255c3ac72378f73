"""Products with the general quantised form in Triton against the matrix as plain numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.backend import KernelError
from kernels.linear import Code, QuantizedWeight, linear
from kernels.linear.blocks import rows_at
from tests.gpu.comparing import CALM, close, randn
from tests.support.quantized import CODES, random_weight, weights

pytestmark = pytest.mark.gpu


def compare(x: torch.Tensor, weight: QuantizedWeight, device: torch.device) -> None:
    from kernels.linear.triton import coded_linear

    expected = linear(x, weight)
    # The test's scales are any numbers: what is small beside the sum's parts may be far off.
    scale = float(expected.float().square().mean().sqrt()) if expected.numel() else 1.0
    got = coded_linear(x.to(device), weight.to(device)).cpu()
    close(got / max(scale, 1e-20), expected / max(scale, 1e-20))


@CALM
@given(
    weight=weights(),
    rows=st.one_of(st.integers(0, 3), st.sampled_from([16, 17, 65])),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_the_reference(
    device: torch.device, weight: QuantizedWeight, rows: int, dtype: torch.dtype
) -> None:
    compare(randn(rows, rows, weight.inputs, dtype=dtype), weight, device)


@pytest.mark.parametrize("code", CODES, ids=str)
def test_every_code(device: torch.device, code: Code) -> None:
    group = 32 if code.bits == 5 else 16
    for rows, scales in ((1, "int8"), (2, "float32")):
        weight = random_weight(code, group, scales, scales == "int8", 24, 64)
        compare(randn(rows, rows, weight.inputs), weight, device)


@CALM
@given(weight=weights(), data=st.data())
def test_rows_by_their_ids(
    device: torch.device, weight: QuantizedWeight, data: st.DataObject
) -> None:
    from kernels.linear.triton import coded_rows

    ids = torch.tensor(
        data.draw(st.lists(st.integers(0, weight.outputs - 1), min_size=1, max_size=20))
    )
    got = coded_rows(ids.to(torch.int64).to(device), weight.to(device), torch.float32)
    close(got.cpu(), rows_at(weight, ids.to(torch.int64)))


def test_into_part_of_a_result(device: torch.device) -> None:
    from kernels.linear.triton import coded_linear

    weight = random_weight(Code(4, 8), 32, "bfloat16", False, 20, 96)
    for rows in (1, 3):
        x, wide = randn(3, rows, 96), torch.full((rows, 30), 7.0, device=device)
        coded_linear(x.to(device), weight.to(device), out=wide[:, 4:24])
        close(wide[:, 4:24].cpu().contiguous(), linear(x, weight))
        assert (wide[:, :4] == 7).all() and (wide[:, 24:] == 7).all()


def test_an_input_that_does_not_fit_is_refused(device: torch.device) -> None:
    from kernels.linear.triton import coded_linear

    weight = random_weight(Code(4, 8), 32, "bfloat16", False, 20, 96).to(device)
    with pytest.raises(KernelError, match="64 inputs do not fit a weight of 96"):
        coded_linear(torch.zeros(1, 64, device=device), weight)
