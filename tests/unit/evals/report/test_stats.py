"""Rates against their definitions by counting, intervals and tests against known values."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.report.stats import (
    bootstrap,
    compare,
    estimate,
    mcnemar,
    pass_all,
    pass_at,
    permutation,
)

COUNTS = st.integers(1, 7).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))
)


@given(COUNTS)
def test_both_rates_are_the_share_of_all_choices_of_k_attempts(
    counts: tuple[int, int, int],
) -> None:
    n, solved, k = counts
    choices = list(itertools.combinations([True] * solved + [False] * (n - solved), k))
    assert pass_at(k, n, solved) == pytest.approx(sum(map(any, choices)) / len(choices))
    assert pass_all(k, n, solved) == pytest.approx(sum(map(all, choices)) / len(choices))


@pytest.mark.parametrize("wrong", [(0, 1, 0), (2, 1, 1), (1, 1, 2), (1, 1, -1)])
def test_fewer_attempts_than_k_say_nothing(wrong: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="say nothing"):
        pass_at(*wrong)


def test_the_rate_of_a_run_is_the_mean_over_its_instances() -> None:
    found = estimate({"a": [True, False], "b": [False, False], "c": [True]}, 2)
    assert found is not None
    assert (found.value, found.instances) == (0.5, 2)
    assert found.low <= 0.5 <= found.high
    assert estimate({"a": [True]}, 2) is None


def test_one_attempt_each_has_the_interval_of_wilson() -> None:
    """7 of 20: 18.1 to 56.7 %, as in his formula's usual examples."""
    found = estimate({str(i): [i < 7] for i in range(20)}, 1)
    assert found is not None
    assert (round(found.low, 3), round(found.high, 3)) == (0.181, 0.567)


def test_the_bootstrap_is_near_the_normal_interval_and_repeats() -> None:
    values = [float(i % 4 == 0) for i in range(400)]
    low, high = bootstrap(values)
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert low == pytest.approx(0.25 - half, abs=0.01)
    assert high == pytest.approx(0.25 + half, abs=0.01)
    assert bootstrap(values) == (low, high)


@pytest.mark.parametrize(
    ("split", "p"), [((0, 0), 1.0), ((5, 5), 1.0), ((0, 6), 2 / 64), ((1, 7), 18 / 256)]
)
def test_mcnemar_is_a_fair_coin_on_the_pairs_that_differ(split: tuple[int, int], p: float) -> None:
    assert mcnemar(*split) == pytest.approx(p)
    assert mcnemar(*reversed(split)) == pytest.approx(p)


def test_the_permutation_test_of_one_attempt_each_is_mcnemar() -> None:
    assert permutation([1.0] * 7 + [-1.0] + [0.0] * 9) == pytest.approx(mcnemar(7, 1))


def test_many_differences_are_tested_by_random_signs() -> None:
    assert permutation([1.0] * 40) == pytest.approx(1 / 10_001)
    assert permutation([1.0, -1.0] * 20) == 1.0


def test_runs_are_compared_on_what_both_have() -> None:
    first = {"a": [True], "b": [True], "c": [False], "d": [True], "e": []}
    second = {"a": [True], "b": [False], "c": [True], "e": [True]}
    found = compare(first, second)
    assert found is not None
    assert (found.instances, found.better, found.worse) == (3, ("b",), ("c",))
    assert (found.p, found.test) == (1.0, "McNemar, exact")
    assert compare({"a": [True]}, {"b": [True]}) is None
    several = compare({"a": [True, False]}, {"a": [False, False]})
    assert several is not None
    assert several.test == "paired permutation"
