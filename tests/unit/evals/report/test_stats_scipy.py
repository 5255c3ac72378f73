"""Rates, intervals and paired tests against scipy, an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from scipy import stats as reference

from evals.report.stats import (
    bootstrap,
    estimate,
    estimate_mean,
    mcnemar,
    pass_all,
    pass_at,
    permutation,
    wilson,
)

COUNTS = st.integers(1, 200).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))
)


@given(COUNTS)
def test_pass_at_k_and_pass_all_k_are_hypergeometric(counts: tuple[int, int, int]) -> None:
    n, solved, k = counts
    draws = reference.hypergeom(n, solved, k)
    assert pass_at(k, n, solved) == pytest.approx(1 - draws.pmf(0), abs=1e-9)
    assert pass_all(k, n, solved) == pytest.approx(draws.pmf(k), abs=1e-9)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_the_interval_of_a_rate_is_wilsons(counts: tuple[int, int]) -> None:
    total, solved = counts
    wanted = reference.binomtest(solved, total).proportion_ci(0.95, method="wilson")
    # Ours has z = 1.96, scipy's the exact quantile.
    assert wilson(solved, total) == pytest.approx((wanted.low, wanted.high), abs=2e-5)


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_test_of_single_attempts_is_the_binomial_test(first: int, second: int) -> None:
    wanted = 1.0
    if first + second:
        wanted = reference.binomtest(first, first + second, 0.5).pvalue
    assert mcnemar(first, second) == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.25, 0.5, 1.0]), min_size=2, max_size=9))
def test_the_paired_permutation_test_tries_every_sign(differences: list[float]) -> None:
    found = reference.permutation_test(
        (np.array(differences), np.zeros(len(differences))),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert permutation(differences) == pytest.approx(float(found.pvalue), abs=1e-9)


def test_the_bootstrap_of_a_mean_agrees() -> None:
    values = np.random.default_rng(1).random(80)
    found = reference.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=2
    ).confidence_interval
    assert bootstrap(list(values)) == pytest.approx((found.low, found.high), abs=0.01)


def test_a_mean_of_rewards_and_a_mean_of_rates() -> None:
    rewards = [0.0, 0.5, 1.0, 0.25]
    found = estimate_mean(rewards)
    assert found is not None
    assert found.value == pytest.approx(float(np.mean(rewards)))
    assert 0 <= found.low <= found.value <= found.high <= 1
    single = estimate_mean([1.0, 0.0, 1.0])
    assert single is not None
    wanted = reference.binomtest(2, 3).proportion_ci(0.95, method="wilson")
    assert (single.low, single.high) == pytest.approx((wanted.low, wanted.high), abs=2e-5)
    assert estimate_mean([]) is None


def test_a_rate_over_instances_is_the_mean_of_their_hypergeometric_rates() -> None:
    seen = {"a": [True, False, True, False], "b": [False] * 4, "c": [True] * 4}
    found = estimate(seen, 2)
    assert found is not None
    chosen = [1 - special.binom(4 - sum(s), 2) / special.binom(4, 2) for s in seen.values()]
    assert found.value == pytest.approx(np.mean(chosen))
