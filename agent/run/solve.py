"""Builds everything a run needs, runs the loop, and takes it all down again.

This is the only place that builds: the command line and the evaluations both call ``solve``.
"""

from __future__ import annotations

from contextlib import ExitStack

from agent.control.toolbox import Toolbox
from agent.errors import ConfigError
from agent.events import FromAttempt, Listener, Notice, RunStarted, nobody
from agent.loading import LoadedModel
from agent.loop.first_prompt import Beginning
from agent.loop.overview import overview
from agent.loop.prompts import first_messages, place_of
from agent.run.attempts import BestOf, Race, one_at_a_time
from agent.run.build import open_box, sampling_of, with_image
from agent.run.frontend import Control
from agent.run.live_record import register
from agent.run.run import Run, marks_its_end
from agent.sessions.prefix_cache import PrefixCache
from agent.sessions.records import SessionRecord
from agent.sessions.store import SessionStore, new_session_id
from agent.settings.table import Settings
from agent.types import SolveReport, Task
from sandboxes.stop import Stop
from sandboxes.workspace.workspace import Workspace


def solve(
    task: Task,
    settings: Settings,
    model: LoadedModel,
    *,
    store: SessionStore | None = None,
    listen: Listener = nobody,
    stop: Stop | None = None,
    apply: bool = False,
    control: Control | None = None,
) -> SolveReport:
    """Work on ``task`` until a patch is submitted, a limit is reached, or it cannot go on.

    With ``settings.n`` above 1 there are that many attempts at once (``agent.run.attempts``). The
    user's repository is only read unless ``apply`` asks that a patch that ends with exit code 0 be
    put there. ``control`` says who is asked before calls run; without it nobody is. Raises
    ``ConfigError``, ``StoreError``, ``SandboxError`` when a run cannot begin.
    """
    sampling = sampling_of(settings, model.engine.generation)
    if settings.n > 1 and task.check is None:
        raise ConfigError("--n above 1 needs --check: it decides which attempt wins")
    if settings.n > 1 and sampling.temperature == 0:
        raise ConfigError("--n above 1 needs a temperature above 0: greedy attempts are all equal")
    store, stop = store or SessionStore(), stop or Stop()
    settings = with_image(settings, listen, task.repo)
    with ExitStack() as stack:
        workspace = Workspace.create(task.repo, ignored=settings.ignored_files)
        stack.callback(workspace.close)
        if workspace.left_out:
            listen(Notice(f"left out of the copy: {', '.join(workspace.left_out)}"))
        name = new_session_id()
        sandbox = stack.enter_context(open_box(settings, workspace, name))
        saved = register(
            store, name, task.repo, settings, model, workspace, task=task.text, check=task.check
        )
        stack.enter_context(saved.claim())
        stack.enter_context(marks_its_end(saved))
        workspace.keep_record(saved.files)
        trajectory = stack.enter_context(saved.writer())
        trajectory.write(SessionRecord(saved.info))
        run = Run(
            task,
            settings,
            model,
            sampling,
            saved,
            listen,
            stop,
            apply,
            control or Control(toolbox=Toolbox(profile=settings.tools)),
        )
        warm = PrefixCache(model.engine, settings.warm_cache_mb)
        beginning = Beginning(model, warm, settings.seed)
        # Only now: whoever hears of the session may go on with it.
        started = RunStarted(saved.id, model.engine.name, settings.sandbox, 1, settings.n)
        if settings.n > 1:
            listen = one_at_a_time(listen)
            listen(FromAttempt(1, started))
            best = BestOf(run, beginning, store, Race(stop.joined()), listen)
            return best.go(workspace, sandbox, trajectory)
        listen(started)
        first = first_messages(
            task,
            root=place_of(sandbox),
            network=settings.online,
            notes=overview(task.repo, sandbox, settings, model, stop),
        )
        session = model.engine.session()
        return run.go(
            workspace, sandbox, session, trajectory, lambda loop: beginning.run(loop, first)
        )
