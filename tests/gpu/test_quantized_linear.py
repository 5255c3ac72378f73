"""Products with packed weights in Triton against the unpacked matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.backend import KernelError
from kernels.quantized_linear import PackedWeight, pack, pack_integers, quantized_linear
from kernels.quantized_linear.reference import Kind
from tests.gpu.comparing import CALM, close, randn

pytestmark = pytest.mark.gpu


def packed(kind: Kind, outputs: int, inputs: int, device: torch.device) -> PackedWeight:
    made = pack(randn(outputs, outputs, inputs) * inputs**-0.5, kind)
    return PackedWeight(kind, made.data.to(device), made.scales.to(device))


@CALM
@given(
    kind=st.sampled_from(["int4", "int8", "fp8"]),
    rows=st.one_of(st.integers(0, 3), st.sampled_from([16, 17, 65])),
    outputs=st.one_of(st.integers(1, 40), st.sampled_from([127, 129, 200])),
    groups=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_the_reference(
    device: torch.device,
    kind: Kind,
    rows: int,
    outputs: int,
    groups: int,
    dtype: torch.dtype,
) -> None:
    weight = packed(kind, outputs, groups * 128, device)
    x = randn(rows, rows, groups * 128, dtype=dtype, device=device)
    got = quantized_linear(x, weight, backend="triton")
    close(got, quantized_linear(x, weight))


@pytest.mark.parametrize("rows", [1, 2])
def test_every_number_of_e4m3(device: torch.device, rows: int) -> None:
    bits = torch.arange(256, dtype=torch.uint8)
    bits = bits[(bits & 0x7F) != 0x7F]  # those two are NaN, which weights are not
    data = torch.zeros(len(bits), 128, dtype=torch.uint8)
    data[:, 5] = bits
    scales = torch.ones(2, 1)
    weight = PackedWeight("fp8", data.to(device), scales.to(device))
    x = torch.zeros(rows, 128, device=device)
    x[:, 5] = 1
    got = quantized_linear(x, weight, backend="triton")
    assert torch.equal(got[0].cpu(), bits.view(torch.float8_e4m3fn).float())


@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("rows", [1, 3])
def test_smaller_groups_into_part_of_a_result(
    device: torch.device, kind: Kind, group: int, rows: int
) -> None:
    from kernels.quantized_linear.triton import quantized_linear as into

    integers = torch.randint(-8, 8, (20, 3 * group), generator=torch.Generator().manual_seed(1))
    made = pack_integers(integers, randn(2, 20, 3, dtype=torch.bfloat16), kind, group)
    weight = PackedWeight(kind, made.data.to(device), made.scales.to(device), group)
    x = randn(3, rows, 3 * group, device=device)
    wide = torch.full((rows, 30), 7.0, device=device)
    into(x, weight, out=wide[:, 4:24])
    close(wide[:, 4:24].contiguous(), quantized_linear(x, weight))
    assert (wide[:, :4] == 7).all() and (wide[:, 24:] == 7).all()


def test_an_input_that_does_not_fit_is_refused(device: torch.device) -> None:
    weight = packed("int8", 3, 128, device)
    with pytest.raises(KernelError, match="256 inputs do not fit a weight of 128"):
        quantized_linear(torch.zeros(1, 256, device=device), weight, backend="triton")
