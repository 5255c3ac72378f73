"""A run's end in the forms that leave the process: a status, an exit code, one JSON object, lines.

Statuses and exit codes:

0    ``submitted``      a patch was submitted and the check, if any, passes with it
     ``answered``       the model answered in words (sessions in an editor)
1    ``failed``         the run could not go on; ``error``: it could not begin
2    ``error``          wrong usage or configuration
3    ``no_patch``       submitted without a change; ``check_failed``: the check fails with the patch
4    ``limit_NAME``     a limit was reached (steps, tokens, wall_time, context, malformed_calls,
                        repeated_calls)
130  ``interrupted``    the user stopped the run; the session is saved

An attempt that was stopped because another one passed the check has status ``cancelled``.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from agent.loop.confidence import doubt_of
from agent.types import (
    Answered,
    Attempt,
    CheckReport,
    CheckRun,
    Failed,
    Interrupted,
    LimitReached,
    RunResult,
    SolveReport,
    Submitted,
)
from model.usage import Usage

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
CHECK_OUTPUT_CHARACTERS = 4000
SHORT_CHARACTERS = 160


def status_of(result: RunResult, check: CheckReport | None) -> tuple[str, int]:
    """Return the status and the exit code of a run."""
    outcome = result.outcome
    if isinstance(outcome, Interrupted):
        return "cancelled" if outcome.why else "interrupted", EXIT_INTERRUPTED
    if isinstance(outcome, Failed):
        return "failed", EXIT_ERROR
    if isinstance(outcome, LimitReached):
        return f"limit_{outcome.limit}", 4
    if isinstance(outcome, Answered):
        return "answered", 0
    if not outcome.patch:
        return "no_patch", 3
    if check is not None and not check.passed:
        return "check_failed", 3
    return "submitted", 0


def summary_of(result: RunResult) -> str:
    """Return what the model said of its work, or in a sentence why there is nothing of the kind."""
    outcome = result.outcome
    if isinstance(outcome, Submitted):
        return outcome.summary
    if isinstance(outcome, Answered):
        return outcome.text
    if isinstance(outcome, LimitReached):
        return _LIMITS[outcome.limit]
    if isinstance(outcome, Failed):
        return outcome.reason
    return f"{outcome.why or 'interrupted'}; the session is saved"


_LIMITS = {
    "steps": "the limit on steps was reached (--max-steps)",
    "tokens": "the limit on tokens was reached (--max-tokens)",
    "wall_time": "the limit on time was reached (--max-wall-time)",
    "context": "the model's context is full",
    "malformed_calls": "the model stopped making usable tool calls",
    "repeated_calls": "the model repeated the same calls without end",
    "no_change": "nothing changed for too many steps",
}


def as_json(report: SolveReport, notices: Sequence[str] = ()) -> dict[str, Any]:
    """Return the object that ``--output json`` prints; ``notices`` are what was told meanwhile."""
    status, exit_status = status_of(report.result, report.check)
    return {
        "session": report.session,
        "status": status,
        "exit_status": exit_status,
        "patch": report.patch,
        "summary": summary_of(report.result),
        "steps": len(report.result.steps),
        "usage": report.result.usage.as_dict(),
        "check": None if report.check is None else check_as_json(report.check),
        "model": report.model,
        "sandbox": report.sandbox,
        "attempts": [dataclasses.asdict(attempt) for attempt in report.attempts],
        "notices": list(notices),
    }


def check_as_json(check: CheckReport) -> dict[str, Any]:
    """Return the check's two runs and its verdict."""
    return {
        "command": check.command,
        "before": None if check.before is None else check_run_as_json(check.before),
        "after": None if check.after is None else check_run_as_json(check.after),
        "passed": check.passed,
    }


def check_run_as_json(run: CheckRun) -> dict[str, Any]:
    """Return one run of the check, with the end of its output."""
    return dataclasses.asdict(shorten(run))


def shorten(run: CheckRun) -> CheckRun:
    """Return the same with the end of its output alone."""
    return dataclasses.replace(run, output=run.output[-CHECK_OUTPUT_CHARACTERS:])


def error_as_json(
    message: str,
    exit_status: int,
    *,
    model: str | None,
    sandbox: str | None,
    notices: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the object of ``as_json`` for a run that could not begin: the error is its summary."""
    return {
        "session": None,
        "status": "interrupted" if exit_status == EXIT_INTERRUPTED else "error",
        "exit_status": exit_status,
        "patch": "",
        "summary": message,
        "steps": 0,
        "usage": Usage().as_dict(),
        "check": None,
        "model": model,
        "sandbox": sandbox,
        "attempts": [],
        "notices": list(notices),
    }


def usage_line(usage: Usage, steps: int) -> str:
    """Return the counters in one line; the sum shows that the model ran nothing twice."""
    speed = usage.generated_tokens / usage.decode_s if usage.decode_s > 0 else 0.0
    drafts = f" (drafts: {usage.drafts})" if usage.drafts else ""
    shared = f" + {usage.shared_tokens:,} shared" if usage.shared_tokens else ""
    compacted = f" - {usage.compacted_tokens:,} compacted" if usage.compacted_tokens else ""
    abandoned = f" - {usage.abandoned_tokens:,} abandoned" if usage.abandoned_tokens else ""
    return (
        f"usage: {usage.context_tokens:,} context = {usage.prefilled_tokens:,} prefilled + "
        f"{usage.generated_tokens:,} generated{shared}{compacted}{abandoned} "
        f"({usage.repeated_tokens:,} prefilled twice); "
        f"{steps} {'step' if steps == 1 else 'steps'}; "
        f"decode {speed:,.0f} tok/s{drafts}; {usage.wall_s:.1f} s"
    )


def doubt_line(report: SolveReport) -> str:
    """Return where in the patch the model was least sure of what it wrote.

    "" if that is unknown, or the model was sure everywhere.
    """
    doubt = doubt_of(report.patch, report.result.steps)
    sure = 100 if doubt is None else round(100 * math.exp(doubt.logprob))
    if doubt is None or sure == 100:
        return ""
    return f"least certain: {doubt.path}, line {doubt.line} ({sure} % a token)"


def attempts_line(attempts: Sequence[Attempt], chosen: str) -> str:
    """Return how several attempts ended, and what they had in common."""
    ends = Counter(attempt.status for attempt in attempts)
    number = next((a.number for a in attempts if a.session == chosen), 0)
    shared = sum(attempt.usage.shared_tokens for attempt in attempts)
    paid = sum(a.usage.prefilled_tokens + a.usage.generated_tokens for a in attempts)
    told = ", ".join(f"{count} {status}" for status, count in ends.items())
    return (
        f"attempt {number} of {len(attempts)} chosen ({told}); together {paid:,} tokens run, "
        f"{shared:,} shared"
    )


def check_line(check: CheckReport) -> str:
    """Return the check's line: ``check `pytest -q`: failed before, passes after``."""
    before = "not run" if check.before is None else _verdict(check.before)
    after = "not run" if check.after is None else _verdict(check.after)
    return f"check `{check.command}`: before: {before}; after: {after}"


def _verdict(run: CheckRun) -> str:
    if run.exit_code is None:
        return "did not end"
    if run.passed:
        return "passes"
    # A test report has many lines; a command that could not do its work says so in one.
    said = run.output.strip()
    words = f": {said[:SHORT_CHARACTERS]}" if said and "\n" not in said else ""
    return f"fails (exit code {run.exit_code}{words})"
