"""The answers of ``run_shell_command`` to the oracle's test commands, without pytest.

Tens of thousands of test runs go into the training data. Their tests are plain assertions, so the
first failure is found in process (``execute.run_tests``) and written down in the words of pytest
7.2, the version in the base image. A test compares this with the real command. A run of the agent
is never judged by it.
"""

from __future__ import annotations

import ast

from evals.training.execute import CaseFailure
from evals.training.oracle import FIRST_TEST

WIDTH = 80


def shell_observation(command: str, failure: CaseFailure | None, test_path: str, test: str) -> str:
    """Return the observation for ``command`` when the first failure is ``failure``."""
    count = sum(isinstance(item, ast.FunctionDef) for item in ast.parse(test).body)
    done = "." * count if failure is None else "." * failure.passed + "F"
    if len(done) == count:
        done = f"{done:<{WIDTH - 8}} [100%]"
    if failure is None:
        return f"{done}\n[exit code 0]"
    lines = [done]
    if command == FIRST_TEST:
        lines.append(" FAILURES ".center(WIDTH, "="))
        lines.append(f"/workspace/{failure.crash_file}:{failure.crash_line}: {failure.message}")
    lines.append(" short test summary info ".center(WIDTH, "="))
    lines.append(_summary(f"FAILED {test_path}::{failure.test}", failure.message))
    lines.append(" stopping after 1 failures ".center(WIDTH, "!"))
    return "\n".join([*lines, "[exit code 1]"])


def _summary(head: str, message: str) -> str:
    """Return the summary line, its message cut to the terminal's width."""
    room = WIDTH - len(head)
    if room < len(" - ..."):
        return head
    tail = f" - {message}"
    return head + (tail if len(tail) <= room else tail[: room - 3] + "...")
