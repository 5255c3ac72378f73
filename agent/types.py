"""The data of one run: the task that goes in, the steps, and the outcome that comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model.messages import Message
from model.session import Usage
from tools.types import Observation


@dataclass(frozen=True)
class Task:
    """What is asked: the issue text, the repository, and how to tell that it is done."""

    text: str
    repo: Path
    check: str | None = None


@dataclass(frozen=True)
class Step:
    """One turn of the loop: what the model said, what its calls gave, and what that cost.

    ``token_ids`` and ``logprobs`` are those of the sampled tokens, in order.
    """

    index: int
    message: Message
    observations: tuple[Observation, ...]
    usage: Usage
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Submitted:
    """The model called ``submit``. ``patch`` may still be empty."""

    patch: str
    summary: str = ""


@dataclass(frozen=True)
class LimitReached:
    """A limit ended the run: steps, tokens, wall_time, context, malformed_calls, repeated_calls."""

    limit: Literal[
        "steps", "tokens", "wall_time", "context", "malformed_calls", "repeated_calls"
    ]
    patch: str


@dataclass(frozen=True)
class Failed:
    """The run could not go on (sandbox gone, disk full). ``reason`` is one line."""

    reason: str
    patch: str = ""


@dataclass(frozen=True)
class Interrupted:
    """The user stopped the run; the session is saved."""

    patch: str = ""


Outcome = Submitted | LimitReached | Failed | Interrupted


@dataclass(frozen=True)
class RunResult:
    """Everything one run leaves behind."""

    outcome: Outcome
    steps: Sequence[Step] = field(default_factory=tuple)
    usage: Usage = field(default_factory=Usage)
