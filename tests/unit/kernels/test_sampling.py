"""Sampling: the filters by hand on small distributions, and the frequencies of what is drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from kernels.sampling import log_probability, presence_penalty, sample

PROBABILITIES = [0.05, 0.4, 0.1, 0.25, 0.2]
LOGITS = torch.tensor(PROBABILITIES).log()
PLAIN: dict[str, Any] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def draw(count: int, logits: torch.Tensor = LOGITS, **changes: Any) -> Counter[int]:
    generator = torch.Generator().manual_seed(0)
    options = PLAIN | changes
    return Counter(sample(logits, generator=generator, **options) for _ in range(count))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {0, 1, 2, 3, 4}),
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 9}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.6}, {1, 3}),
        ({"top_p": 0.7}, {1, 3, 4}),
        ({"top_p": 1e-9}, {1}),
        ({"min_p": 0.3}, {1, 3, 4}),
        ({"min_p": 1.0}, {1}),
        # 0.4 and 0.25 are 0.615 and 0.385 of what top-k leaves: top-p counts from there.
        ({"top_k": 2, "top_p": 0.61}, {1}),
        ({"temperature": 1e-30}, {1}),
        ({"temperature": 1e-320}, {1}),
    ],
)
def test_filters_keep_exactly(changes: dict[str, Any], kept: set[int]) -> None:
    assert set(draw(600, **changes)) == kept


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_tempered_distribution(temperature: float) -> None:
    count = 6000
    expected = (LOGITS / temperature).softmax(0)
    got = draw(count, temperature=temperature)
    for token, p in enumerate(expected.tolist()):
        # Five standard deviations of a binomial.
        assert abs(got[token] / count - p) < 5 * (p * (1 - p) / count) ** 0.5


def test_greedy_takes_the_first_best_and_no_random_number() -> None:
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    options = PLAIN | {"temperature": 0.0}
    assert sample(LOGITS, generator=generator, **options) == 1
    assert torch.equal(generator.get_state(), before)


def test_equal_seeds_draw_equal_tokens() -> None:
    assert draw(50) == draw(50)


def test_ids_without_probability_are_never_drawn() -> None:
    logits = torch.full((50,), float("-inf"))
    logits[17] = 0.0
    assert set(draw(200, logits)) == {17}


def test_presence_penalty_counts_each_id_once_and_changes_no_input() -> None:
    seen = torch.tensor([1, 3])
    before = LOGITS.clone()
    got = presence_penalty(LOGITS, seen, 1.5)
    torch.testing.assert_close(got - LOGITS, torch.tensor([0.0, -1.5, 0.0, -1.5, 0.0]))
    assert torch.equal(LOGITS, before)


def test_log_probability_normalises() -> None:
    shifted = LOGITS + 7
    assert log_probability(shifted, 3) == pytest.approx(torch.tensor(0.25).log().item(), abs=1e-6)
