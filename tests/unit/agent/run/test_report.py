"""Every end of a run has its status, exit code, sentence, and one JSON object."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest

from agent.run.report import (
    as_json,
    check_line,
    error_as_json,
    status_of,
    summary_of,
    usage_line,
)
from agent.types import (
    CheckReport,
    CheckRun,
    Failed,
    Interrupted,
    LimitName,
    LimitReached,
    Outcome,
    RunResult,
    SolveReport,
    Submitted,
)
from model.session import Usage

PASSES = CheckRun(0, "ok\n", 0.1)
FAILS = CheckRun(1, "no\n", 0.1)
KEYS = [
    "session",
    "status",
    "exit_status",
    "patch",
    "summary",
    "steps",
    "usage",
    "check",
    "model",
    "sandbox",
    "attempts",
    "notices",
]


@pytest.mark.parametrize(
    ("outcome", "check", "expected"),
    [
        (Submitted("diff", "done"), None, ("submitted", 0)),
        (Submitted("diff"), CheckReport("c", FAILS, PASSES), ("submitted", 0)),
        (Submitted("diff"), CheckReport("c", FAILS, FAILS), ("check_failed", 3)),
        (Submitted("diff"), CheckReport("c", PASSES, None), ("check_failed", 3)),
        (Submitted(""), CheckReport("c", PASSES, None), ("no_patch", 3)),
        (Submitted(""), None, ("no_patch", 3)),
        (LimitReached("steps", "diff"), CheckReport("c", FAILS, PASSES), ("limit_steps", 4)),
        (Failed("gone", "diff"), None, ("failed", 1)),
        (Interrupted("diff"), None, ("interrupted", 130)),
    ],
)
def test_status_and_exit_code(
    outcome: Outcome, check: CheckReport | None, expected: tuple[str, int]
) -> None:
    assert status_of(RunResult(outcome), check) == expected


@pytest.mark.parametrize("limit", get_args(LimitName))
def test_every_limit_has_a_sentence(limit: LimitName) -> None:
    assert summary_of(RunResult(LimitReached(limit, "")))
    assert status_of(RunResult(LimitReached(limit, "")), None) == (f"limit_{limit}", 4)


def test_the_json_object_has_exactly_the_promised_keys() -> None:
    report = SolveReport(
        "id", RunResult(Submitted("diff", "done")), CheckReport("c", FAILS, PASSES), "m", "docker"
    )
    data = as_json(report)
    assert list(data) == KEYS
    assert data["check"]["passed"] is True
    assert data["check"]["before"]["exit_code"] == 1
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_an_error_is_the_same_object() -> None:
    data = error_as_json("no engine", 1, model="m", sandbox=None)
    assert list(data) == KEYS
    assert (data["status"], data["summary"], data["session"]) == ("error", "no engine", None)
    assert error_as_json("x", 130, model=None, sandbox=None)["status"] == "interrupted"


def test_a_long_check_output_keeps_its_end() -> None:
    run = CheckRun(1, "x" * 10_000 + "the end", 0.1)
    report = SolveReport("id", RunResult(Submitted("d")), CheckReport("c", run, run), "m", "docker")
    shown = as_json(report)["check"]["after"]["output"]
    assert len(shown) == 4000
    assert shown.endswith("the end")


def test_the_usage_line() -> None:
    usage = Usage(
        context_tokens=1234, prefilled_tokens=789, generated_tokens=445, decode_s=1.5, wall_s=8.06
    )
    assert usage_line(usage, 12) == (
        "usage: 1,234 context = 789 prefilled + 445 generated (0 prefilled twice); 12 steps; "
        "decode 297 tok/s; 8.1 s"
    )
    assert "1 step;" in usage_line(Usage(), 1)
    drafted = replace(usage, drafted_tokens=12, accepted_tokens=8)
    drafted = replace(drafted, mtp_drafted_tokens=4, mtp_accepted_tokens=3)
    line = usage_line(drafted, 12)
    assert "decode 297 tok/s (drafts: 5 of 8 copied, 3 of 4 guessed); 8.1 s" in line


def test_the_usage_line_with_tokens_that_came_and_went() -> None:
    usage = Usage(1000, prefilled_tokens=300, generated_tokens=900, shared_tokens=200)
    gone = replace(usage, compacted_tokens=400)
    assert usage_line(usage, 2).startswith(
        "usage: 1,000 context = 300 prefilled + 900 generated + 200 shared (400 prefilled twice)"
    )
    assert "+ 200 shared - 400 compacted (0 prefilled twice)" in usage_line(gone, 2)
    back = replace(gone, compacted_tokens=0, abandoned_tokens=390)
    assert "+ 200 shared - 390 abandoned (10 prefilled twice)" in usage_line(back, 2)


def test_the_check_line() -> None:
    line = check_line(CheckReport("pytest -q", FAILS, PASSES))
    assert line == "check `pytest -q`: before: fails (exit code 1: no); after: passes"
    hung = CheckReport("c", CheckRun(None, "", 1.0), None)
    assert check_line(hung) == "check `c`: before: did not end; after: not run"
