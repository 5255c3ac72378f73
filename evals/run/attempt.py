"""One attempt at one instance: lay it out, let the agent solve it, say how it ended.

How it ended is one of five exit statuses:

=============  =====================================================  ==========================
submitted      the model said that it is done                         kept
limits         steps, tokens, time or the context ran out, or the     kept
               model repeated itself without end
format         the model stopped making usable calls                  kept
environment    image, container, repository or disk failed            begun again, up to 3 tries
error          anything else failed                                   begun again once
=============  =====================================================  ==========================

An image that is missing is not asked for again within a run. What ends in ``environment`` or
``error`` says nothing of the model, so the next run takes it up again.
"""

from __future__ import annotations

import builtins
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from agent.client import Client
from agent.errors import StoreError
from agent.events import Event, Listener, RunEnded, RunStarted, nobody
from agent.loading import LoadedModel
from agent.run.build import open_box, open_workspace
from agent.run.report import status_of, summary_of
from agent.run.solve import solve
from agent.sessions.pictures import FOLDER as PICTURES
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from agent.text import explain
from agent.types import Failed, Interrupted, LimitReached, SolveReport, Task
from evals.errors import RunError
from evals.instance import UNSETTLED, Done, ExitStatus, Instance, Result, TaskPlace
from evals.run.talk import talk
from evals.suites.suite import NOP_PATCH, Machine, Suite, combine, gold_patch
from model.messages import Message
from sandboxes import errors
from sandboxes.errors import ImageMissing, SandboxError
from sandboxes.stop import Stop

TRIES: dict[ExitStatus, int] = {"environment": 3, "error": 2}
"""How often an attempt that ends so is begun in all."""
AgentName = Literal["tenuto", "oracle", "nop"]
AGENTS: tuple[AgentName, ...] = ("tenuto", "oracle", "nop")
RECORD = ("session.json", "trajectory.jsonl")


class Stopped(Exception):
    """The attempt was interrupted: it is not over, and begins again another time."""


@dataclass(frozen=True)
class _Ending:
    """The end of one try; the fields are those of ``Result``."""

    exit_status: ExitStatus
    status: str
    summary: str
    patch: str = ""
    steps: int = 0
    usage: Mapping[str, float] = field(default_factory=dict)
    session: str = ""


