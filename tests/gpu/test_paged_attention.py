"""Attention over pages in Triton, split and whole, against the reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.attention import paged_attention
from kernels.attention import reference as plain
from kernels.backend import KernelError, addresses
from kernels.kv_cache import parts, quantise
from tests.gpu.comparing import CALM, close, randn

pytestmark = pytest.mark.gpu

LAYERS = 2


def make(
    lengths: list[int],
    time: int,
    kv_heads: int,
    group: int,
    dim: int,
    page: int,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, list[list[Tensor]], Tensor]:
    """Queries, pages and gates. Behind each length the pages hold NaN; gates are a view."""
    pages = []
    for row, length in enumerate(lengths):
        count = -(-length // page)
        content = randn(row, count, LAYERS, 2, kv_heads, page, dim, dtype=dtype)
        for index in range(count):
            content[index, :, :, :, max(0, length - index * page) :] = float("nan")
        pages.append([one.to(device).contiguous() for one in content])
    both = randn(99, len(lengths), time, kv_heads * group, 2 * dim, dtype=dtype).to(device)
    query, gate = both.chunk(2, dim=-1)
    return query, pages, gate


@CALM
@given(
    more=st.lists(st.integers(0, 150), min_size=1, max_size=3),
    time=st.one_of(st.integers(1, 8), st.integers(40, 70)),
    kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 4, 6]),
    dim=st.sampled_from([16, 32]),
    page=st.sampled_from([16, 64]),
    layer=st.integers(0, LAYERS - 1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_the_reference(
    device: torch.device,
    more: list[int],
    time: int,
    kv_heads: int,
    group: int,
    dim: int,
    page: int,
    layer: int,
    dtype: torch.dtype,
) -> None:
    lengths = [time + extra for extra in more]
    query, pages, gate = make(lengths, time, kv_heads, group, dim, page, dtype, device)
    got = paged_attention(query, pages, layer, lengths, gate, backend="triton")
    close(got, paged_attention(query, pages, layer, lengths, gate), bfloat16=3e-2)


@pytest.mark.parametrize("time", [1, 20])
@pytest.mark.parametrize("group", [4, 6])
def test_real_shape(device: torch.device, time: int, group: int) -> None:
    lengths = [300]
    query, pages, gate = make(lengths, time, 1, group, 256, 256, torch.bfloat16, device)
    got = paged_attention(query, pages, 1, lengths, gate, backend="triton")
    close(got, paged_attention(query, pages, 1, lengths, gate), bfloat16=3e-2)


def test_more_splits_than_one_block_each(device: torch.device) -> None:
    """Long enough that every split takes several blocks, and the last splits none."""
    lengths = [16 * 65 + 3]
    query, pages, gate = make(lengths, 1, 1, 2, 16, 16, torch.float32, device)
    got = paged_attention(query, pages, 0, lengths, gate, backend="triton")
    close(got, paged_attention(query, pages, 0, lengths, gate))


def test_a_row_does_not_depend_on_the_others(device: torch.device) -> None:
    lengths = [3, 90, 40]
    query, pages, gate = make(lengths, 1, 1, 2, 16, 16, torch.float32, device)
    together = paged_attention(query, pages, 0, lengths, gate, backend="triton")
    for row in range(3):
        own = (query[row : row + 1], pages[row : row + 1], 0, lengths[row : row + 1])
        alone = paged_attention(*own, gate[row : row + 1], backend="triton")
        assert torch.equal(together[row : row + 1], alone)


@pytest.mark.parametrize("time", [1, 5])
def test_what_is_appended_is_what_is_attended_to(device: torch.device, time: int) -> None:
    from kernels.attention.triton import append_at

    lengths, page = [16 + time - 2, time], 16
    query, pages, gate = make(lengths, time, 2, 2, 16, page, torch.float32, device)
    wide = randn(5, 2, time, 2, 40, device=device)
    keys, values = wide[..., :16], wide[..., 16:32]
    expected = [[one.clone() for one in held] for held in pages]
    for row, length in enumerate(lengths):
        for t in range(time):
            at = length - time + t
            expected[row][at // page][1, 0, :, at % page] = keys[row, t]
            expected[row][at // page][1, 1, :, at % page] = values[row, t]
    counts = torch.tensor(lengths, dtype=torch.int32, device=device)
    append_at(keys, values, addresses(pages), 1, counts, page=page)
    for got_row, expected_row in zip(pages, expected, strict=True):
        for a, b in zip(got_row, expected_row, strict=True):
            assert torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    got = paged_attention(query, pages, 1, lengths, gate, backend="triton")
    close(got, plain.paged_attention(query, pages, 1, lengths, gate))


@pytest.mark.parametrize("dim", [24, 512])
def test_an_unsupported_head_dimension_names_the_way_out(device: torch.device, dim: int) -> None:
    query, pages, gate = make([5], 1, 1, 2, dim, 16, torch.float32, device)
    with pytest.raises(KernelError, match=f"not {dim}; use backend='torch'"):
        paged_attention(query, pages, 0, [5], gate, backend="triton")


@pytest.mark.parametrize("kv", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("time", [1, 5, 40])
def test_eight_bits_are_rounded_and_read_as_the_reference_does(
    device: torch.device, time: int, kv: torch.dtype
) -> None:
    from kernels.attention.triton import append_at

    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        pytest.skip("this GPU has no float8")
    lengths, page, dim, heads = [time + 37, time], 16, 32, 2
    pages = [
        [
            torch.full((LAYERS, 2, heads, page * (dim + 4)), 127, dtype=torch.int8, device=device)
            .view(kv)
            .contiguous()
            for _ in range(-(-length // page))
        ]
        for length in lengths
    ]
    expected = [[one.clone() for one in held] for held in pages]
    rows = randn(3, 2, 2, max(lengths), heads, dim, device=device)
    for row, length in enumerate(lengths):
        for at in range(length):
            own, scales = parts(expected[row][at // page][1], dim)
            codes, scale = quantise(rows[row, :, at], kv)
            own[:, :, at % page], scales[:, :, at % page] = codes, scale
    every = torch.tensor(lengths, dtype=torch.int32, device=device)
    for row, length in enumerate(lengths):
        keys, values = rows[row : row + 1, 0, :length], rows[row : row + 1, 1, :length]
        table = addresses(pages[row : row + 1])
        append_at(keys, values, table, 1, every[row : row + 1], page=page, kv=kv)
        for got, wanted in zip(pages[row], expected[row], strict=True):
            # The interpreter's float8 is not a device's, so there only the reading is judged.
            assert kv != torch.int8 or torch.equal(got[1], wanted[1])
    query, gate = randn(4, 2, time, 4 * heads, 2 * dim, device=device).chunk(2, dim=-1)
    got = paged_attention(query, pages, 1, lengths, gate, backend="triton")
    close(got, paged_attention(query, pages, 1, lengths, gate))
