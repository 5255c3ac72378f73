"""Every block type of GGUF against gguf's own reader, on random bytes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.linear import dequantize, from_integers
from kernels.linear.ggml import from_ggml
from model.checkpoint.gguf.blocks import BLOCKS
from tests.support.native import library

READABLE = [kind for kind, block in BLOCKS.items() if block.read and block.name != "Q1_0"]
HALVES = {
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
    "IQ1_M": (),
    "MXFP4": (),
    "NVFP4": (),
}


def random_rows(kind: int, rows: int, blocks: int, seed: int) -> np.ndarray:
    """Random bytes whose float16 numbers are finite."""
    block = BLOCKS[kind]
    random = np.random.default_rng(seed)
    raw = random.integers(0, 256, (rows * blocks, block.nbytes)).astype(np.uint8)
    for at in HALVES.get(block.name, (0,)):
        numbers = random.uniform(-2, 2, len(raw)).astype(np.float16)
        raw[:, at : at + 2] = numbers[:, None].view(np.uint8)
    if block.name == "IQ1_M":  # a float16 in the high halves of four bytes
        raw[:, 55] &= 0xBF
    if block.name == "MXFP4":
        raw[:, 0] %= 200
    return raw.reshape(rows, -1)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(READABLE), st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_the_values_are_those_of_gguf(kind: int, rows: int, blocks: int, seed: int) -> None:
    raw = random_rows(kind, rows, blocks, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = quants.dequantize(raw, GGMLQuantizationType(kind))
    got = BLOCKS[kind].coded(torch.from_numpy(raw)).floats().numpy()
    assert got.shape == expected.shape
    assert np.array_equal(got, expected, equal_nan=True)


@pytest.mark.parametrize("kind", READABLE)
def test_every_type_is_read_and_its_codes_fit(kind: int) -> None:
    block = BLOCKS[kind]
    raw = random_rows(kind, 32, 4, 0)
    run = block.coded(torch.from_numpy(raw))
    expected = quants.dequantize(raw, GGMLQuantizationType(kind))
    assert np.array_equal(run.floats().numpy(), expected)
    assert block.code is not None
    kept = from_integers(run.codes, run.scales, block.code, run.term)
    assert kept is not None
    assert np.array_equal(dequantize(kept).numpy(), expected)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([2, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 23, 39]),
    st.integers(1, 40),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_blocks_are_taken_over_exactly(
    kind: int, rows: int, blocks: int, shuffled: bool, turned: bool, seed: int
) -> None:
    library("plain")
    blocks *= 256 // BLOCKS[kind].size
    raw = torch.from_numpy(random_rows(kind, rows, blocks, seed))
    inputs = blocks * BLOCKS[kind].size
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(rows, generator=g) if shuffled else None
    runs = torch.randperm(inputs // 128, generator=g) if turned else None
    expected = BLOCKS[kind].coded(raw).floats()
    expected = expected if order is None else expected[order]
    if runs is not None:
        expected = expected.reshape(rows, -1, 128)[:, runs].reshape(rows, inputs)
    kept = from_ggml(kind, raw, inputs, rows=order, runs=runs)
    assert kept is not None
    assert torch.equal(dequantize(kept), expected)
    most = {4: 1.0, 5: 0.1, 6: 0.03, 8: 0.01}[kept.bits]
    assert kept.nbytes <= -(-rows // 16) * 16 * raw.shape[1] * (1 + most)


@pytest.mark.parametrize("kind", [k for k in BLOCKS if BLOCKS[k].name not in ("Q1_0",)])
def test_sizes_are_those_of_gguf(kind: int) -> None:
    from gguf.constants import GGML_QUANT_SIZES

    block = BLOCKS[kind]
    assert GGML_QUANT_SIZES[GGMLQuantizationType(kind)] == (block.size, block.nbytes)
    assert GGMLQuantizationType(kind).name == block.name


def test_single_bits() -> None:
    """gguf has no reader of Q1_0: a float16, then 128 bits for minus and plus."""
    raw = np.zeros((1, 18), np.uint8)
    raw[0, :2] = np.array([0.5], np.float16).view(np.uint8)
    raw[0, 2] = 0b00000101
    got = BLOCKS[41].coded(torch.from_numpy(raw)).floats()[0]
    assert got[:4].tolist() == [0.5, -0.5, 0.5, -0.5]
    assert (got[4:] == -0.5).all()
