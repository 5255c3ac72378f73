"""The open session: a saved session that this process holds, with its sandbox and model state.

This is the only place that opens workspace, sandbox and record, and wires the rest (``Parts``).
``solve``, ``resume``, ``attempts`` and the editor are short callers. Each step is on disk before
the next one begins: after a kill at any moment ``OpenSession.reopen`` goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from agent.client import Client
from agent.errors import ConfigError
from agent.events import CheckDone, Notice, RunEnded, RunStarted, Working
from agent.loading import LoadedModel
from agent.run import bookkeeping
from agent.run import report as reporting
from agent.run.build import open_box, open_workspace, settle_thinking
from agent.run.cannot_run import advice, why_it_cannot_run
from agent.run.check import CheckedPatches, run_check
from agent.run.mirror import Mirror
from agent.run.parts import Parts
from agent.run.prompter import Opener, Prompter
from agent.run.recall import (
    complete_history,
    recall_turn,
    reopen_workspace,
    tell_what_changed,
)
from agent.run.standing import folder_of_check
from agent.run.user_turn import UserTurn
from agent.sessions.history import History, history_of, records_of
from agent.sessions.info import RUNNING
from agent.sessions.model_states import catch_up, nearest
from agent.sessions.records import ASKED_FOR, CheckRecord, RewindRecord, SessionRecord
from agent.sessions.store import SavedSession, SessionStore, new_session_id, now
from agent.settings.table import Settings
from agent.types import (
    CheckReport,
    CheckRun,
    Failed,
    Interrupted,
    RunResult,
    SolveReport,
    Step,
    Task,
)
from model.messages import Message
from model.session import Session, Snapshot
from model.vision.picture import Picture
from sandboxes.errors import SandboxError
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import name_some
from tools.registry import Registry

ENDED = ("submitted", "answered", "no_patch", "check_failed")
SNAPSHOTS, ASIDE_TOKENS = 8, 2048


class OpenSession:
    """One session, claimed by this process. One thread at a time uses it.

    A turn that could not go on (``Failed``) leaves it ``broken``: close and reopen it. With
    ``compacts`` the next turn begins by giving up the context for a summary. ``check_before`` is
    what the check gave before the model began; several attempts share ``checked``.
    """

    def __init__(self, parts: Parts, prompter: Prompter, stack: ExitStack, *, checks: bool) -> None:
        """Hold what ``new`` or ``reopen`` has opened; ``stack`` takes it down.

        With ``checks`` a turn runs the session's check.
        """
        self._parts = parts
        self._prompter = prompter
        self._stack = stack
        self._checks = checks
        self._snapshots: dict[int, Snapshot] = {}
        self._snapshots_of: Session | None = None
        self.broken = False
        self.compacts = False
        self.check_before: CheckRun | None = None
        self.checked = CheckedPatches(shared=False)

    @classmethod
    def new(
        cls,
        task: Task,
        settings: Settings,
        model: LoadedModel,
        client: Client,
        *,
        store: SessionStore,
        name: str | None = None,
    ) -> Self:
        """Begin a session on ``task.repo``; with an empty text nobody has spoken in it yet.

        Raises ``StoreError``, ``SandboxError``; nothing is left behind then.
        """
        settings = settle_thinking(settings, model.chat)
        with ExitStack() as stack:
            workspace = open_workspace(settings, task.repo)
            stack.callback(workspace.close)
            if workspace.left_out:
                client.listen(Notice(f"left out of the copy: {name_some(workspace.left_out)}"))
            name = name or new_session_id()
            sandbox = stack.enter_context(open_box(settings, workspace, name))
            saved = bookkeeping.register(store, name, task, settings, model, workspace)
            stack.callback(bookkeeping.forget_if_unused, store, saved.path)
            saved = stack.enter_context(saved.claim())
            stack.enter_context(bookkeeping.marks_its_end(saved))
            workspace.keep_record(saved.files)
            if not task.text:
                saved = saved.update(status=bookkeeping.IDLE, root=sandbox.root)
            parts = Parts.wire(saved, settings, model, client, sandbox, stack)
            parts.journal.trajectory.write(SessionRecord(saved.info))
            prompter = Prompter(parts, parts.beginning, check=task.check, told_check=task.check)
            prompter.is_new, prompter.writes = True, not task.text
            checks = task.checked and not client.talks
            return cls(parts, prompter, stack.pop_all(), checks=checks)

    @classmethod
    def reopen(
        cls,
        saved: SavedSession,
        settings: Settings,
        model: LoadedModel,
        client: Client,
        *,
        goes_on: bool = False,
        seed: int | None = None,
    ) -> Self:
        """Open a saved session: its files as its last complete step left them.

        With ``goes_on`` it is to go on without a message. ``seed`` replaces its random numbers. The
        model's state is brought back by the first turn, or by ``load``. Raises ``ConfigError`` if
        there is nothing to go on with, ``StoreError``, ``SandboxError``; nothing has changed then.
        """
        settings = settle_thinking(settings, model.chat)
        with ExitStack() as stack:
            saved = stack.enter_context(saved.claim())
            records = records_of(saved)
            history, newest = complete_history(saved, records, settings.keep_state, model)
            if goes_on and history.steps and not history.pending and saved.status in ENDED:
                raise ConfigError(
                    f"session {saved.id} has ended ({saved.status}); give a message to go on with, "
                    f"or take its patch with agent sessions patch {saved.id}"
                )
            stack.enter_context(bookkeeping.marks_its_end(saved))
            workspace = reopen_workspace(saved, history, settings)
            stack.callback(workspace.close)
            if client.files is None:
                tell_what_changed(saved, workspace, client)
            sandbox = stack.enter_context(open_box(settings, workspace, saved.id))
            parts = Parts.wire(
                saved, settings, model, client, sandbox, stack, records, history.steps
            )
            check = saved.info.check
            prompter = Prompter(
                parts,
                parts.beginning,
                history,
                loaded=False,
                newest=newest,
                seed=seed,
                check=check,
                told_check=check,
                pending=history.pending,
            )
            if settings.effort != saved.info.settings.get("effort", "auto"):
                prompter.effort = model.chat.at_effort(settings.effort).effort
            if client.talks:
                status = "interrupted" if saved.status == RUNNING else saved.status
                parts.update(status=status, root=sandbox.root)
            abandons = history.loose or len(history.steps) < len(history_of(records).steps)
            if abandons:
                abandoned = RewindRecord(len(history.steps), "not completed", now())
                parts.journal.trajectory.write(abandoned)
            session = cls(parts, prompter, stack.pop_all(), checks=not client.talks)
            session.check_before = history.check
            return session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def close(self) -> None:
        """Take everything down; what was said is saved. May be called twice."""
        self._stack.close()

    @property
    def saved(self) -> SavedSession:
        """The session on disk."""
        return self._parts.saved

    @property
    def settings(self) -> Settings:
        """The settings that the next turn runs with."""
        return self._parts.settings

    @property
    def model(self) -> LoadedModel:
        """The checkpoint that speaks."""
        return self._parts.model

    @property
    def id(self) -> str:
        """The session's id."""
        return self.saved.id

    @property
    def root(self) -> str:
        """The workspace's root as calls name it."""
        return self._parts.sandbox.root

    @property
    def registry(self) -> Registry:
        """The session's tools."""
        return self._parts.registry

    @property
    def parts(self) -> Parts:
        """Parts of the session, for callers that run several from one state."""
        return self._parts

    @property
    def prompter(self) -> Prompter:
        """Prompter that decides how the next turn begins."""
        return self._prompter

    @property
    def steps(self) -> list[Step]:
        """The live steps."""
        return self._parts.steps

    @property
    def used(self) -> int:
        """The number of tokens in the context."""
        return self._parts.conversation.tokens

    def turns(self) -> list[int]:
        """Return how many steps there were when each of the user's turns began."""
        return bookkeeping.turn_starts(self._parts.journal.trajectory.records)

    def changes(self) -> str:
        """Return what the session changed since it began, as a patch."""
        return self._parts.workspace.diff(self.saved.info.first_tree)

    def announce(self, attempt: int = 1, attempts: int = 1) -> None:
        """Tell the listener that the session runs; whoever hears of it may go on with it."""
        name, box = self.model.engine.name, self.settings.sandbox
        self._parts.client.listen(RunStarted(self.id, name, box, attempt, attempts))

    def load(self) -> None:
        """Bring the model's state to the end of the last step, if that was not done yet."""
        self._prompter.load()
        self._remember()

    def touch(self, paths: Sequence[str]) -> None:
        """Look at these files too, also at an editor's unsaved text: the user speaks of them."""
        if self._parts.mirror is not None:
            self._parts.mirror.touch(paths)

    def turn(
        self, text: str | None = None, pictures: Sequence[Picture] = (), *, apply: bool = False
    ) -> SolveReport:
        """Run one turn of the user's, until the model has nothing more to do.

        Without ``text`` the session goes on: with its task if the model was not told yet, else as
        if not stopped. An error on the way is an outcome. With ``apply`` a patch that ends with
        exit code 0 is put into the repository. Raises ``ConfigError``.
        """
        return self.finish(self.work(text, pictures), apply=apply)

    def work(self, text: str | None = None, pictures: Sequence[Picture] = ()) -> SolveReport:
        """Run a turn and its check, but leave its end to ``finish``."""
        if text is not None and not text.strip():
            raise ConfigError("the message is empty: say what to do")
        parts, prompter = self._parts, self._prompter
        begun = parts.conversation.session.usage
        started = begun if prompter.loaded else prompter.history.usage
        try:
            self.check_first()
            try:
                result = UserTurn(parts, prompter).run(text, pictures, compacts=self.compacts)
                self.compacts = False
            except SandboxError as error:
                failed = Failed(str(error), cause=type(error).__name__)
                result = RunResult(failed, tuple(self.steps), parts.conversation.session.usage)
            result, check = self._checked(result)
        except BaseException:
            self.broken = True
            raise
        self.broken = isinstance(result.outcome, Failed)
        if isinstance(result.outcome, Interrupted) and (why := parts.client.stop.reason):
            result = dataclasses.replace(result, outcome=Interrupted(result.outcome.patch, why))
        name, cost = self.model.engine.name, result.usage - started
        return SolveReport(self.id, result, check, name, self.settings.sandbox, cost=cost)

    def finish(self, report: SolveReport, *, apply: bool = False) -> SolveReport:
        """Apply a good patch if asked, write down how the turn ended, and tell it.

        A patch that does not fit fails the run. A full disk costs the record, not the run.
        """
        parts = self._parts
        if apply and reporting.status_of(report.result, report.check)[1] == 0:
            report = self._apply(report)
        end = bookkeeping.ending(report.result, len(self.steps), report.check)
        facts: dict[str, Any] = end.facts()
        try:
            parts.journal.trajectory.write(end)
            if self._checks:
                check = report.check
                facts["check_result"] = None if check is None else reporting.check_as_json(check)
            if parts.mirror is not None and not self.broken:
                parts.workspace.rebase(parts.mirror.base)
                facts["baseline"] = parts.mirror.base
            if not self.broken:
                self._remember()
            parts.update(**facts)
        except OSError as error:
            parts.client.listen(Notice(f"session {self.id} is saved only in part: {error}"))
        parts.client.listen(RunEnded(self.id, end.status, end.exit_status, report.check))
        parts.hooks(Stop()).end({**end.facts(), "patch": end.patch})
        return report

    def check(self, command: str | None = None) -> CheckRun:
        """Run ``command``, or the session's check, apart from the model's shell.

        A command given becomes the session's check. Raises ``ConfigError`` if there is none,
        ``SandboxError``.
        """
        command = command or self._prompter.check or self.settings.check
        if not command:
            raise ConfigError("there is no check yet: write /check COMMAND")
        if command != self.saved.info.check:
            self._prompter.check = command
            self._parts.update(check=command)
        if self._parts.mirror is not None:
            self._parts.mirror.look()
        return self._run_check("asked", command)

    def check_first(self) -> None:
        """Run the session's check before the model begins, if turns do and it did not run yet."""
        if self.check_before is None and not self.steps:
            self.check_before = self._check("before")

    def begin_from(self, opener: Opener, notes: str | None) -> None:
        """Begin the first prompt as ``opener`` does, with what is told of the repository."""
        prompter = self._prompter
        prompter.opener, prompter.notes, prompter.writes = opener, notes, False

    def set_check(self, command: str | None) -> None:
        """Replace the session's check from the next turn on; None leaves it."""
        if command is not None and command != self._prompter.check:
            self._prompter.check, self.check_before = command, None

    def aside(self, question: str) -> str:
        """Return what the model says to ``question`` on a fork; the session stays as it is.

        Raises ``ConfigError`` before the first turn, ``ModelError`` if there is no room for it.
        """
        self.load()
        if not self.steps:
            raise ConfigError("there is nothing to ask about yet")
        told = [*self._prompter.answers(), Message("user", question.strip())]
        return self._parts.conversation.aside(told, ASIDE_TOKENS)[0].strip()

    def fork(self, store: SessionStore) -> SavedSession:
        """Return a new saved session that is as this one is now. Raises ``StoreError``."""
        return store.copy(self.saved, parent=self.id)

    def rewind(self, step: int) -> tuple[int, list[str]]:
        """Go back to the end of live step ``step``: conversation, state and files together.

        Files that the user changed since then are left alone. Returns how many tokens had to be
        prefilled, and those files. Raises ``ConfigError`` for another step.
        """
        if not 0 <= step <= len(self.steps):
            raise ConfigError(f"there is no step {step}; there are {len(self.steps)}")
        self.load()
        parts = self._parts
        mirror = parts.mirror or Mirror(parts.workspace)
        mirror.look()
        records = parts.journal.trajectory.records
        back = RewindRecord(step, ASKED_FOR, now())
        target = history_of([*records, back])
        users = bookkeeping.pulled_after(records, step)
        parts.journal.trajectory.write(back)
        parts.update(status="interrupted", summary=f"rewound to step {step}")
        cost = self._restore(step, target)
        kept = mirror.take_back(target.tree or self.saved.info.first_tree, users)
        parts.workspace.rebase(mirror.base)
        parts.update(steps=step, baseline=mirror.base)
        return cost, kept

    def _checked(self, result: RunResult) -> tuple[RunResult, CheckReport | None]:
        """Run the check after the model, if it has a patch, and report both runs."""
        command = self._prompter.check
        if command is None or not self._checks:
            return result, None
        after, stop = None, self._parts.client.stop
        if result.outcome.patch and not isinstance(result.outcome, Failed | Interrupted):
            after, known = self.checked.run(result.outcome.patch, partial(self._check, "after"))
            if after is not None and known:
                self._parts.journal.trajectory.write(CheckRecord("after", reporting.shorten(after)))
                self._parts.client.listen(CheckDone("after", after))
            if stop.is_set() and (after is None or after.exit_code is None):
                # The check was not answered, so the patch did not fail it.
                result = dataclasses.replace(result, outcome=Interrupted(result.outcome.patch))
        return result, CheckReport(command, self.check_before, after)

    def _check(self, when: str) -> CheckRun | None:
        """Run the session's check if turns do and there is time; tell of one that cannot run."""
        command, client = self._prompter.check, self._parts.client
        if command is None or not self._checks or client.stop.is_set():
            return None
        try:
            # A writable container is a part of what was asked for.
            anew = when == "after" and not self.settings.writable
            return self._run_check(when, command, anew=anew)
        except SandboxError as error:
            client.listen(Notice(f"the check could not run: {error}"))
            return None

    def _run_check(self, when: str, command: str, *, anew: bool = False) -> CheckRun:
        """Run a check, record what it gave, and tell it. Raises ``SandboxError``."""
        parts = self._parts
        timeout_s, stop = parts.settings.check_timeout, parts.client.stop
        info = self.saved.info
        folder = folder_of_check(info.repo, info.folder, command)
        parts.client.listen(Working(f"running the check {command}"))
        run = run_check(
            command, parts.sandbox, timeout_s=timeout_s, stop=stop, anew=anew, folder=folder
        )
        parts.journal.trajectory.write(CheckRecord(when, reporting.shorten(run)))
        parts.client.listen(CheckDone(when, run))
        tree = parts.workspace.path / folder
        if when != "after" and (why := why_it_cannot_run(run, tree)) is not None:
            line = advice(why, parts.settings.sandbox, info.place, tree)
            parts.client.listen(Notice(line))
        return run

    def _apply(self, report: SolveReport) -> SolveReport:
        """Put the patch into the user's repository; one that does not fit fails the run."""
        try:
            self._parts.workspace.apply_to(self.saved.info.repo, report.patch)
        except SandboxError as error:
            outcome = Failed(f"not applied: {error}", report.patch)
            result = dataclasses.replace(report.result, outcome=outcome)
            return dataclasses.replace(report, result=result)
        return dataclasses.replace(report, applied=True)

    def _remember(self) -> None:
        """Keep the state as it is after the last step, so that a rewind to it prefills nothing."""
        session = self._parts.conversation.session
        if self._snapshots_of is not session:
            self._snapshots.clear()
        self._snapshots_of = session
        self._snapshots[len(self.steps)] = session.snapshot()
        for old in sorted(self._snapshots)[:-SNAPSHOTS]:
            del self._snapshots[old]

    def _restore(self, step: int, target: History) -> int:
        """Bring the model's state back to the end of ``step``; return the tokens prefilled."""
        parts = self._parts
        session, cost = parts.conversation.session, 0
        point = self._snapshots.get(step) if session is self._snapshots_of else None
        if point is not None and point.length == len(target.ids):
            session.restore(point)
        else:
            parts.conversation.take_in(target.messages)
            found = nearest(parts.model.engine, self.saved, target.ids, seed=self.saved.info.seed)
            cost = catch_up(found, target.ids, target.usage)
            session.close()
            session = found.session
            self._snapshots.clear()
        if step:
            session.save(self.saved.path)
        self._snapshots = {at: kept for at, kept in self._snapshots.items() if at <= step}
        parts.conversation = parts.speaker(session)
        parts.journal.steps[:] = target.steps
        self._prompter.unheard, self._prompter.pending = None, ()
        if target.steps:
            recall_turn(parts.conversation, target)
        return cost
