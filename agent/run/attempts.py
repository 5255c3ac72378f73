"""Several attempts at one task at the same time: best of n.

The attempts are forked where they begin to differ: after the first prompt, which is run once, just
before the model's first answer. What the model reads from there on is a choice of its own, and an
attempt that shared it with another would share its mistakes too. So attempt i does what a single
run with seed + i - 1 would do. Each has a thread, a session folder and a sandbox of its own, whose
files are laid out from the first one's record (git objects are shared by hard links); the engine
joins what they decode. The first whose check passes wins and the others stop at their next token.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from agent.client import Client
from agent.events import Event, FromAttempt, Listener, RunStarted
from agent.loading import LoadedModel
from agent.loop.first_prompt import Branch, Trunk
from agent.loop.untried import Tried
from agent.run import report as reporting
from agent.run.check import CheckedPatches
from agent.run.open_session import OpenSession
from agent.run.scope import refuse_outside
from agent.sessions.info import RUNNING
from agent.sessions.records import SessionRecord
from agent.sessions.store import SavedSession, SessionStore
from agent.settings.table import Settings
from agent.text import explain
from agent.types import Attempt, SolveReport, Task
from model.errors import ModelError
from model.usage import Usage
from sandboxes.stop import Stop

LOOK_S = 0.2


def solve_best_of(
    task: Task,
    settings: Settings,
    model: LoadedModel,
    client: Client,
    *,
    store: SessionStore,
    apply: bool = False,
) -> SolveReport:
    """Make ``settings.n`` attempts at ``task`` and return the report of the chosen one.

    Raises what ended the first attempt if none came to an end of its own.
    """
    listen, race = one_at_a_time(client.listen), Race(client.stop.joined())
    # Words of the user are for one conversation.
    client = dataclasses.replace(client, listen=listen, stop=race.stop, words=None)
    told = FirstAttempt(listen)
    own = dataclasses.replace(client, listen=told)
    with OpenSession.new(task, settings, model, own, store=store) as first:
        name, sandbox = model.engine.name, settings.sandbox
        listen(FromAttempt(1, RunStarted(first.id, name, sandbox, 1, settings.n)))
        return BestOf(first, told, client, race, store, apply).run()


@dataclass
class FirstAttempt:
    """The listener of the first attempt; with ``common`` what happens concerns all attempts."""

    listen: Listener
    common: bool = True

    def __call__(self, event: Event) -> None:
        self.listen(event if self.common else FromAttempt(1, event))


@dataclass
class Race:
    """Record of the attempt that has won. ``stop`` is set for all attempts then."""

    stop: Stop
    winner: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def wins(self, number: int) -> bool:
        """Return True for the first who asks; the others are stopped then."""
        with self._lock:
            if self.winner:
                return False
            self.winner = number
            self.stop.cancel(f"attempt {number} passed the check first")
            return True


@dataclass
class BestOf:
    """All attempts at a task whose first one is open and has not begun."""

    first: OpenSession
    told: FirstAttempt
    client: Client
    race: Race
    store: SessionStore
    apply: bool
    reports: dict[int, SolveReport] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    checked: CheckedPatches = field(default_factory=lambda: CheckedPatches(shared=True))
    tried: Tried = field(default_factory=Tried)

    def run(self) -> SolveReport:
        """Run all attempts, each in its own place, and return the chosen one's report."""
        settings = self.first.settings
        self.first.check_first()
        refuse_outside(self.first)
        with ExitStack() as stack:
            trunk = self._trunk()
            stack.callback(trunk.close)
            # Copied before the first attempt adds to its record.
            copies = [self._copy(number) for number in range(2, settings.n + 1)]
            works: list[Callable[[], SolveReport]] = [partial(self._attempt, 1, self.first, trunk)]
            for number, saved in enumerate(copies, start=2):
                works.append(partial(self._elsewhere, number, saved, trunk))
            self.told.common = False
            self._together(works)
        return self._chosen([self.first.saved, *copies])

    def _trunk(self) -> Trunk:
        """Run the first prompt up to where the model's answer begins, or as far as it goes."""
        parts = self.first.parts
        conversation, prompter = parts.speaker(), self.first.prompter
        prompter.notes = prompter.overview()
        messages = prompter.first_messages(parts.saved.info.task)
        ids = conversation.encode(messages)
        trunk = Trunk(ids, {})
        trunk.add(conversation.session)
        entered = parts.beginning.enter(conversation, messages, trunk)
        end = parts.model.chat.turn_cut(ids)
        try:
            if entered is not None and conversation.hear(ids[conversation.tokens : end]):
                trunk.add(conversation.session)
        except ModelError:
            pass  # the attempts will each find out, and say so
        conversation.session.close()
        return trunk

    def _copy(self, number: int) -> SavedSession:
        """Make a folder for another attempt, with the first one's files and record so far."""
        saved = self.first.saved
        seed = self.first.settings.seed + number - 1
        copy = self.store.copy(saved, parent=saved.id, status=RUNNING, attempt=number, seed=seed)
        with copy.writer() as trajectory:
            trajectory.write(SessionRecord(copy.info))
        return copy

    def _attempt(self, number: int, session: OpenSession, trunk: Trunk) -> SolveReport:
        """Make one attempt in its open session."""
        seed = self.first.settings.seed + number - 1
        branch = Branch(trunk, seed, first=number == 1)
        session.begin_from(branch, self.first.prompter.notes)
        session.checked = self.checked
        session.parts.search_with(self.tried, number)
        report = session.work()
        good = reporting.status_of(report.result, report.check)[1] == 0
        return session.finish(report, apply=good and self.race.wins(number) and self.apply)

    def _elsewhere(self, number: int, saved: SavedSession, trunk: Trunk) -> SolveReport:
        """Make one attempt in a copy of the first one's files as they were at the start."""
        settings, listen = self.first.settings, self.client.listen
        client = dataclasses.replace(
            self.client, listen=lambda event: listen(FromAttempt(number, event))
        )
        with OpenSession.reopen(saved, settings, self.first.model, client) as session:
            session.announce(number, settings.n)
            return self._attempt(number, session, trunk)

    def _together(self, works: Sequence[Callable[[], SolveReport]]) -> None:
        """Run ``works`` in threads and wait for all, whatever happens meanwhile."""

        def one(number: int, work: Callable[[], SolveReport]) -> None:
            try:
                self.reports[number] = work()
            except BaseException as error:
                self.errors[number] = error

        threads = [
            threading.Thread(target=one, args=(number, work), name=f"attempt {number}")
            for number, work in enumerate(works, start=1)
        ]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    # In short waits, so that signals are heard in between.
                    thread.join(LOOK_S)
        finally:
            self.race.stop.cancel()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _chosen(self, places: Sequence[SavedSession]) -> SolveReport:
        """Return the winner's report, else the best one, with a line on every attempt."""
        attempts = tuple(self._line(number, saved) for number, saved in enumerate(places, start=1))
        ended = {a.number: a for a in attempts if a.number in self.reports}
        if not ended:
            raise self.errors[min(self.errors)]
        best = self.race.winner
        if not best:
            if stopped := [n for n, a in ended.items() if a.status == "interrupted"]:
                ended = {number: ended[number] for number in stopped}
            best = max(ended, key=lambda n: (_rank(self.reports[n]), ended[n].logprob, -n))
        return dataclasses.replace(self.reports[best], attempts=attempts)

    def _line(self, number: int, saved: SavedSession) -> Attempt:
        report = self.reports.get(number)
        if report is None:
            error = self.errors.get(number)
            told = "" if error is None else explain(error).message
            return Attempt(number, saved.id, "failed", False, 0, 0.0, Usage(), told)
        result = report.result
        status, _ = reporting.status_of(result, report.check)
        passed = report.check is not None and report.check.passed
        said = [value for step in result.steps for value in step.logprobs]
        mean = sum(said) / len(said) if said else 0.0
        return Attempt(number, saved.id, status, passed, len(result.steps), mean, result.usage)


def _rank(report: SolveReport) -> int:
    """Rate how far an attempt came: a submitted patch, any patch, an end without one, a failure."""
    status, _ = reporting.status_of(report.result, report.check)
    if status == "failed":
        return 0
    if not report.patch:
        return 1
    return 3 if status in ("submitted", "check_failed") else 2


def one_at_a_time(listen: Listener) -> Listener:
    """Return ``listen`` for several threads: it hears one event after the other."""
    lock = threading.Lock()

    def heard(event: Event) -> None:
        with lock:
            listen(event)

    return heard
