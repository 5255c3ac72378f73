"""The charts of a run's page: what is drawn is what the numbers say, and hostile names are text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from evals.instance import Result, Verdict
from evals.report.charts import (
    MOST_ROWS,
    WIDTH,
    charts,
    cost_chart,
    curve_chart,
    outcome_chart,
    repository_of,
    time_chart,
    token_chart,
)
from evals.report.stats import Estimate
from evals.report.summary import AttemptRow, Summary


def row(name: str, resolved: bool | None, seconds: float = 10.0, **usage: float) -> AttemptRow:
    result = Result(name, 1, "submitted", "submitted", usage=usage, seconds=seconds)
    return AttemptRow(result, Verdict(name, resolved))


def summary(*rows: AttemptRow, ks: tuple[int, ...] = (1,)) -> Summary:
    at = {k: Estimate(0.5 + 0.1 * n, 0.25, 1.0, 4) for n, k in enumerate(ks)}
    every = {k: Estimate(0.5 - 0.1 * n, 0.0, 0.75, 4) for n, k in enumerate(ks)}
    return Summary("run", {"identity": {"suite": "swebench"}}, rows, at, every)


def bars(drawn: str) -> list[tuple[str, float]]:
    found = re.findall(r'<rect class="([a-z-]+)" x="[\d.]+" y="\d+" width="([\d.]+)"', drawn)
    return [(kind, float(width)) for kind, width in found]


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("django__django-11099", "django/django"),
        ("scikit-learn__scikit-learn-13142", "scikit-learn/scikit-learn"),
        ("instance_NodeBB__NodeBB-0499a-vnan", "NodeBB/NodeBB"),
        ("fix-git", ""),
        ("T001zh_email_triage", ""),
    ],
)
def test_an_id_names_its_repository(name: str, repository: str) -> None:
    assert repository_of(name) == repository


def test_outcomes_are_drawn_of_the_suite_and_of_each_repository() -> None:
    drawn = outcome_chart(
        summary(row("a__b-1", True), row("a__b-2", False), row("c__d-3", None), row("c__d-4", True))
    )
    assert bars(drawn) == [
        *[("resolved", WIDTH / 2), ("unresolved", WIDTH / 4), ("not-graded", WIDTH / 4)],
        *[("resolved", WIDTH / 2), ("unresolved", WIDTH / 2)],
        *[("resolved", WIDTH / 2), ("not-graded", WIDTH / 2)],
    ]
    assert "2 resolved, 1 unresolved, 1 not graded" in drawn


def test_time_that_nobody_counted_is_other() -> None:
    drawn = time_chart(summary(row("a", True, 10.0, prefill_s=1.0, decode_s=5.0, tool_s=2.0)))
    assert bars(drawn) == [("prefill", 40.0), ("decode", 200.0), ("tool", 80.0), ("other", 80.0)]


def test_the_tokens_that_sharing_saved_are_told() -> None:
    usage = {"shared_tokens": 300.0, "prefilled_tokens": 100.0, "generated_tokens": 100.0}
    drawn = token_chart(summary(row("a", True, **usage)))
    assert bars(drawn) == [("shared", 240.0), ("prefilled", 80.0), ("generated", 80.0)]
    assert "saved 75 %" in drawn
    assert "saved 0 %" in token_chart(summary(row("a", True)))


def test_only_solved_tasks_have_a_cost_dearest_first() -> None:
    rows = [row(f"t{n}", True, float(n + 1)) for n in range(MOST_ROWS + 5)]
    drawn = cost_chart(summary(*rows, row("no", False, 1000.0)))
    widths = [width for _, width in bars(drawn)]
    assert widths[0] == WIDTH
    assert widths == sorted(widths, reverse=True)
    assert len(widths) == MOST_ROWS
    assert "5 cheaper ones are not drawn; 18.0 s on average" in drawn
    assert "No task is solved" in cost_chart(summary(row("no", False)))


def test_a_curve_has_a_point_and_a_whisker_for_each_k() -> None:
    drawn = curve_chart(summary(row("a", True), ks=(1, 2, 5)))
    assert drawn.count("<circle") == 6
    assert "pass@k at k = 5: 70.0% (25.0% to 100.0%)" in drawn
    one = curve_chart(summary(row("a", True)))
    assert one.count("<circle") == 2
    ungraded = Summary("run", {}, (row("a", None),), {}, {})
    assert "Nothing is graded" in curve_chart(ungraded)


def test_a_hostile_name_is_text() -> None:
    hostile = '"><script>alert(1)</script>\x1b[31m'
    tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attributes: object) -> None:
            tags.append(tag)

    drawn = charts(summary(row(hostile, True)))
    Tags().feed(drawn)
    assert "script" not in tags
    assert "\x1b" not in drawn


def test_an_empty_run_has_a_page() -> None:
    assert "<figure>" in charts(summary())
