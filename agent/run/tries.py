"""Several answers to one message at once, from the state that a session has: ``/try``.

Each try is a saved fork of the session with a thread, a sandbox and random numbers of its own, and
begins on the model state in memory, whose pages all of them share. The user's files are read, and
left as they are until one try is taken: what a try changes stays in its own workspace.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.client import Client, OnDisk
from agent.control.approvals import Approvals
from agent.errors import ConfigError
from agent.events import FromAttempt, Listener
from agent.run.attempts import one_at_a_time
from agent.run.build import sampling_of
from agent.run.open_session import OpenSession
from agent.run.report import status_of
from agent.sessions.store import SavedSession, SessionStore
from agent.text import explain
from agent.types import CheckRun
from model.session import Session
from model.usage import Usage
from sandboxes.workspace.exchange import Exchange, File

MOST = 8


@dataclass(frozen=True)
class Try:
    """One try: its session, how its turn ended, what its check gave, and what it changed.

    ``error`` is why it could not be made, "" where it could. ``check`` is None without a check.
    """

    number: int
    session: str
    status: str = "failed"
    check: CheckRun | None = None
    patch: str = ""
    cost: Usage = field(default_factory=Usage)
    error: str = ""


class ShadowFiles(OnDisk):
    """The user's files as they would be: what is written stays in memory."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._written: dict[str, File | None] = {}

    def read(self, path: str) -> File | None:
        """Read what was written here, else from the disk."""
        return self._written[path] if path in self._written else super().read(path)

    def write(self, path: str, file: File | None) -> None:
        """Keep it; the disk is left alone."""
        self._written[path] = file


def try_turn(session: OpenSession, text: str, count: int, store: SessionStore) -> list[Try]:
    """Answer ``text`` in ``count`` forks of ``session`` at the same time; return them in order.

    ``session`` itself stays as it is. Its client hears the events of each as ``FromAttempt``, and
    its stop ends them all. Calls are not asked for, as nothing leaves a try's workspace; rules that
    deny or ask hold, and tools outside of the sandbox are left out unless the mode asks for
    nothing. Raises ``ConfigError`` for a count or a temperature that makes no sense, and
    ``StoreError``.
    """
    if not 2 <= count <= MOST:
        raise ConfigError(f"/try makes 2 to {MOST} attempts, not {count}")
    if sampling_of(session.settings, session.model.engine.generation).temperature == 0:
        raise ConfigError("/try needs a temperature above 0: greedy attempts are all equal")
    session.load()
    listen, seed = one_at_a_time(session.parts.client.listen), session.saved.info.seed
    works = []
    for number in range(1, count + 1):
        saved = store.copy(session.saved, parent=session.id, seed=seed + number)
        client = _client_for(session.parts.client, number, listen)
        state = session.parts.conversation.session
        fork = state.fork(seed=seed + number) if session.steps else None
        works.append(_OneTry(number, saved, client, session, fork))
    return _together(works, text)


@dataclass
class _OneTry:
    """A try that is to be made. ``fork`` is the model's state that it begins with."""

    number: int
    saved: SavedSession
    client: Client
    origin: OpenSession
    fork: Session | None

    def make(self, text: str) -> Try:
        """Open the fork, run the turn and its check, and close it again."""
        origin = self.origin
        try:
            with OpenSession.reopen(
                self.saved, origin.settings, origin.model, self.client
            ) as session:
                if session.prompter.newest is None:
                    session.prompter.newest = self.fork
                return self._run(session, text)
        except Exception as error:
            return Try(self.number, self.saved.id, error=explain(error).message)

    def _run(self, session: OpenSession, text: str) -> Try:
        workspace, mirror = session.parts.workspace, session.parts.mirror
        assert mirror is not None
        mirror.look()
        before = workspace.checkpoint()
        report = session.turn(text)
        status = status_of(report.result, report.check)[0]
        asks = session.saved.info.check or session.settings.check
        done = asks and not session.broken and not self.client.stop.is_set()
        check = session.check() if done else None
        patch = workspace.diff(before)
        return Try(self.number, session.id, status, check, patch, report.cost)


def _client_for(client: Client, number: int, listen: Listener) -> Client:
    approvals = client.approvals
    asks_nothing = approvals.mode in ("never", "plan")
    return dataclasses.replace(
        client,
        listen=lambda event: listen(FromAttempt(number, event)),
        stop=client.stop.joined(),
        approvals=Approvals("plan" if approvals.mode == "plan" else "never", None, approvals.rules),
        words=None,
        files=ShadowFiles,
        tools=client.tools if asks_nothing else None,
    )


def _together(works: list[_OneTry], text: str) -> list[Try]:
    """Make all tries, each on a thread of its own, and wait for the last."""
    made: dict[int, Try] = {}

    def one(work: _OneTry) -> Callable[[], None]:
        def run() -> None:
            made[work.number] = work.make(text)

        return run

    threads = [threading.Thread(target=one(w), name=f"try {w.number}") for w in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [made[number] for number in sorted(made)]
