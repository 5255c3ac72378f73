"""One run of a session in an open sandbox: the check, the loop, the check again, the end.

``agent.run.solve`` begins sessions with it and ``agent.run.resume`` goes on with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from agent.control.hooks import Hooks
from agent.events import CheckDone, CommandOutput, Listener, Notice, RunEnded
from agent.loading import LoadedModel
from agent.loop.agents_md import Memory
from agent.loop.budget import Budget
from agent.loop.compaction import Compactor, keeper
from agent.loop.conversation import Conversation
from agent.loop.first_prompt import Beginning
from agent.loop.loop import Loop
from agent.run import report as reporting
from agent.run.build import run_limits
from agent.run.check import run_check
from agent.run.frontend import Control
from agent.run.live_record import ending
from agent.sessions.info import RUNNING
from agent.sessions.model_states import keep_point
from agent.sessions.prefix_cache import PrefixCache
from agent.sessions.records import CheckRecord
from agent.sessions.store import SavedSession
from agent.sessions.trajectory import TrajectoryWriter
from agent.settings.table import Settings
from agent.types import (
    CheckReport,
    CheckRun,
    Failed,
    Interrupted,
    RunResult,
    SolveReport,
    Task,
)
from model.sampling import SamplingParams
from model.session import Session
from sandboxes.base import Sandbox
from sandboxes.errors import SandboxError
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry
from tools.types import ToolContext

Work = Callable[[Loop], RunResult]


@dataclass(frozen=True)
class Run:
    """What one run works with. ``saved`` is claimed by this process.

    ``check_before`` is what the check gave before the model began, where that is known. ``wins``
    is asked once the run has a good patch: whether this one is to be applied.
    """

    task: Task
    settings: Settings
    model: LoadedModel
    sampling: SamplingParams
    saved: SavedSession
    listen: Listener
    stop: Stop
    apply: bool
    control: Control = field(default_factory=Control)
    check_before: CheckRun | None = None
    checks_first: bool = True
    wins: Callable[[], bool] = lambda: True

    def go(
        self,
        workspace: Workspace,
        sandbox: Sandbox,
        session: Session,
        trajectory: TrajectoryWriter,
        work: Work,
    ) -> SolveReport:
        """From the first check to the report. ``work`` is given the loop and runs it.

        ``session``, or the one that took its place, is closed then.
        """
        result, check = self._work(sandbox, session, trajectory, work)
        if isinstance(result.outcome, Interrupted) and (why := self.stop.reason):
            result = dataclasses.replace(result, outcome=Interrupted(result.outcome.patch, why))
        result, applied = self._applied(workspace, result, check)
        return self.end(trajectory, result, check, applied)

    def _work(
        self,
        sandbox: Sandbox,
        session: Session,
        trajectory: TrajectoryWriter,
        work: Work,
    ) -> tuple[RunResult, CheckReport | None]:
        """The check, the loop, and the check again."""
        settings, task = self.settings, self.task
        before = self.check_before
        if before is None and self.checks_first:
            before = self.check("before", sandbox, trajectory)
        limits = run_limits(settings)
        budget = Budget(limits, self.model.engine.context_length)
        stop = self.stop.joined(after_s=limits.max_wall_time_s)

        registry = Registry(
            ToolContext(
                sandbox,
                command_timeout_s=settings.command_timeout,
                stop=stop,
                on_output=lambda text: self.listen(CommandOutput(text)),
                task=task.text,
                count_tokens=self.model.chat.count_tokens,
            ),
            self.control.toolbox.tools(self.listen, stop),
        )
        conversation = self.conversation(session, registry, stop)
        kept = settings.keep_state
        loop = Loop(
            conversation,
            registry,
            sandbox.workspace,
            budget,
            trajectory,
            stop=self.stop,
            listen=self.listen,
            save=(lambda: conversation.session.save(self.saved.path)) if kept else lambda: None,
            mark=(lambda: keep_point(self.saved, conversation.session)) if kept else None,
            overseers=(
                self._hooks(stop),
                self.control.approvals.kept_in(self.saved.path),
                Memory(sandbox, lambda: loop.steps),
            ),
            compact=self._compactor(),
        )
        try:
            result = work(loop)
            while isinstance(result.outcome, Interrupted) and (words := self.control.words()):
                result = loop.say(words)
        finally:
            conversation.session.close()
        if task.check is None or not task.checked:
            return result, None
        after = None
        if result.outcome.patch and not isinstance(result.outcome, Failed | Interrupted):
            after = self.check("after", sandbox, trajectory)
            if self.stop.is_set() and (after is None or after.exit_code is None):
                # The check was not answered, so the patch did not fail it.
                result = dataclasses.replace(result, outcome=Interrupted(result.outcome.patch))
        return result, CheckReport(task.check, before, after)

    def _compactor(self) -> Compactor | None:
        settings, saved = self.settings, self.saved
        if not settings.compact:
            return None
        warm = PrefixCache(self.model.engine, settings.warm_cache_mb)
        beginning = Beginning(self.model, warm, saved.info.seed)
        keep = (lambda: keeper(saved)) if settings.keep_state else lambda: ""
        return Compactor(saved, beginning, settings.compact_at, self.listen, keep)

    def _hooks(self, stop: Stop | None = None) -> Hooks:
        """The user's hooks, for this session."""
        return Hooks(self.control.hooks, self.task.repo, self.saved.id, self.listen, stop or Stop())

    def conversation(self, session: Session, registry: Registry, stop: Stop) -> Conversation:
        """``session`` spoken to as the settings say."""
        return Conversation(
            session,
            self.model.chat,
            registry.schemas(),
            self.sampling,
            thinking=self.settings.thinking != "off",
            listen=self.listen,
            stop=stop,
        )

    def check(self, when: str, sandbox: Sandbox, trajectory: TrajectoryWriter) -> CheckRun | None:
        """Run the task's check, if it has one and there is time, and record what it gave."""
        if self.task.check is None or not self.task.checked or self.stop.is_set():
            return None
        try:
            run = run_check(
                self.task.check,
                sandbox,
                timeout_s=self.settings.check_timeout,
                stop=self.stop,
                # A writable container is a part of what was asked for.
                anew=when == "after" and not self.settings.writable,
            )
        except SandboxError as error:
            self.listen(Notice(f"the check could not run: {error}"))
            return None
        record_check(trajectory, when, run)
        self.listen(CheckDone(when, run))
        return run

    def _applied(
        self, workspace: Workspace, result: RunResult, check: CheckReport | None
    ) -> tuple[RunResult, bool]:
        """Put a good patch into the user's tree if asked; one that does not fit fails the run."""
        if reporting.status_of(result, check)[1] != 0 or not self.wins() or not self.apply:
            return result, False
        try:
            workspace.apply_to(self.task.repo, result.outcome.patch)
        except SandboxError as error:
            failed = Failed(f"not applied: {error}", result.outcome.patch)
            return dataclasses.replace(result, outcome=failed), False
        return result, True

    def end(
        self,
        trajectory: TrajectoryWriter,
        result: RunResult,
        check: CheckReport | None,
        applied: bool = False,
    ) -> SolveReport:
        """Write down how it ended and tell it. A full disk costs the record, not the run."""
        saved = self.saved
        end = ending(result, len(result.steps), check)
        try:
            trajectory.write(end)
            saved.update(**end.facts(), check_result=check and reporting.check_as_json(check))
        except OSError as error:
            self.listen(Notice(f"session {saved.id} is saved only in part: {error}"))
        self.listen(RunEnded(saved.id, end.status, end.exit_status, check))
        self._hooks().end({**end.facts(), "patch": end.patch})
        name = self.model.engine.name
        return SolveReport(saved.id, result, check, name, self.settings.sandbox, applied)


def record_check(trajectory: TrajectoryWriter, when: str, run: CheckRun) -> None:
    """Write down what the check gave."""
    trajectory.write(CheckRecord(when, reporting.shorten(run)))


@contextmanager
def marks_its_end(saved: SavedSession) -> Iterator[None]:
    """If the block raises before the run's end is written down, ``session.json`` says so."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            current = saved.reread()
            if current.status == RUNNING:
                current.update(**_cut_short(error))
        raise


def _cut_short(error: BaseException) -> dict[str, Any]:
    """What ``session.json`` says of a run that an exception ended."""
    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted", "exit_status": reporting.EXIT_INTERRUPTED}
    return {"status": "failed", "exit_status": reporting.EXIT_ERROR, "summary": str(error)}
