"""Rates of a run, with intervals, and whether two runs differ.

``pass@k`` is the chance that one of k attempts solves an instance, ``pass^k`` that all of k do.
Both are estimated without bias from n >= k attempts of which c solved it: ``1 - C(n-c, k)/C(n, k)``
(M. Chen et al., "Evaluating Large Language Models Trained on Code", 2021) and ``C(c, k)/C(n, k)``
(S. Yao et al., "tau-bench", 2024), and averaged over the instances.

Intervals are at 95 %: Wilson's (1927) for one attempt each, else a bootstrap over the instances,
which are what was drawn; the attempts at one instance are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
_SEED = 20_240_601


@dataclass(frozen=True)
class Estimate:
    """A rate and its 95 % interval, over ``instances``."""

    value: float
    low: float
    high: float
    instances: int


def pass_at(k: int, attempts: int, solved: int) -> float:
    """Estimate pass@k of one instance. Raises ``ValueError`` for fewer attempts than k."""
    _check(k, attempts, solved)
    return 1.0 - math.comb(attempts - solved, k) / math.comb(attempts, k)


def pass_all(k: int, attempts: int, solved: int) -> float:
    """Estimate pass^k of one instance. Raises ``ValueError`` for fewer attempts than k."""
    _check(k, attempts, solved)
    return math.comb(solved, k) / math.comb(attempts, k)


def _check(k: int, attempts: int, solved: int) -> None:
    if not 1 <= k <= attempts or not 0 <= solved <= attempts:
        raise ValueError(f"{solved} of {attempts} attempts say nothing of {k}")


def estimate(
    outcomes: Mapping[str, Sequence[bool]],
    k: int,
    each: Callable[[int, int, int], float] = pass_at,
) -> Estimate | None:
    """Return the mean of ``each`` over the instances that have k attempts; None if there are none.

    ``outcomes`` says for every instance which of its attempts solved it.
    """
    used = [seen for seen in outcomes.values() if len(seen) >= k]
    if not used:
        return None
    values = [each(k, len(seen), sum(seen)) for seen in used]
    mean = sum(values) / len(values)
    if all(len(seen) == 1 for seen in used):
        low, high = wilson(round(sum(values)), len(values))
    else:
        low, high = bootstrap(values)
    return Estimate(mean, low, high, len(used))


def estimate_mean(values: Sequence[float]) -> Estimate | None:
    """Return the mean of one value for each instance, with its interval; None of nothing.

    The interval is Wilson's if every value is 0 or 1, else a bootstrap over the instances.
    """
    if not values:
        return None
    mean = sum(values) / len(values)
    if all(value in (0.0, 1.0) for value in values):
        low, high = wilson(round(sum(values)), len(values))
    else:
        low, high = bootstrap(values)
    return Estimate(mean, low, high, len(values))


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """Return the percentile interval of the mean, from resamples with a fixed seed."""
    data = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(_SEED)
    means = [random.choice(data, len(data)).mean() for _ in range(RESAMPLES // 5)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two runs on the instances that both have.

    ``better`` were solved by the first alone (more often), ``worse`` by the second. ``p`` is the
    chance of a difference at least as large if the runs were alike, by ``test``.
    """

    instances: int
    first: float
    second: float
    better: tuple[str, ...]
    worse: tuple[str, ...]
    p: float
    test: str


def compare(
    first: Mapping[str, Sequence[bool]], second: Mapping[str, Sequence[bool]]
) -> Comparison | None:
    """Compare two runs by a paired test; None if the runs have no instance in common.

    With one attempt each it is McNemar's, exact (Q. McNemar, 1947): of the instances that only one
    run solved, how many are the first's. Else it is a permutation test: the sign of each
    instance's difference in rate is as good as random if the runs are alike.
    """
    both = sorted(name for name in first if first[name] and second.get(name))
    if not both:
        return None
    rates = {name: (_rate(first[name]), _rate(second[name])) for name in both}
    better = tuple(name for name in both if rates[name][0] > rates[name][1])
    worse = tuple(name for name in both if rates[name][0] < rates[name][1])
    if all(len(first[name]) == len(second[name]) == 1 for name in both):
        p, test = mcnemar(len(better), len(worse)), "McNemar, exact"
    else:
        p, test = permutation([a - b for a, b in rates.values()]), "paired permutation"
    mean = tuple(sum(pair[i] for pair in rates.values()) / len(both) for i in (0, 1))
    return Comparison(len(both), mean[0], mean[1], better, worse, p, test)


def mcnemar(first: int, second: int) -> float:
    """Return the two-sided chance of a split at least as uneven as ``first`` to ``second``."""
    total = first + second
    if total == 0:
        return 1.0
    tail = sum(math.comb(total, i) for i in range(min(first, second) + 1)) / float(2**total)
    return min(1.0, 2.0 * tail)


def permutation(differences: Sequence[float]) -> float:
    """Return the two-sided chance of a mean at least as far from 0 when every sign is random.

    All signs are tried for up to 14 differences, else ``RESAMPLES`` random ones with a fixed seed.
    """
    data = np.array([d for d in differences if d != 0], dtype=np.float64)
    if not len(data):
        return 1.0
    seen = abs(data.sum()) - 1e-12
    if len(data) <= 14:
        signs = ((np.arange(2 ** len(data))[:, None] >> np.arange(len(data))) & 1) * 2 - 1
        return float((np.abs(signs @ data) >= seen).mean())
    random = np.random.default_rng(_SEED)
    signs = random.integers(0, 2, (RESAMPLES, len(data))) * 2 - 1
    # The split that was seen is one of those that are as likely.
    return float((1 + (np.abs(signs @ data) >= seen).sum()) / (1 + RESAMPLES))


def _rate(seen: Sequence[bool]) -> float:
    return sum(map(int, seen)) / len(seen)


def wilson(solved: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % confidence interval of a rate (E. B. Wilson, 1927)."""
    if total == 0:
        return 0.0, 1.0
    rate, square = solved / total, z * z
    centre = (rate + square / (2 * total)) / (1 + square / total)
    half = (
        z
        / (1 + square / total)
        * math.sqrt(rate * (1 - rate) / total + square / (4 * total * total))
    )
    return max(0.0, centre - half), min(1.0, centre + half)
