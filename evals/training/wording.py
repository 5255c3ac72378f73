"""Issue texts for a task, in the wordings that people use: a sentence, a report, a traceback only.

``make_tasks.ISSUES`` has the four sentences of the held-out tasks, which stay as they are; these
are for training alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from evals.training.execute import CaseFailure

SENTENCES = (
    "`{name}` in `{path}` is wrong: {call} {got}, expected {want}.",
    "{call} {got}, expected {want}. The bug is in `{path}`.",
    "{call} should be {want} but {got}. Please repair `{path}`.",
    "Since the last release `{name}` (`{path}`) gives wrong results. For example {call} {got}; "
    "it used to be {want}.",
    "Expected: {call} == {want}\nActual: it {got}\nFile: `{path}`",
    "I think there is a mistake in `{path}`. With {call} I want {want}, and it {got}.",
    "# {name} is broken\n\n## Steps\n\n{call}\n\n## Expected\n\n{want}\n\n## Actual\n\nit {got}\n\n"
    "## Where\n\n`{path}`",
    "the tests of `{path}` fail, something in `{name}` must be wrong",
    "One line of `{path}` is wrong. Make the tests pass.",
)


@dataclass(frozen=True)
class Report:
    """Facts that a report may tell: the broken function, where it is, and a call that shows it."""

    name: str
    path: str
    test_path: str
    call: str
    got: str
    want: str


def issue_text(random_: random.Random, report: Report, failure: CaseFailure) -> str:
    """Return one wording; one in four is only what the failing test printed."""
    kind = random_.random()
    if kind < 0.13:
        return _traceback(report, failure)
    if kind < 0.25:
        return _pytest_lines(report, failure)
    got = f"raises {report.got[1:]}" if report.got.startswith("!") else f"returns {report.got}"
    got = "returns something else" if report.got == "?" else got
    return random_.choice(SENTENCES).format(
        name=report.name, path=report.path, call=f"`{report.call}`", got=got, want=report.want
    )


def _traceback(report: Report, failure: CaseFailure) -> str:
    """Return the lines of an exception, or of the assertion that fails."""
    head = "Traceback (most recent call last):\n"
    test = f'  File "{report.test_path}", in {failure.test}\n    {report.call}\n'
    inner = ""
    if failure.crash_file == report.path:
        inner = f'  File "{report.path}", line {failure.crash_line}, in {report.name}\n'
    else:
        test = f'  File "{report.test_path}", line {failure.crash_line}, in {failure.test}\n'
        test += f"    assert {report.call} == {report.want}\n"
    return f"{head}{test}{inner}{failure.message}"


def _pytest_lines(report: Report, failure: CaseFailure) -> str:
    """Return the lines of pytest's report that name the test and what it wanted."""
    return (
        f"____ {failure.test} ____\n\n>       assert {report.call} == {report.want}\n"
        f"E       {failure.message}\n\n{failure.crash_file}:{failure.crash_line}\n"
        f"FAILED {report.test_path}::{failure.test}"
    )
