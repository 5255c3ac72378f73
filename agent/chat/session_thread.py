"""The thread that owns the session: one job after the other, results posted to the screen."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

MAX_QUEUED = 100


@dataclass(frozen=True)
class Queued:
    """A job and what it is called in the list of what waits."""

    name: str
    run: Callable[[], None]


class SessionThread:
    """Runs jobs in order on one thread. A job raises nothing: it tells its own errors."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Queued | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._waiting: list[Queued] = []
        self._running: str | None = None
        self._thread = threading.Thread(target=self._work, name="chat-session", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def busy(self) -> bool:
        """True while a job runs or waits."""
        with self._guard:
            return self._running is not None or bool(self._waiting)

    @property
    def waiting(self) -> list[str]:
        """The names of the jobs that wait, the next one first."""
        with self._guard:
            return [job.name for job in self._waiting]

    def add(self, name: str, job: Callable[[], None]) -> bool:
        """Put a job behind the others; return False if too many wait already."""
        queued = Queued(name, job)
        with self._guard:
            if len(self._waiting) >= MAX_QUEUED:
                return False
            self._waiting.append(queued)
        self._jobs.put(queued)
        return True

    def drop_waiting(self) -> list[str]:
        """Forget the jobs that wait; return their names, the next one first."""
        with self._guard:
            dropped, self._waiting = self._waiting, []
        return [job.name for job in dropped]

    def finish(self, within_s: float) -> bool:
        """Let the running job end, run no other, and end the thread; return whether it ended."""
        self.drop_waiting()
        if self._thread.ident is None:
            return True
        self._jobs.put(None)
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._guard:
                if job not in self._waiting:
                    continue
                self._waiting.remove(job)
                self._running = job.name
            try:
                job.run()
            finally:
                with self._guard:
                    self._running = None
