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

from agent.events import Event, FromAttempt, Listener, RunStarted
from agent.loop.first_prompt import Beginning, Trunk
from agent.loop.loop import Loop, Opening
from agent.loop.overview import overview
from agent.loop.prompts import first_messages, place_of
from agent.run import report as reporting
from agent.run.build import open_box
from agent.run.run import Run, marks_its_end
from agent.sessions.info import RUNNING
from agent.sessions.records import SessionRecord
from agent.sessions.store import SavedSession, SessionStore
from agent.sessions.trajectory import TrajectoryWriter
from agent.text import explain
from agent.types import Attempt, CheckRun, Interrupted, RunResult, SolveReport
from model.errors import ModelError
from model.messages import Message
from model.usage import Usage
from sandboxes.base import Sandbox
from sandboxes.stop import Stop
from sandboxes.workspace.kept_tree import Origin
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import ToolContext

LOOK_S = 0.2


@dataclass
class Race:
    """Who has won. ``stop`` is set for all attempts then."""

    stop: Stop
    winner: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def wins(self, number: int) -> bool:
        """True for the first who asks; the others are stopped then."""
        with self._lock:
            if self.winner:
                return False
            self.winner = number
            self.stop.cancel(f"attempt {number} passed the check first")
            return True


@dataclass
class BestOf:
    """All attempts at a task whose first one is open and has not begun.

    ``first`` is that one's run; the others get what it has, and their own place.
    """

    first: Run
    beginning: Beginning
    store: SessionStore
    race: Race
    listen: Listener
    reports: dict[int, SolveReport] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)
    notes: str = ""

    def go(
        self, workspace: Workspace, sandbox: Sandbox, trajectory: TrajectoryWriter
    ) -> SolveReport:
        """Run all attempts in the first one's place and new ones; the report is the chosen one's.

        Raises what ended the first attempt if none came to an end of its own.
        """
        before = self.first.check("before", sandbox, trajectory)
        with ExitStack() as stack:
            trunk = self._trunk(sandbox)
            stack.callback(trunk.close)
            # Copied before the first attempt adds to its record.
            places = [self._copy(number) for number in range(2, self.first.settings.n + 1)]
            origin = Origin(self.first.saved.files, workspace.baseline, workspace.head)
            run = self._run(1, self.first.saved, before)
            works: list[Callable[[], SolveReport]] = [
                partial(self._go, 1, run, workspace, sandbox, trajectory, trunk)
            ]
            for number, saved in enumerate(places, start=2):
                run = self._run(number, saved, before)
                works.append(partial(self._elsewhere, number, run, origin, trunk))
            self._together(works)
        return self._chosen([self.first.saved, *places])

    def _trunk(self, sandbox: Sandbox) -> Trunk:
        """The first prompt, run up to where the model's answer begins, or as far as it goes."""
        engine = self.first.model.engine
        registry = Registry(ToolContext(sandbox), self.first.control.toolbox.tools(self.listen))
        conversation = self.first.conversation(engine.session(), registry, self.race.stop)
        task, settings = self.first.task, self.first.settings
        self.notes = overview(task.repo, sandbox, settings, self.first.model, self.race.stop)
        first = self._messages(sandbox)
        ids = conversation.encode(first)
        trunk = Trunk(ids, {})
        trunk.add(conversation.session)
        opening = self.beginning.enter(conversation, first, trunk.add)
        end = self.first.model.chat.turn_cut(ids)
        try:
            if opening is not None and conversation.hear(ids[conversation.tokens : end]):
                trunk.add(conversation.session)
        except ModelError:
            pass  # the attempts will each find out, and say so
        conversation.session.close()
        return trunk

    def _copy(self, number: int) -> SavedSession:
        """A folder for another attempt, with the first one's files and record so far."""
        saved, settings = self.first.saved, self.first.settings
        own = {"attempt": number, "seed": settings.seed + number - 1}
        copy = self.store.copy(saved, parent=saved.id, status=RUNNING, **own)
        with copy.writer() as trajectory:
            trajectory.write(SessionRecord(copy.info))
        return copy

    def _run(self, number: int, saved: SavedSession, before: CheckRun | None) -> Run:
        return dataclasses.replace(
            self.first,
            saved=saved,
            listen=lambda event: self.listen(FromAttempt(number, event)),
            stop=self.race.stop,
            # Words of the user are for one conversation.
            control=dataclasses.replace(self.first.control, words=lambda: None),
            check_before=before,
            checks_first=False,
            wins=lambda: self.race.wins(number),
        )

    def _go(
        self,
        number: int,
        run: Run,
        workspace: Workspace,
        sandbox: Sandbox,
        trajectory: TrajectoryWriter,
        trunk: Trunk,
    ) -> SolveReport:
        """One attempt in its open place."""
        messages = self._messages(sandbox)

        def work(loop: Loop) -> RunResult:
            ids = loop.conversation.encode(messages)
            seed = run.settings.seed + number - 1
            loop.conversation.adopt(trunk.branch(ids, seed=seed, first=number == 1))
            loop.before = Usage()
            rest = ids[loop.conversation.tokens :]
            return loop.run(messages, user_turn=True, opening=Opening(rest, ids))

        return run.go(workspace, sandbox, run.model.engine.session(), trajectory, work)

    def _elsewhere(self, number: int, run: Run, origin: Origin, trunk: Trunk) -> SolveReport:
        """One attempt in a copy of the first one's files as they were at the start."""
        with ExitStack() as stack:
            saved = stack.enter_context(run.saved.claim())
            stack.enter_context(marks_its_end(saved))
            trajectory = stack.enter_context(saved.writer())
            name, settings = run.model.engine.name, run.settings
            run.listen(RunStarted(saved.id, name, settings.sandbox, number, settings.n))
            if self.race.stop.is_set():
                return run.end(trajectory, RunResult(Interrupted("", self.race.stop.reason)), None)
            kept = dataclasses.replace(origin, record=saved.files)
            workspace = Workspace.reopen(
                run.task.repo, kept, kept.baseline, ignored=settings.ignored_files
            )
            stack.callback(workspace.close)
            sandbox = stack.enter_context(open_box(settings, workspace, saved.id))
            return self._go(number, run, workspace, sandbox, trajectory, trunk)

    def _messages(self, sandbox: Sandbox) -> Sequence[Message]:
        task, network = self.first.task, self.first.settings.online
        return first_messages(task, root=place_of(sandbox), network=network, notes=self.notes)

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
        """The winner's report, else the best one, with a line on every attempt."""
        attempts = tuple(
            self._attempt(number, saved) for number, saved in enumerate(places, start=1)
        )
        ended = {a.number: a for a in attempts if a.number in self.reports}
        if not ended:
            raise self.errors[min(self.errors)]
        best = self.race.winner
        if not best:
            if stopped := [n for n, a in ended.items() if a.status == "interrupted"]:
                ended = {number: ended[number] for number in stopped}
            best = max(ended, key=lambda n: (_rank(self.reports[n]), ended[n].logprob, -n))
        return dataclasses.replace(self.reports[best], attempts=attempts)

    def _attempt(self, number: int, saved: SavedSession) -> Attempt:
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
    """How far an attempt came: a submitted patch, any patch, an end without one, a failure."""
    status, _ = reporting.status_of(report.result, report.check)
    if status == "failed":
        return 0
    if not report.patch:
        return 1
    return 3 if status in ("submitted", "check_failed") else 2


def one_at_a_time(listen: Listener) -> Listener:
    """``listen`` for several threads: it hears one event after the other."""
    lock = threading.Lock()

    def heard(event: Event) -> None:
        with lock:
            listen(event)

    return heard
