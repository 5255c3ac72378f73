"""Runs the attempts of a run that are not done yet: several at once, each written down as it ends.

The attempts run in threads that share one engine, whose decode steps join
(``model.scheduler``); or each thread hands its attempts to an engine elsewhere
(``evals.run.cluster``).
Only the thread that called ``run`` writes, so nothing is written twice at once.

The first ^C lets what is under way come to its end and begins nothing new. The second one stops
what is under way; it is not written down and is done again by the next run.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from agent.events import Event, Listener, nobody
from evals.errors import RunError
from evals.instance import UNSETTLED, Done, Instance, Result
from evals.run.attempt import Stopped
from evals.run.folder import RunFolder
from sandboxes.stop import Stop

LOOK_S = 0.2


@dataclass(frozen=True)
class Job:
    """One attempt that is to be made; ``attempt`` counts from 1."""

    instance: Instance
    attempt: int


class Watcher(Protocol):
    """Whoever looks on. Called from the threads of the workers and from the main one."""

    def begun(self, job: Job) -> None:
        """Note that a worker takes the job up."""
        ...

    def heard(self, job: Job, event: Event) -> None:
        """Note an event of the job."""
        ...

    def ended(self, job: Job, result: Result | None) -> None:
        """It is over and written down; None: it was stopped."""
        ...

    def looked(self) -> None:
        """Time has passed."""
        ...


class Nobody:
    """The watcher that does not watch."""

    def begun(self, job: Job) -> None:
        pass

    def heard(self, job: Job, event: Event) -> None:
        pass

    def ended(self, job: Job, result: Result | None) -> None:
        pass

    def looked(self) -> None:
        pass


Execute = Callable[[Job, Listener, Stop], Done]
"""Makes an attempt: the job, who listens, what cancels it. Raises ``Stopped``."""


@dataclass
class Interruptions:
    """A count of the user's interruptions: one drains, two set ``stop``."""

    count: int = 0
    stop: Stop = field(default_factory=Stop)

    def add(self) -> None:
        """Count one more."""
        self.count += 1
        if self.count > 1:
            self.stop.cancel()

    @property
    def drain(self) -> bool:
        """True once nothing new is to begin."""
        return self.count > 0


def missing(
    folder: RunFolder, instances: Sequence[Instance], attempts: int, *, redo: bool = False
) -> list[Job]:
    """Return the attempts that are still to be made, the first of every instance before any second.

    With ``redo`` those are all, and what there was is forgotten. Raises ``RunError`` if an
    instance's row is not the one that was run.
    """
    results = {} if redo else folder.results()
    jobs = []
    for attempt in range(1, attempts + 1):
        for instance in instances:
            if redo:
                folder.drop(instance.id, attempt)
            result = results.get((instance.id, attempt))
            if result is not None and result.digest != instance.digest:
                raise RunError(
                    f"{instance.id} in {folder.path} was run from another row than the data set "
                    "has now; give another folder with --run, or --redo"
                )
            if result is None or result.exit_status in UNSETTLED:
                jobs.append(Job(instance, attempt))
    return jobs


@dataclass
class Runner:
    """Makes the attempts of ``jobs`` with ``execute``, ``workers`` at a time."""

    folder: RunFolder
    model: str
    execute: Execute
    workers: int = 1
    watcher: Watcher = field(default_factory=Nobody)
    interruptions: Interruptions = field(default_factory=Interruptions)

    def run(self, jobs: Sequence[Job]) -> dict[tuple[str, int], Result]:
        """Make the attempts and return every result, those of earlier runs included.

        Raises ``RunError`` if a result cannot be written; what was written before stays.
        """
        results = self.folder.results()
        self._write_predictions(results, {job.attempt for job in jobs} | {1})
        waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            waiting.put(job)
        over: queue.SimpleQueue[tuple[Job, Done | BaseException | None]] = queue.SimpleQueue()
        threads = [
            threading.Thread(target=self._work, args=(waiting, over), name=f"worker {number}")
            for number in range(min(self.workers, len(jobs)))
        ]
        for thread in threads:
            thread.start()
        left = len(threads)
        trouble: BaseException | None = None
        while left:
            try:
                job, came = over.get(timeout=LOOK_S)
            except queue.Empty:
                self.watcher.looked()
                continue
            if came is None:
                left -= 1
            elif isinstance(came, Stopped):
                self.watcher.ended(job, None)
            elif isinstance(came, BaseException):
                trouble = trouble or came
                self.interruptions.count = 2
            else:
                try:
                    self._keep(came, results)
                except OSError as error:
                    trouble = trouble or self._cannot_write(error)
                    self.interruptions.count = 2
                else:
                    self.watcher.ended(job, came.result)
        for thread in threads:
            thread.join()
        if trouble is not None:
            raise trouble
        return results

    def _work(
        self,
        waiting: queue.SimpleQueue[Job],
        over: queue.SimpleQueue[tuple[Job, Done | BaseException | None]],
    ) -> None:
        """Do job after job until there is none, or none is to begin."""
        job = None
        while not self.interruptions.drain:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                over.put((job, self._one(job)))
            except BaseException as error:
                over.put((job, error))
        nothing = job or Job(Instance("", ""), 0)
        over.put((nothing, None))

    def _one(self, job: Job) -> Done:
        self.watcher.begun(job)
        quiet = isinstance(self.watcher, Nobody)
        listen: Listener = nobody if quiet else partial(self.watcher.heard, job)
        return self.execute(job, listen, self.interruptions.stop)

    def _keep(self, done: Done, results: dict[tuple[str, int], Result]) -> None:
        result = done.result
        self.folder.keep(done)
        results[result.instance_id, result.attempt] = result
        self._write_predictions(results, {result.attempt})

    def _write_predictions(
        self, results: dict[tuple[str, int], Result], attempts: set[int]
    ) -> None:
        try:
            for attempt in sorted(attempts):
                self.folder.write_predictions(results, self.model, attempt)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> RunError:
        return RunError(
            f"cannot write in {self.folder.path}: {error.strerror or error}; make room and run "
            "again: what was done is kept"
        )
