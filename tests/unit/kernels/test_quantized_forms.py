"""The general quantised form: its layout, and its products on the compiled path."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.backend import KernelError
from kernels.fp8_linear import round_to_fp8
from kernels.linear import (
    Code,
    QuantizedWeight,
    StackedWeight,
    dequantize,
    from_codes,
    from_integers,
    join,
    linear,
    plain,
)
from kernels.linear import native as compiled
from kernels.linear.blocks import codes_of, lay_out, lay_out_reference, rows_at
from kernels.native import LEVELS
from tests.support.native import dirty_memory, library
from tests.support.quantized import CODES, E2M1, random_weight, rounded_inputs, weights


@given(bits=st.sampled_from([4, 5, 6, 8]), blocks=st.integers(1, 3), seed=st.integers(0, 99))
def test_codes_come_back_from_their_blocks(bits: int, blocks: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (16 * blocks, 96), generator=g, dtype=torch.uint8)
    scales = torch.ones(16 * blocks, 3, dtype=torch.bfloat16)
    weight = from_codes(Code(bits), codes, scales)
    assert torch.equal(weight.data, lay_out(codes, bits))
    assert torch.equal(weight.data, lay_out_reference(codes, bits))
    assert torch.equal(codes_of(weight), codes)
    assert weight.data.nbytes == codes.numel() * bits // 8


@settings(max_examples=40, deadline=None)
@given(weight=weights(), data=st.data())
def test_rows_are_looked_up_one_by_one(weight: QuantizedWeight, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, weight.outputs - 1), min_size=1, max_size=9))
    assert torch.equal(rows_at(weight, torch.tensor(ids)), dequantize(weight)[ids])


@settings(max_examples=60, deadline=None)
@given(
    weight=weights(),
    rows=st.integers(1, 40),
    level=st.sampled_from(LEVELS[:2]),
    seed=st.integers(0, 1000),
)
def test_products_equal_those_of_the_rounded_inputs(
    weight: QuantizedWeight, rows: int, level: str, seed: int
) -> None:
    x = torch.randn(rows, weight.inputs, generator=torch.Generator().manual_seed(seed))
    x[0, :16] = 0
    with dirty_memory(2):
        got = compiled.linear(library(level), x, weight)
    exact = rounded_inputs(x, weight) @ dequantize(weight).double().T
    most = rounded_inputs(x, weight).abs() @ dequantize(weight).double().abs().T
    assert ((got - exact).abs() <= 1e-5 * most + 1e-30).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("code", CODES, ids=str)
def test_a_row_keeps_its_bits_whatever_shares_the_pass(level: str, code: Code) -> None:
    x = torch.randn(37, 128, generator=torch.Generator().manual_seed(1))
    for group in (32,) if code.bits == 5 else (16, 32):
        weight = random_weight(code, group, "int8", True, 56, 128)
        with dirty_memory(3):
            together = compiled.linear(library(level), x, weight, exact_rows=True)
        with dirty_memory(1):
            for rows in (1, 2, 3, 5, 8, 11, 16):
                few = compiled.linear(library(level), x[:rows], weight)
                assert torch.equal(few, together[:rows])


def test_the_largest_codes_and_inputs_do_not_overflow() -> None:
    for code in CODES:
        codes = torch.full((16, 128), (1 << code.bits) - 1, dtype=torch.uint8)
        weight = from_codes(code, codes, torch.ones(16, 4, dtype=torch.bfloat16))
        for level in LEVELS[:2]:
            for x in (torch.ones(20, 128), -torch.ones(20, 128)):
                got = compiled.linear(library(level), x, weight)
                torch.testing.assert_close(got, linear(x, weight), rtol=1e-5, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    outputs=st.sampled_from([1, 70, 128, 300]),
    inputs=st.sampled_from([128, 256, 384]),
    level=st.sampled_from(LEVELS[:2]),
)
def test_e4m3_blocks_are_multiplied_as_they_lie_in_the_file(
    rows: int, outputs: int, inputs: int, level: str
) -> None:
    g = torch.Generator().manual_seed(rows)
    weight = round_to_fp8(torch.randn(outputs, inputs, generator=g))
    weight.data[0, :16] = torch.arange(16)  # subnormal numbers too
    x = torch.randn(rows, inputs, generator=g)
    with dirty_memory(2):
        got = compiled.linear(library(level), x, weight)
        first = compiled.linear(library(level), x[:1], weight)
        exact_rows = compiled.linear(library(level), x, weight, exact_rows=True)
    assert torch.equal(first[0], exact_rows[0])
    exact = x.double() @ plain(weight, torch.float64).T
    most = x.double().abs() @ plain(weight, torch.float64).abs().T
    assert ((got - exact).abs() <= 1e-5 * most).all()


def test_parts_of_different_forms_are_joined_without_a_copy() -> None:
    q, k = (random_weight(CODES[0], 32, "int8", True, 48, 128, seed) for seed in (1, 2))
    v = random_weight(CODES[5], 16, "int8", False, 32, 128, 3)
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(4))
    joined = join([q, k, v])
    assert [part.outputs for part in joined] == [96, 32]
    assert joined[1] is v
    got = compiled.linear(library("plain"), x, StackedWeight(tuple(joined)))
    apart = [compiled.linear(library("plain"), x, part) for part in (q, k, v)]
    assert torch.equal(got, torch.cat(apart, dim=-1))
    assert len(join([v, random_weight(CODES[5], 16, "int8", True, 32, 128)])) == 2


def test_a_stack_of_experts_gives_each_of_them_without_a_copy() -> None:
    experts, outputs = 5, 48
    stacked = random_weight(CODES[8], 32, "float16", True, experts * outputs, 64)
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(4))
    whole = compiled.linear(library("plain"), x, stacked).reshape(2, experts, outputs)
    for index in range(experts):
        expert = stacked.rows(index * outputs, (index + 1) * outputs)
        assert expert.data.untyped_storage().data_ptr() == stacked.data.untyped_storage().data_ptr()
        assert torch.equal(compiled.linear(library("plain"), x, expert), whole[:, index])
    with pytest.raises(KernelError, match="do not begin with one of 16"):
        stacked.rows(8, 48)


def test_integers_are_held_with_the_smallest_scales_that_are_exact() -> None:
    integers = torch.tensor([[-12, 0, 3, 12] * 8])
    for number, dtype in ((0.5, torch.bfloat16), (1.001, torch.float16), (1e-9, torch.float32)):
        scale = (
            torch.tensor([[number]]).half() if dtype == torch.float16 else torch.tensor([[number]])
        )
        weight = from_integers(integers, scale.float(), Code(4, table=E2M1))
        assert weight is not None
        assert weight.scales.dtype == dtype
        assert torch.equal(dequantize(weight), integers * scale.float())
    assert from_integers(integers, torch.ones(1, 4)) is None
    with pytest.raises(KernelError, match="lacks one of these"):
        Code(4, table=E2M1).codes(torch.tensor([5]))
    with pytest.raises(KernelError, match="4 bits cannot hold"):
        Code(4).codes(torch.tensor([16]))
