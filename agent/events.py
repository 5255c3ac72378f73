"""Events that a run tells whoever listens, in the order they happen.

A listener is a function of one event. It is called on the run's own thread and must return soon; an
exception it raises ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent.types import CheckReport, CheckRun, Step
from model.messages import ToolCall
from tools.types import Observation


@dataclass(frozen=True)
class RunStarted:
    """A session begins. ``attempt`` counts from 1 to ``attempts``."""

    session: str
    model: str
    sandbox: str
    attempt: int = 1
    attempts: int = 1


@dataclass(frozen=True)
class Notice:
    """Remark on slow work or a fact worth knowing, as one line: an image is being built."""

    text: str


@dataclass(frozen=True)
class Working:
    """Start of work that may take long: ``what`` ("" for nothing). The next event ends it."""

    what: str


@dataclass(frozen=True)
class ModelLoaded:
    """The checkpoint ``name`` is loaded; its sessions hold ``context_length`` tokens."""

    name: str
    context_length: int


@dataclass(frozen=True)
class Prefilled:
    """``done`` of ``total`` new tokens have run through the model."""

    done: int
    total: int


@dataclass(frozen=True)
class ThinkingDelta:
    """The next piece of the model's reasoning."""

    text: str


@dataclass(frozen=True)
class ContentDelta:
    """The next piece of the model's visible text."""

    text: str


@dataclass(frozen=True)
class CallWriting:
    """The model has begun to write a call of the tool ``name``."""

    name: str


@dataclass(frozen=True)
class CallPlanned:
    """The model has made a complete call, which may still be refused."""

    call: ToolCall


@dataclass(frozen=True)
class CallRunning:
    """A call that nothing forbids is about to run."""

    call: ToolCall


@dataclass(frozen=True)
class CommandOutput:
    """A piece of a running command's output, as it arrives."""

    text: str


@dataclass(frozen=True)
class CallDone:
    """Result of a call."""

    call: ToolCall
    observation: Observation


@dataclass(frozen=True)
class StepDone:
    """A turn is over and written to the trajectory."""

    step: Step


@dataclass(frozen=True)
class Compacted:
    """The context was given up for an account of it: from ``before`` tokens to ``after``.

    Both include the prompt of the next turn.
    ``kept`` is the session that holds what was before, "" if it could not be kept.
    ``by_model`` says whether the model wrote the account, or the list of steps stands for it.
    """

    before: int
    after: int
    kept: str
    by_model: bool


@dataclass(frozen=True)
class CheckDone:
    """The check has run: ``before`` the model began, or after its patch."""

    when: str
    run: CheckRun


@dataclass(frozen=True)
class RunEnded:
    """A session is over and saved. ``check`` is None if none was asked for."""

    session: str
    status: str
    exit_status: int
    check: CheckReport | None


@dataclass(frozen=True)
class FromAttempt:
    """Event of attempt ``number`` (from 1) of several that run at the same time."""

    number: int
    event: Event


Event = (
    RunStarted
    | Notice
    | Working
    | ModelLoaded
    | Prefilled
    | ThinkingDelta
    | ContentDelta
    | CallWriting
    | CallPlanned
    | CallRunning
    | CommandOutput
    | CallDone
    | StepDone
    | Compacted
    | CheckDone
    | RunEnded
    | FromAttempt
)
Listener = Callable[[Event], None]


def nobody(event: Event) -> None:
    """Ignore ``event``: the listener of a run to which nobody listens."""
