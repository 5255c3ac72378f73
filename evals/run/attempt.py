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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import StoreError
from agent.events import Event, Listener, RunEnded, RunStarted, nobody
from agent.loading import LoadedModel
from agent.run.report import status_of, summary_of
from agent.run.solve import solve
from agent.sessions.store import SessionStore
from agent.text import explain
from agent.types import Failed, Interrupted, LimitReached, SolveReport, Task
from evals.errors import RunError
from evals.instance import Done, ExitStatus, Instance, Result, TaskPlace
from evals.suites.suite import Machine, Suite, settings_for
from sandboxes import errors
from sandboxes.errors import ImageMissing, SandboxError
from sandboxes.stop import Stop

TRIES: dict[ExitStatus, int] = {"environment": 3, "error": 2}
"""How often an attempt that ends so is begun in all."""
RECORD = ("session.json", "trajectory.jsonl")


class Stopped(Exception):
    """The attempt was interrupted: it is not over, and begins again another time."""


@dataclass(frozen=True)
class AttemptWorker:
    """The parts that attempts are made with. One may serve several threads."""

    suite: Suite
    machine: Machine
    model: LoadedModel
    store: SessionStore

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
        """One try, and whether another one could not end otherwise."""
        started = time.monotonic()
        seed = self.machine.settings.seed + attempt - 1
        if stop.is_set():
            raise Stopped

        def result(status: ExitStatus, told: str, summary: str) -> Result:
            return Result(
                instance.id,
                attempt,
                status,
                told,
                summary=summary,
                seed=seed,
                tries=tries,
                seconds=time.monotonic() - started,
                digest=instance.digest,
            )

        session = _Session(listen)
        try:
            with self.suite.place(instance, self.machine) as place:
                session.place = place
                settings = settings_for(self.machine.settings, place)
                report = solve(
                    # Its check is for grading, which runs it in a fresh sandbox.
                    Task(instance.text, place.repo, instance.check, checked=False),
                    settings.model_copy(
                        update={"seed": seed, "n": 1, "check": None, "keep_state": False}
                    ),
                    self.model,
                    store=self.store,
                    listen=session,
                    stop=stop,
                )
        except StoreError as error:
            # It is where all sessions lie: no other attempt would fare better.
            raise RunError(f"{error}; what was done is kept") from error
        except (SandboxError, OSError) as error:
            final = isinstance(error, ImageMissing)
            return Done(result("environment", "failed", explain(error).message)), final
        except Exception as error:
            return Done(result("error", "error", explain(error).message)), False
        finally:
            record = self._collect(session)
        if isinstance(report.result.outcome, Interrupted):
            raise Stopped
        status, told = exit_status(report)
        base = result(status, told, summary_of(report.result))
        full = Result(
            **{
                **base.as_dict(),
                "patch": report.patch,
                "steps": len(report.result.steps),
                "usage": report.result.usage.as_dict(),
                "session": report.session,
            }
        )
        return Done(full, record), False

    def _collect(self, session: _Session) -> dict[str, bytes]:
        """Remove the session and return its files."""
        record = dict(session.files)
        if session.id:
            folder = Path(self.store.root) / session.id
            for name in RECORD:
                with suppress(OSError):
                    record[name] = (folder / name).read_bytes()
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
        elif isinstance(event, RunEnded) and event.status not in ("interrupted", "failed"):
            at_end = self.place.at_end if self.place is not None else None
            if at_end is not None:
                self.files = at_end(event.session)
        self._listen(event)


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
