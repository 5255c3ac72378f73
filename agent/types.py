"""The data of one run: the task that goes in, the steps, and the outcome that comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model.messages import Message
from model.usage import Usage
from model.vision.picture import Picture
from tools.types import Observation

LimitName = Literal[
    "steps", "tokens", "wall_time", "context", "malformed_calls", "repeated_calls", "no_change"
]
TurnEnd = Literal["stop", "length", "interrupted"]
ThinkingEnd = Literal["", "budget", "circles"]
"""Why a turn's reasoning was closed for the model, "" if it was not."""
Spans = tuple[tuple[int, float], ...]
"""A value in pieces: how many characters of it one token spells, and its log-probability."""


@dataclass(frozen=True)
class Task:
    """Task that is asked for: the issue text, the repository, and how to tell that it is done.

    ``folder`` is where the user stands below ``repo``, "" at its top (``agent.run.standing``).
    The model is told of ``check``. With ``checked`` it is run too, before and after; without, that
    is left to whoever asked. ``pictures`` are shown with the text.
    """

    text: str
    repo: Path
    check: str | None = None
    checked: bool = True
    pictures: tuple[Picture, ...] = ()
    folder: str = ""


@dataclass(frozen=True)
class Step:
    """One turn of the loop: what the model said, what its calls gave, and what that cost.

    ``token_ids`` and ``logprobs`` are those of the sampled tokens, in order. ``observations``
    answer the calls in order; there are fewer of them if the run ended between two calls.
    ``ended`` says whether the model closed the turn itself, was cut at a token limit, or stopped.
    ``forced`` are the places in ``token_ids`` of those that were put there instead of sampled, and
    ``closed`` says why the reasoning was closed with them. ``masked_logprobs`` are the
    log-probabilities among the tokens that ``--constrain`` allowed, empty without it.
    ``spans`` are for each call its text values in pieces, by parameter.
    ``tree`` is the checkpoint of the files after the step. A step that goes on with a turn that was
    stopped holds the whole turn's message, and the token ids and observations that are new.
    """

    index: int
    message: Message
    observations: tuple[Observation, ...]
    usage: Usage
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    ended: TurnEnd = "stop"
    tree: str = ""
    forced: tuple[int, ...] = ()
    closed: ThinkingEnd = ""
    masked_logprobs: tuple[float, ...] = ()
    spans: tuple[Mapping[str, Spans], ...] = ()


@dataclass(frozen=True)
class Compaction:
    """A full context of ``before`` tokens was given up for one of ``after`` tokens.

    ``kept`` is the session that has the old context, "" if none has; ``summary`` what the model
    wrote down.
    """

    before: int
    after: int
    kept: str
    summary: str


@dataclass(frozen=True)
class Prompt:
    """Prompt that the model is told next: messages, and the tokens that they are.

    ``ids`` are still to be run; ``written`` go into the record, with those that have run already.
    With ``at`` they replace the session's ids from there on, and ``tokenizer`` is the fingerprint
    of what they belong to since; ``compacted`` says that they took the place of a full context.
    ``before`` are the counters at the beginning of the next step, if a part has run already. With
    ``by_user`` it has words of the user's: a state to return to is kept before the answer begins.
    """

    messages: tuple[Message, ...]
    ids: tuple[int, ...]
    written: tuple[int, ...]
    at: int | None = None
    tokenizer: str | None = None
    compacted: Compaction | None = None
    before: Usage | None = None
    by_user: bool = False

    @property
    def plain(self) -> bool:
        """True if all of it simply goes after what the session holds."""
        return self.at is None and self.ids == self.written


@dataclass(frozen=True)
class Submitted:
    """The model called ``submit``. ``patch`` may still be empty."""

    patch: str
    summary: str = ""


@dataclass(frozen=True)
class Answered:
    """The model ended its turn with words and no call, in a session where a person answers."""

    patch: str
    text: str = ""


@dataclass(frozen=True)
class LimitReached:
    """A limit ended the run; ``LimitName`` lists them."""

    limit: LimitName
    patch: str


@dataclass(frozen=True)
class Failed:
    """The run could not go on (sandbox gone, disk full). ``reason`` is one line.

    ``cause`` is the class of the error behind it, "" if there was none.
    """

    reason: str
    patch: str = ""
    cause: str = ""


@dataclass(frozen=True)
class Interrupted:
    """The user stopped the run, or for ``why`` somebody else did; the session is saved."""

    patch: str = ""
    why: str = ""


Outcome = Submitted | Answered | LimitReached | Failed | Interrupted


@dataclass(frozen=True)
class RunResult:
    """Everything one run leaves behind. ``unheard`` is what the model was not told any more."""

    outcome: Outcome
    steps: Sequence[Step] = field(default_factory=tuple)
    usage: Usage = field(default_factory=Usage)
    unheard: Prompt | None = None


@dataclass(frozen=True)
class CheckRun:
    """One run of the check command. ``exit_code`` is None if it did not end by itself."""

    exit_code: int | None
    output: str
    duration_s: float

    @property
    def passed(self) -> bool:
        """True exactly for exit code 0."""
        return self.exit_code == 0


@dataclass(frozen=True)
class CheckReport:
    """The check before the model began and after its patch; None where it was not run."""

    command: str
    before: CheckRun | None = None
    after: CheckRun | None = None

    @property
    def passed(self) -> bool:
        """True if the check passes with the patch."""
        return self.after is not None and self.after.passed


@dataclass(frozen=True)
class Attempt:
    """One of several attempts at a task: how it ended, and what it cost.

    ``logprob`` is the mean log-probability of what was sampled, 0.0 if nothing was. ``session`` is
    "" and ``error`` says why if the attempt could not begin.
    """

    number: int
    session: str
    status: str
    passed: bool
    steps: int
    logprob: float
    usage: Usage
    error: str = ""


@dataclass(frozen=True)
class SolveReport:
    """Outcome of ``agent solve``: the run's result, its check, and where it is kept.

    ``applied`` says that the patch is now in the user's own tree. ``attempts`` are all there were
    if several were asked for; the rest is then that of the one that was chosen. ``cost`` is what
    this turn used, where ``result.usage`` is what the session has used since it began.
    """

    session: str
    result: RunResult
    check: CheckReport | None
    model: str
    sandbox: str
    applied: bool = False
    attempts: tuple[Attempt, ...] = ()
    cost: Usage = field(default_factory=Usage)

    @property
    def patch(self) -> str:
        """The workspace's diff when the run ended, also when it ended badly."""
        return self.result.outcome.patch
