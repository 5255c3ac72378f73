"""The errors of an evaluation, each one line for the user.

EvalError            exit code 1
├── DatasetError     exit code 2: rows that cannot be run or graded, ids that are not there
├── RunError         the folder of a run is of another run, in use, or cannot be written
│   └── RunNotFound  exit code 2: the folder that was named is no folder of a run
└── GradeError       predictions cannot be graded, or the official harness failed

They are ``AgentError`` s, so that the command line tells them as it tells its own.
"""

from __future__ import annotations

from agent.errors import AgentError


class EvalError(AgentError):
    """Base of every error the evaluations raise on purpose."""


class DatasetError(EvalError):
    """A data set cannot be read, or a row of it lacks what is needed."""

    exit_code = 2


class RunError(EvalError):
    """The folder of a run cannot be used."""


class RunNotFound(RunError):
    """The folder that was named is no folder of a run."""

    exit_code = 2


class GradeError(EvalError):
    """Predictions cannot be graded."""
