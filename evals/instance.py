"""One task of a suite, the place it is worked on, and what one attempt at it came to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from evals.run.talk import Talk

ExitStatus = Literal["submitted", "limits", "format", "environment", "error"]
EXIT_STATUSES: tuple[ExitStatus, ...] = ("submitted", "limits", "format", "environment", "error")
UNSETTLED: frozenset[ExitStatus] = frozenset({"environment", "error"})
"""What says nothing of the model: done again by the next run."""


@dataclass(frozen=True)
class Instance:
    """One task: its id, what the model is told, the check it may run, and its row as it came.

    ``image`` is the Docker image it brings, if any; ``folder`` its own folder on this machine and
    ``files`` a hash of what lies there. ``refused`` says why it cannot be run here; "" if it can.
    """

    id: str
    text: str
    check: str | None = None
    image: str | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    files: str = ""
    refused: str = ""

    @property
    def digest(self) -> str:
        """A hash of the row and the files; if it changes, it is another task of the same name."""
        text = json.dumps(self.row, sort_keys=True, default=str) + self.files
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TaskPlace:
    """A git repository on this machine for one instance, and the settings that it decides.

    ``settings`` are keys of ``agent.settings.table.Settings`` that the instance decides (its image,
    where the repository lies in it, whether it has the network). ``at_end``, if any, is called with
    the session's id when the agent is done and its sandbox still open, and returns files to keep.
    ``solve``, if any, is called in the same way to carry out the task's own solution, and
    ``at_start`` before the agent begins. With ``talk`` the task is a conversation
    (``evals.run.talk``), and ``at_end`` is not asked. ``notes`` are told after the task's text.
    """

    repo: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    at_end: Callable[[str], Mapping[str, bytes]] | None = None
    solve: Callable[[str], None] | None = None
    talk: Talk | None = None
    at_start: Callable[[str], None] | None = None
    notes: str = ""


@dataclass(frozen=True)
class Result:
    """The end of one attempt. ``attempt`` counts from 1, ``tries`` how often it had to begin.

    ``exit_status`` is for deciding what to do with it, ``status`` says it as ``agent solve`` does
    (``limit_steps``, ``no_patch`` …). ``usage`` are the session's counters; times are seconds.
    """

    instance_id: str
    attempt: int
    exit_status: ExitStatus
    status: str
    patch: str = ""
    summary: str = ""
    steps: int = 0
    usage: Mapping[str, float] = field(default_factory=dict)
    session: str = ""
    seed: int = 0
    tries: int = 1
    seconds: float = 0.0
    digest: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Make a result from ``as_dict``; ignore fields of later versions."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True)
class Verdict:
    """The result of grading one attempt.

    ``reward`` lies in [0, 1]; ``resolved`` says whether it counts as solved, and is None if the
    attempt could not be graded; then ``reason`` says why. ``output`` is the end of what the tests
    printed. Raises ``ValueError`` for another reward.
    """

    instance_id: str
    resolved: bool | None
    reward: float = 0.0
    reason: str = ""
    output: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.reward <= 1.0:
            raise ValueError(f"the reward {self.reward!r} of {self.instance_id} is not in [0, 1]")


@dataclass(frozen=True)
class Done:
    """A result and the files of its session, by name."""

    result: Result
    record: Mapping[str, bytes] = field(default_factory=dict)
