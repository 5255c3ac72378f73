"""Sampling in Triton against the reference, for the same random numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.backend import KernelError, interpreting
from kernels.sampling import sample_batch
from tests.gpu.comparing import CALM, randn

pytestmark = pytest.mark.gpu

rows = st.tuples(
    st.sampled_from([0.0, 1e-20, 0.6, 1.0, 2.0]),
    st.integers(1, 20),
    st.sampled_from([1e-9, 0.3, 0.8, 0.95, 1.0]),
    st.sampled_from([0.0, 0.05, 1.0]),
    st.floats(0, 1, exclude_max=True, width=32),
)


@CALM
@given(
    vocab=st.one_of(st.integers(1, 70), st.just(130)),
    options=st.lists(rows, min_size=1, max_size=2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_equals_the_reference(
    device: torch.device, vocab: int, options: list[tuple[float, ...]], dtype: torch.dtype
) -> None:
    logits = 3 * randn(vocab, len(options), vocab, dtype=dtype, device=device)
    temperature, top_k, top_p, min_p, uniform = zip(*options, strict=True)
    filters: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
    }
    numbers = torch.tensor(uniform, device=device)
    expected = sample_batch(logits, numbers, **filters)
    if vocab <= 70:
        assert torch.equal(sample_batch(logits, numbers, **filters, backend="triton"), expected)
    else:
        from kernels.sampling.triton import options_of, sample_batch_at

        at = options_of(**filters).to(device)
        assert torch.equal(sample_batch_at(logits, numbers, at, kept=20, stretch=32), expected)


def test_the_largest_top_k_of_a_long_vocabulary(device: torch.device) -> None:
    vocab = 300 if interpreting() else 248_077
    logits = 3 * randn(0, 1, vocab, device=device)
    filters = {"temperature": [1.0], "top_k": [64], "top_p": [1.0], "min_p": [0.0]}
    for uniform in (0.0, 0.5, 0.999):
        numbers = torch.tensor([uniform], device=device)
        got = sample_batch(logits, numbers, **filters, backend="triton")
        assert torch.equal(got, sample_batch(logits, numbers, **filters))


def test_equal_logits_and_impossible_ids(device: torch.device) -> None:
    logits = torch.full((2, 40), float("-inf"), device=device)
    logits[0, [7, 30, 31]] = -1.0
    logits[1, 39] = -1e30
    filters = {"temperature": [0.0, 1.0], "top_k": [0, 20], "top_p": [1, 1], "min_p": [0, 0]}
    got = sample_batch(
        logits, torch.tensor([0.9, 0.999], device=device), **filters, backend="triton"
    )
    assert got.tolist() == [7, 39]


@pytest.mark.parametrize("top_k", [0, 65])
def test_an_unsupported_top_k_names_the_way_out(device: torch.device, top_k: int) -> None:
    options = {"temperature": [1.0], "top_k": [top_k], "top_p": [1.0], "min_p": [0.0]}
    logits, uniform = torch.zeros(1, 99, device=device), torch.zeros(1, device=device)
    with pytest.raises(KernelError, match=f"from 1 to 64, not {top_k}; use backend='torch'"):
        sample_batch(logits, uniform, **options, backend="triton")
