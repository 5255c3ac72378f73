"""Every block type of GGUF against gguf's own reader, on random bytes."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.linear import INT4, INT8, dequantize, from_integers
from model.checkpoint.gguf.blocks import BLOCKS

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
    assert (run.term is None) == bool(block.bits)
    if block.bits:
        low, high = (-8, 7) if block.bits == 4 else (-128, 127)
        assert low <= int(run.codes.min()) and int(run.codes.max()) <= high
        kept = from_integers(
            run.codes, run.scales.bfloat16().float(), INT4 if block.bits == 4 else INT8
        )
        assert kept is not None
        by = (
            run.scales.bfloat16()
            .float()
            .repeat_interleave(run.codes.shape[1] // run.scales.shape[1], 1)
        )
        assert torch.equal(dequantize(kept), run.codes * by)


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
