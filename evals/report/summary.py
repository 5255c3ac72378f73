"""The summary of a run as data: rates, costs, and a row for each attempt."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evals.errors import RunError, RunNotFound
from evals.instance import Result, Verdict
from evals.report.stats import (
    Comparison,
    Estimate,
    compare,
    estimate,
    estimate_mean,
    pass_all,
    pass_at,
)
from evals.run.folder import RunFolder

COUNTED = (
    "context_tokens",
    "prefilled_tokens",
    "generated_tokens",
    "thinking_tokens",
    "reused_tokens",
    "shared_tokens",
    "compacted_tokens",
    "drafted_tokens",
    "accepted_tokens",
    "mtp_drafted_tokens",
    "mtp_accepted_tokens",
    "prefill_s",
    "decode_s",
    "tool_s",
    "wall_s",
)


@dataclass(frozen=True)
class AttemptRow:
    """One attempt and its verdict, if it was graded."""

    result: Result
    verdict: Verdict | None

    @property
    def graded(self) -> bool:
        """True if the attempt has a verdict."""
        return self.verdict is not None and self.verdict.resolved is not None

    @property
    def outcome(self) -> str:
        """``resolved``, ``unresolved``, or why it is neither: ``not graded``."""
        if self.verdict is None or self.verdict.resolved is None:
            return "not graded"
        return "resolved" if self.verdict.resolved else "unresolved"


@dataclass(frozen=True)
class Summary:
    """A run: what it is, its attempts in order, and its rates by k."""

    name: str
    about: Mapping[str, Any]
    attempts: tuple[AttemptRow, ...]
    pass_at: Mapping[int, Estimate]
    pass_all: Mapping[int, Estimate]

    @property
    def outcomes(self) -> dict[str, list[bool]]:
        """For each instance, which of its graded attempts solved it."""
        found: dict[str, list[bool]] = {}
        for attempt in self.attempts:
            seen = found.setdefault(attempt.result.instance_id, [])
            if attempt.verdict is not None and attempt.verdict.resolved is not None:
                seen.append(attempt.verdict.resolved)
        return found

    @property
    def mean_reward(self) -> Estimate | None:
        """The mean over the instances of their attempts' mean reward; None before grading.

        An attempt that is missing or could not be graded counts 0, as the makers of the suites with
        rewards count it.
        """
        if not any(attempt.graded for attempt in self.attempts):
            return None
        made = max(attempt.result.attempt for attempt in self.attempts)
        rewards: dict[str, float] = {}
        for attempt in self.attempts:
            name = attempt.result.instance_id
            own = attempt.verdict.reward if attempt.verdict and attempt.graded else 0.0
            rewards[name] = rewards.get(name, 0.0) + own / made
        return estimate_mean([round(value, 12) for value in rewards.values()])

    @property
    def left_out(self) -> str:
        """Say which tasks of the data set cannot be run here, and so are not graded; "" if none."""
        refused = sorted(self.about.get("refused") or {})
        if not refused:
            return ""
        return f"not graded, since they cannot be run here: {len(refused)} ({_names(refused)})"

    def total(self, name: str) -> float:
        """Return the sum of a counter over all attempts."""
        return sum(attempt.result.usage.get(name, 0) for attempt in self.attempts)

    def as_dict(self) -> dict[str, Any]:
        """For ``--output json``: everything but the trajectories."""
        return {
            "run": self.name,
            "about": dict(self.about),
            "instances": len({a.result.instance_id for a in self.attempts}),
            "attempts": len(self.attempts),
            "outcomes": dict(Counter(a.outcome for a in self.attempts)),
            "exit_statuses": dict(Counter(a.result.exit_status for a in self.attempts)),
            "mean_reward": None if (mean := self.mean_reward) is None else asdict(mean),
            "pass_at": {str(k): asdict(value) for k, value in self.pass_at.items()},
            "pass_all": {str(k): asdict(value) for k, value in self.pass_all.items()},
            "usage": {name: self.total(name) for name in COUNTED},
            "results": [
                {
                    **a.result.as_dict(),
                    "outcome": a.outcome,
                    "reward": None if a.verdict is None else a.verdict.reward,
                    "reason": "" if a.verdict is None else a.verdict.reason,
                }
                for a in self.attempts
            ],
        }


def summarize(folder: RunFolder) -> Summary:
    """Return the summary of a run. Raises ``RunError`` if there is nothing in the folder."""
    about, results, grades = folder.about(), folder.results(), folder.grades()
    if not about:
        raise RunNotFound(f"{folder.path} is no folder of a run: it has no run.json")
    attempts = tuple(AttemptRow(results[key], grades.get(key)) for key in sorted(results))
    bare = Summary(folder.path.name, about, attempts, {}, {})
    outcomes = bare.outcomes
    most = max((len(seen) for seen in outcomes.values()), default=0)
    one: dict[int, Estimate] = {}
    every: dict[int, Estimate] = {}
    for k in sorted({1, *(k for k in (2, 3, 4, 5, 8, 10, 16, 32, 64) if k < most), most} - {0}):
        if (value := estimate(outcomes, k, pass_at)) is not None:
            one[k] = value
        if (value := estimate(outcomes, k, pass_all)) is not None:
            every[k] = value
    return Summary(folder.path.name, about, attempts, one, every)


def compare_runs(first: Summary, second: Summary) -> Comparison:
    """Return the paired test of two runs. Raises ``RunError`` if they share no graded instance."""
    found = compare(first.outcomes, second.outcomes)
    if found is None:
        raise RunError(f"{first.name} and {second.name} share no graded instance")
    return found


def rate_line(name: str, value: Estimate) -> str:
    """Format a rate: ``pass@1 54.5 % (28.0 to 78.7 %, 11 instances)``."""
    return (
        f"{name} {100 * value.value:.1f} % "
        f"({100 * value.low:.1f} to {100 * value.high:.1f} %, {value.instances} instances)"
    )


def comparison_lines(found: Comparison, first: str, second: str) -> list[str]:
    """Describe a paired test for a person, line by line."""
    return [
        f"{first} {100 * found.first:.1f} %, {second} {100 * found.second:.1f} % on the "
        f"{found.instances} instances that both have",
        f"better in {first}: {_names(found.better)}",
        f"better in {second}: {_names(found.worse)}",
        f"p = {found.p:.3g} ({found.test})",
    ]


def _names(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def median(values: Sequence[float]) -> float:
    """Return the median; 0 of nothing."""
    return statistics.median(values) if values else 0.0
