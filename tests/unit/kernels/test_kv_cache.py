"""Keys and values in 8 bits: rounding, pages, and attention that reads them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention.reference import attention, paged_attention
from kernels.kv_cache import dequantise, parts, quantise

FORMS = {torch.int8: 0.5 / 127, torch.float8_e4m3fn: 1 / 16}
"""The largest error of each form, as a part of the row's largest value."""


@pytest.mark.parametrize("dtype", list(FORMS))
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), power=st.integers(-12, 12))
def test_rounding_is_near_and_done_once(dtype: torch.dtype, seed: int, power: int) -> None:
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(seed)) * 2.0**power
    codes, scales = quantise(x, dtype)
    back = dequantise(codes, scales)
    most = x.abs().amax(-1, keepdim=True)
    assert bool(((back - x).abs() <= most * FORMS[dtype] * 1.001).all())
    # What was rounded is rounded to itself, so a way through the values loses nothing.
    again, same = quantise(back, dtype)
    assert torch.equal(again.float(), codes.float())
    torch.testing.assert_close(same, scales, rtol=1e-6, atol=0)


def test_a_row_of_zeros_stays_zero() -> None:
    assert dequantise(*quantise(torch.zeros(2, 32), torch.int8)).abs().max() == 0


@pytest.mark.parametrize("dtype", list(FORMS))
def test_attention_over_codes_is_attention_over_their_values(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    page, dim, length = 16, 32, 41
    pages = [torch.empty(2, 2, 3, page * (dim + 4), dtype=dtype) for _ in range(3)]
    rows = torch.randn(2, 2, 3, 3 * page, dim)
    codes, scales = quantise(rows, dtype)
    for number, each in enumerate(pages):
        own, own_scales = parts(each, dim)
        own.copy_(codes[:, :, :, number * page : (number + 1) * page])
        own_scales.copy_(scales[:, :, :, number * page : (number + 1) * page])
    q, gate = torch.randn(1, 5, 6, dim), torch.randn(1, 5, 6, dim)
    keys, values = dequantise(codes, scales)[1][:, None, :, :length]
    expected = attention(q, keys, values, gate)
    assert torch.equal(paged_attention(q, [pages], 1, [length], gate), expected)
    exact = attention(q, *rows[1][:, None, :, :length], gate)
    assert 0 < float((expected - exact).abs().max()) < 0.2
