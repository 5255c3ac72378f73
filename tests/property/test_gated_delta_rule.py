"""The chunked delta rule equals the recurrent one, for all shapes, lengths, cuts and states."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.gated_delta_rule import chunked, gated_delta_rule, recurrent

# Rounding alone, over 150 steps that forget nothing; a wrong term is off by 0.01 and more.
TOLERANCE = 2e-4


@dataclass(frozen=True)
class Case:
    """Everything that determines the inputs; small, so that a failure prints well."""

    seed: int
    batch: int
    time: int
    key_heads: int
    group: int
    key_dim: int
    value_dim: int
    forgetting: float
    writes_fully: bool
    with_state: bool

    def inputs(self) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        g = torch.Generator().manual_seed(self.seed)
        heads = self.key_heads * self.group
        rows = (self.batch, self.time)
        query, key = torch.randn(2, *rows, self.key_heads, self.key_dim, generator=g)
        value = torch.randn(*rows, heads, self.value_dim, generator=g)
        log_decay = -self.forgetting * torch.rand(*rows, heads, generator=g)
        beta = torch.rand(*rows, heads, generator=g)
        state = torch.randn(self.batch, heads, self.key_dim, self.value_dim, generator=g)
        if self.writes_fully:
            beta = torch.ones_like(beta)
        return [query, key, value, log_decay, beta], state if self.with_state else None


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 2),
    time=st.integers(0, 150),
    key_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    key_dim=st.sampled_from([1, 4, 16]),
    value_dim=st.sampled_from([1, 5, 16]),
    forgetting=st.sampled_from([0.0, 0.1, 3.0, 50.0]),
    writes_fully=st.booleans(),
    with_state=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(case=cases, chunk=st.sampled_from([1, 16, 64]))
def test_chunked_equals_recurrent(case: Case, chunk: int) -> None:
    tensors, state = case.inputs()
    out, end = chunked(*tensors, state, chunk=chunk)
    if case.time == 0:
        assert out.numel() == 0
        assert torch.equal(end, torch.zeros_like(end) if state is None else state)
        return
    expected, expected_end = recurrent(*tensors, state)
    torch.testing.assert_close(out, expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(end, expected_end, atol=TOLERANCE, rtol=0)


@settings(max_examples=50, deadline=None)
@given(case=cases, cuts=st.lists(st.integers(0, 150), max_size=4))
def test_cuts_do_not_matter(case: Case, cuts: list[int]) -> None:
    tensors, state = case.inputs()
    whole, end = gated_delta_rule(*tensors, state)
    edges = sorted({0, case.time, *(cut for cut in cuts if cut < case.time)})
    parts, carried = [whole[:, :0]], state
    for start, stop in pairwise(edges):
        out, carried = gated_delta_rule(*(t[:, start:stop] for t in tensors), carried)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=TOLERANCE, rtol=0)
    if carried is not None:
        torch.testing.assert_close(carried, end, atol=TOLERANCE, rtol=0)
