"""Builds everything a run needs, runs the loop, and takes it all down again.

This is the only place that builds: the command line and the evaluations both call ``solve``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch

from agent import report as reporting
from agent.check import run_check
from agent.config import Settings
from agent.context import Budget, RunLimits
from agent.conversation import Conversation
from agent.errors import ConfigError
from agent.events import (
    CheckDone,
    CommandOutput,
    Listener,
    Notice,
    RunEnded,
    RunStarted,
    nobody,
)
from agent.loop import Loop
from agent.prompt import first_messages
from agent.store import SavedSession, Store, new_session_id
from agent.trajectory import TrajectoryWriter
from agent.types import (
    CheckReport,
    CheckRun,
    Failed,
    Interrupted,
    RunResult,
    SolveReport,
    Task,
)
from model import hub
from model.chat import ChatFormat
from model.engine import Engine
from model.errors import ModelError
from model.sampling import SamplingParams
from model.session import Session
from model.tokenizer import Tokenizer
from model.weights import parameter_count
from sandboxes.base import Limits, Sandbox
from sandboxes.errors import SandboxError
from sandboxes.image import ensure_base_image
from sandboxes.open import open_sandbox
from sandboxes.prune import prune
from sandboxes.workspace import Workspace
from tools.registry import Registry
from tools.types import ToolContext

Question = Callable[[], bool]
SMALL_MODEL = 50_000_000
"""Parameters below which one thread decodes fastest."""


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint ready to run: weights and the way it writes conversations."""

    engine: Engine
    chat: ChatFormat


def load_model(name: str) -> LoadedModel:
    """Load a checkpoint by directory, hub name, or ``embedded``. Raises ``CheckpointError``."""
    directory = hub.resolve(name)
    tokenizer = Tokenizer.load(directory)
    chat = ChatFormat.load(directory, tokenizer)
    engine = Engine.load(directory, name=name, vocab_limit=tokenizer.vocab_size)
    if parameter_count(engine.config) < SMALL_MODEL:
        # Waking a second thread for matrices of this size costs more than it brings.
        torch.set_num_threads(1)
    return LoadedModel(engine, chat)


def prepare(
    settings: Settings, *, store: Store | None = None, listen: Listener = nobody
) -> Settings:
    """Clear away what killed runs left, and see that the sandbox's image is there.

    Once a process is enough. Returns the settings with the image in them. Raises
    ``SandboxUnavailable`` and ``ImageMissing``.
    """
    (store or Store()).reap()
    for line in dict.fromkeys(prune()):
        listen(Notice(f"removed {line}, left by a run that was killed"))
    return with_image(settings, listen)


def with_image(settings: Settings, listen: Listener = nobody) -> Settings:
    """The settings with our own image, built if need be, where Docker is used and none is named."""
    if settings.sandbox != "docker" or settings.image is not None:
        return settings
    image = ensure_base_image(lambda line: listen(Notice(line)))
    return settings.model_copy(update={"image": image})


def solve(
    task: Task,
    settings: Settings,
    model: LoadedModel,
    *,
    store: Store | None = None,
    listen: Listener = nobody,
    interrupted: Question = lambda: False,
    apply: bool = False,
) -> SolveReport:
    """Work on ``task`` until a patch is submitted, a limit is reached, or it cannot go on.

    With ``settings.n`` above 1, attempts with consecutive seeds follow each other until one passes
    the check; if none does, the last attempt that left a patch is returned. The user's repository
    is only read unless ``apply`` asks that a patch that ends with exit code 0 be put there. Raises
    ``ConfigError``, ``StoreError``, ``SandboxError`` when a run cannot begin.
    """
    sampling = _sampling(settings, model.engine.generation)
    if settings.n > 1 and task.check is None:
        raise ConfigError("--n above 1 needs --check: it decides which attempt wins")
    if settings.n > 1 and sampling.temperature == 0:
        raise ConfigError("--n above 1 needs a temperature above 0: greedy attempts are all equal")
    store = store or Store()
    settings = with_image(settings, listen)
    best: SolveReport | None = None
    for number in range(settings.n):
        attempt = _Attempt(
            task, settings, model, sampling, store, listen, interrupted, number, apply
        )
        report = attempt.run()
        if best is None or report.patch:
            best = report
        status, exit_status = reporting.status_of(report.result, report.check)
        if exit_status == 0 or status in ("interrupted", "failed"):
            return report
    assert best is not None  # n is at least 1
    return best