@dataclass(frozen=True)
class AttemptWorker:
    """The parts that attempts are made with. One may serve several threads.

    ``model`` is None for the agents ``oracle`` (the task's own solution) and ``nop`` (no change).
    """

    suite: Suite
    machine: Machine
    model: LoadedModel | None
    store: SessionStore
    agent: AgentName = "tenuto"

    def run(
        self,
        instance: Instance,
        attempt: int,
        *,
        listen: Listener = nobody,
        stop: Stop | None = None,
    ) -> Done:
        """Make the attempt, as often as its exit status allows.

        Raises ``Stopped``, and ``RunError`` if no session can be kept on this machine.
        """
        tries = 0
        while True:
            tries += 1
            done, final = self._try(instance, attempt, tries, listen, stop or Stop())
            if final or tries >= TRIES.get(done.result.exit_status, 1):
                return done

    def _try(
        self,
        instance: Instance,
        attempt: int,
        tries: int,
        listen: Listener,
        stop: Stop,
    ) -> tuple[Done, bool]:
        """Make one try; tell with it whether another one could not end otherwise."""
        started = time.monotonic()
        seed = self.machine.settings.seed + attempt - 1
        if stop.is_set():
            raise Stopped
        session, final = _Session(listen), False
        try:
            ending = self._work(instance, seed, session, stop)
        except (Stopped, KeyboardInterrupt):
            raise
        except StoreError as error:
            # It is where all sessions lie: no other attempt would fare better.
            raise RunError(f"{error}; what was done is kept") from error
        except (SandboxError, OSError) as error:
            final = isinstance(error, ImageMissing)
            ending = _Ending("environment", "failed", explain(error).message)
        except Exception as error:
            ending = _Ending("error", "error", explain(error).message)
        finally:
            record = self._collect(session)
        if ending.exit_status in UNSETTLED and not ending.session:
            record = {}
        result = Result(
            instance.id,
            attempt,
            **vars(ending),
            seed=seed,
            tries=tries,
            seconds=time.monotonic() - started,
            digest=instance.digest,
        )
        return Done(result, record), final

    def _work(self, instance: Instance, seed: int, session: _Session, stop: Stop) -> _Ending:
        """Lay the instance out and let the agent work on it. Raises ``Stopped``."""
        with self.suite.place(instance, self.machine) as place:
            session.place = place
            changes = {"seed": seed, "n": 1, "check": None, "keep_state": False}
            settings = combine(self.machine.settings, {**place.settings, **changes})
            if self.agent != "tenuto" or self.model is None:
                return self._refer(instance, place, settings, session)
            if place.talk is not None:
                talked = talk(
                    Task(instance.text, place.repo),
                    place.talk,
                    settings,
                    self.model,
                    Client(session, stop, talks=True),
                    store=self.store,
                )
                session.files = talked.files
                return _ending(talked.report)
            report = solve(
                # Its check is for grading, which runs it in a fresh sandbox.
                Task(_told(instance, place), place.repo, instance.check, checked=False),
                settings,
                self.model,
                Client(session, stop),
                store=self.store,
            )
        return _ending(report)

    def _refer(
        self, instance: Instance, place: TaskPlace, settings: Settings, session: _Session
    ) -> _Ending:
        """Do what the task's own solution does, or nothing."""
        told = f"the agent {self.agent}"
        if place.at_end is None and (place.talk is None or self.agent == "oracle"):
            patch = gold_patch(self.suite, instance) if self.agent == "oracle" else NOP_PATCH
            return _Ending("submitted", "submitted", told, patch)
        name = f"{self.agent}-{uuid.uuid4().hex[:12]}"
        workspace = open_workspace(settings, place.repo)
        with open_box(settings, workspace, name) as sandbox:
            if place.at_start is not None:
                place.at_start(name)
            if self.agent == "oracle" and place.solve is not None:
                place.solve(name)
            if place.talk is not None:
                session.files = place.talk.end(sandbox, [Message("user", instance.text)])
            elif place.at_end is not None:
                session.files = place.at_end(name)
            patch = workspace.diff()
        return _Ending("submitted", "submitted", told, patch)

    def _collect(self, session: _Session) -> dict[str, bytes]:
        """Remove the session and return its files."""
        record = dict(session.files)
        if session.id:
            folder = Path(self.store.root) / session.id
            for name in RECORD:
                with suppress(OSError):
                    record[name] = (folder / name).read_bytes()
            for file in sorted((folder / PICTURES).glob("*")):
                with suppress(OSError):
                    record[f"{PICTURES}/{file.name}"] = file.read_bytes()
            with suppress(Exception):
                self.store.remove(session.id)
        return record


class _Session:
    """Listens for the session's id, and for the moment when the agent is done."""

    def __init__(self, listen: Listener) -> None:
        self._listen = listen
        self.id = ""
        self.place: TaskPlace | None = None
        self.files: Mapping[str, bytes] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self.id = event.session
            if self.place is not None and self.place.at_start is not None:
                self.place.at_start(event.session)
        elif isinstance(event, RunEnded) and event.status not in ("interrupted", "failed"):
            at_end = self.place.at_end if self.place is not None else None
            if at_end is not None:
                self.files = at_end(event.session)
        self._listen(event)


def _ending(report: SolveReport) -> _Ending:
    """Return the end of a try that a model worked in. Raises ``Stopped``."""
    if isinstance(report.result.outcome, Interrupted):
        raise Stopped
    status, told = exit_status(report)
    return _Ending(
        status,
        told,
        summary_of(report.result),
        report.patch,
        len(report.result.steps),
        report.result.usage.as_dict(),
        report.session,
    )


def _told(instance: Instance, place: TaskPlace) -> str:
    return "\n\n".join(part for part in (instance.text, place.notes) if part)


def exit_status(report: SolveReport) -> tuple[ExitStatus, str]:
    """Return a finished run's exit status, and its status in ``agent solve``'s words."""
    outcome = report.result.outcome
    told, _ = status_of(report.result, report.check)
    if isinstance(outcome, LimitReached):
        return ("format" if outcome.limit == "malformed_calls" else "limits"), told
    if isinstance(outcome, Failed):
        return ("environment" if _of_the_machine(outcome.cause) else "error"), told
    return "submitted", told


def _of_the_machine(cause: str) -> bool:
    """Tell whether an error class is of the sandbox or the disk, not of the model."""
    kind = getattr(errors, cause, None) or getattr(builtins, cause, None)
    return isinstance(kind, type) and issubclass(kind, SandboxError | OSError)
