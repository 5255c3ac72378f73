"""Builds everything a run needs, runs the loop, and takes it all down again.

This is the only place that builds: the command line and the evaluations both call ``solve``.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass

from agent import report as reporting
from agent.config import Settings
from agent.control import Control
from agent.errors import ConfigError
from agent.events import Listener, Notice, RunStarted, nobody
from agent.loading import LoadedModel, load_model
from agent.prompt import first_messages
from agent.running import (
    Question,
    Run,
    Work,
    marks_its_end,
    open_box,
    run_limits,
    sampling_of,
)
from agent.store import SavedSession, Store, new_session_id
from agent.types import SolveReport, Task
from agent.version import version
from model.sampling import SamplingParams
from sandboxes.image import ensure_base_image
from sandboxes.prune import prune
from sandboxes.workspace import Workspace

__all__ = ["LoadedModel", "load_model", "prepare", "solve", "with_image"]


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
    control: Control | None = None,
) -> SolveReport:
    """Work on ``task`` until a patch is submitted, a limit is reached, or it cannot go on.

    With ``settings.n`` above 1, attempts with consecutive seeds follow each other until one passes
    the check; if none does, the last attempt that left a patch is returned. The user's repository
    is only read unless ``apply`` asks that a patch that ends with exit code 0 be put there.
    ``control`` says who is asked before calls run; without it nobody is. Raises ``ConfigError``,
    ``StoreError``, ``SandboxError`` when a run cannot begin.
    """
    sampling = sampling_of(settings, model.engine.generation)
    if settings.n > 1 and task.check is None:
        raise ConfigError("--n above 1 needs --check: it decides which attempt wins")
    if settings.n > 1 and sampling.temperature == 0:
        raise ConfigError("--n above 1 needs a temperature above 0: greedy attempts are all equal")
    store = store or Store()
    settings = with_image(settings, listen)
    best: SolveReport | None = None
    for number in range(settings.n):
        attempt = _Attempt(
            task,
            settings,
            model,
            sampling,
            store,
            listen,
            interrupted,
            number,
            apply,
            control or Control(),
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
    control: Control

    def run(self) -> SolveReport:
        """From clone to report. Whatever happens, the sandbox and the clone are gone afterwards."""
        settings = self.settings
        with ExitStack() as stack:
            workspace = Workspace.create(self.task.repo, ignored=settings.ignored_files)
            stack.callback(workspace.close)
            if workspace.left_out:
                self.listen(Notice(f"left out of the copy: {', '.join(workspace.left_out)}"))
            name = new_session_id()
            sandbox = stack.enter_context(open_box(settings, workspace, name))
            session = self.model.engine.session(seed=settings.seed + self.number)
            stack.callback(session.close)
            saved = self._register(name, workspace)
            stack.enter_context(saved.claim())
            stack.enter_context(marks_its_end(saved))
            workspace.keep_record(saved.files)
            trajectory = stack.enter_context(saved.writer())
            trajectory.write("session", **saved.data)
            # Only now: whoever hears of the session may go on with it.
            self.listen(self._started(saved))
            run = Run(
                self.task,
                settings,
                self.model,
                self.sampling,
                saved,
                self.listen,
                self.interrupted,
                self.apply,
                self.control,
            )
            first = first_messages(self.task, root=sandbox.root, network=settings.network)
            begin: Work = lambda loop: loop.run(first, user_turn=True)  # noqa: E731
            return run.go(workspace, sandbox, session, trajectory, begin)

    def _started(self, saved: SavedSession) -> RunStarted:
        settings = self.settings
        name = self.model.engine.name
        return RunStarted(saved.id, name, settings.sandbox, self.number + 1, settings.n)

    def _register(self, name: str, workspace: Workspace) -> SavedSession:
        """Make the session's folder."""
        settings, engine = self.settings, self.model.engine
        return self.store.create(
            name,
            task=self.task.text,
            repo=str(self.task.repo.resolve()),
            check=self.task.check,
            model=engine.name,
            fingerprint=engine.fingerprint,
            tokenizer=self.model.chat.tokenizer_fingerprint,
            version=version(),
            sandbox=settings.sandbox,
            image=settings.image,
            network=settings.network,
            thinking=settings.thinking,
            seed=settings.seed + self.number,
            sampling=dataclasses.asdict(self.sampling),
            limits=dataclasses.asdict(run_limits(settings)),
            settings=settings.model_dump(),
            baseline=workspace.baseline,
            head=workspace.head,
            allowed_from=0,
        )