@dataclass(frozen=True)
class _Attempt:
    """One session in one fresh sandbox."""

    task: Task
    settings: Settings
    model: LoadedModel
    sampling: SamplingParams
    store: Store
    listen: Listener
    interrupted: Question
    number: int
    apply: bool

    def run(self) -> SolveReport:
        """From clone to report. Whatever happens, the sandbox and the clone are gone afterwards."""
        settings = self.settings
        with ExitStack() as stack:
            workspace = Workspace.create(self.task.repo)
            stack.callback(workspace.close)
            if workspace.left_out:
                self.listen(Notice(f"left out of the copy: {', '.join(workspace.left_out)}"))
            name = new_session_id()
            sandbox = stack.enter_context(self._open(workspace, name))
            session = self.model.engine.session(seed=settings.seed + self.number)
            stack.callback(session.close)
            saved = self._register(name)
            try:
                trajectory = stack.enter_context(saved.writer())
                trajectory.write("session", **saved.data)
                self.listen(self._started(name))
                result, check = self._work(sandbox, session, trajectory)
                result, applied = self._applied(workspace, result, check)
                self._finish(session, trajectory, saved, result, check)
            except BaseException as error:
                with suppress(OSError):
                    saved.update(**_cut_short(error))
                raise
        name = self.model.engine.name
        return SolveReport(saved.id, result, check, name, settings.sandbox, applied)

    def _open(self, workspace: Workspace, name: str) -> Sandbox:
        """The sandbox that the settings ask for."""
        settings = self.settings
        limits = Limits(memory_mb=settings.memory_mb, cpus=settings.cpus, network=settings.network)
        return open_sandbox(
            settings.sandbox, workspace, image=settings.image, limits=limits, name=name
        )

    def _register(self, name: str) -> SavedSession:
        """Make the session's folder."""
        settings, engine = self.settings, self.model.engine
        return self.store.create(
            name,
            task=self.task.text,
            repo=str(self.task.repo.resolve()),
            check=self.task.check,
            model=engine.name,
            fingerprint=engine.fingerprint,
            sandbox=settings.sandbox,
            image=settings.image,
            network=settings.network,
            thinking=settings.thinking,
            seed=settings.seed + self.number,
            sampling=dataclasses.asdict(self.sampling),
            limits=dataclasses.asdict(_run_limits(settings)),
        )

    def _started(self, name: str) -> RunStarted:
        settings = self.settings
        return RunStarted(
            name, self.model.engine.name, settings.sandbox, self.number + 1, settings.n
        )

    def _work(
        self, sandbox: Sandbox, session: Session, trajectory: TrajectoryWriter
    ) -> tuple[RunResult, CheckReport | None]:
        """The check, the loop, and the check again."""
        settings, task = self.settings, self.task
        before = self._check("before", sandbox, trajectory)
        budget = Budget(_run_limits(settings), self.model.engine.context_length)

        def halt() -> bool:
            return self.interrupted() or budget.out_of_time()

        registry = Registry(
            ToolContext(
                sandbox,
                command_timeout_s=settings.command_timeout,
                should_stop=halt,
                on_output=lambda text: self.listen(CommandOutput(text)),
            )
        )
        conversation = Conversation(
            session,
            self.model.chat,
            registry.schemas(),
            self.sampling,
            thinking=settings.thinking == "preserve",
            listen=self.listen,
            halt=halt,
        )
        loop = Loop(
            conversation,
            registry,
            sandbox.workspace,
            budget,
            trajectory,
            interrupted=self.interrupted,
            listen=self.listen,
        )
        result = loop.run(first_messages(task, root=sandbox.root, network=settings.network))
        if task.check is None:
            return result, None
        after = None
        if result.outcome.patch and not isinstance(result.outcome, Failed | Interrupted):
            after = self._check("after", sandbox, trajectory)
            if self.interrupted() and (after is None or after.exit_code is None):
                # The check was not answered, so the patch did not fail it.
                result = dataclasses.replace(result, outcome=Interrupted(result.outcome.patch))
        return result, CheckReport(task.check, before, after)

    def _check(self, when: str, sandbox: Sandbox, trajectory: TrajectoryWriter) -> CheckRun | None:
        """Run the task's check, if it has one and there is time, and record what it gave."""
        if self.task.check is None or self.interrupted():
            return None
        try:
            run = run_check(
                self.task.check,
                sandbox,
                timeout_s=self.settings.check_timeout,
                should_stop=self.interrupted,
            )
        except SandboxError as error:
            self.listen(Notice(f"the check could not run: {error}"))
            return None
        trajectory.write("check", when=when, **reporting.check_run_as_json(run))
        self.listen(CheckDone(when, run))
        return run

    def _applied(
        self, workspace: Workspace, result: RunResult, check: CheckReport | None
    ) -> tuple[RunResult, bool]:
        """Put a good patch into the user's tree if asked; one that does not fit fails the run."""
        if not self.apply or reporting.status_of(result, check)[1] != 0:
            return result, False
        try:
            workspace.apply_to(self.task.repo, result.outcome.patch)
        except SandboxError as error:
            failed = Failed(f"not applied: {error}", result.outcome.patch)
            return dataclasses.replace(result, outcome=failed), False
        return result, True

    def _finish(
        self,
        session: Session,
        trajectory: TrajectoryWriter,
        saved: SavedSession,
        result: RunResult,
        check: CheckReport | None,
    ) -> None:
        """Save the model's state and how it ended. A full disk costs the record, not the run."""
        status, exit_status = reporting.status_of(result, check)
        end = {
            "status": status,
            "exit_status": exit_status,
            "summary": reporting.summary_of(result),
            "steps": len(result.steps),
            "usage": result.usage.as_dict(),
        }
        try:
            if session.length:
                session.save(saved.path)
            trajectory.write("end", **end, patch=result.outcome.patch)
            saved.update(**end, check_result=check and reporting.check_as_json(check))
        except (OSError, ModelError) as error:
            self.listen(Notice(f"session {saved.id} is saved only in part: {error}"))
        self.listen(RunEnded(saved.id, status, exit_status, check))


def _cut_short(error: BaseException) -> dict[str, Any]:
    """What ``session.json`` says of a run that an exception ended."""
    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted", "exit_status": reporting.EXIT_INTERRUPTED}
    return {"status": "failed", "exit_status": reporting.EXIT_ERROR, "summary": str(error)}


def _sampling(settings: Settings, default: SamplingParams) -> SamplingParams:
    if settings.temperature is None:
        return default
    return dataclasses.replace(default, temperature=settings.temperature)


def _run_limits(settings: Settings) -> RunLimits:
    return RunLimits(
        max_steps=settings.max_steps,
        max_tokens=settings.max_tokens,
        max_turn_tokens=settings.max_turn_tokens,
        max_wall_time_s=settings.max_wall_time,
    )
