"""Opening what a session that is held open needs: a new one, or one that was saved."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from agent.loading import LoadedModel
from agent.run.build import open_box
from agent.run.live_record import IDLE, forget_if_unused, register
from agent.run.resume import Resumption
from agent.run.surroundings import Surroundings
from agent.sessions.history import History, history_of, records_of
from agent.sessions.info import RUNNING
from agent.sessions.model_states import foreign
from agent.sessions.records import Record
from agent.sessions.store import SavedSession, SessionStore
from agent.settings.table import Settings
from model.session import Session
from sandboxes.base import Sandbox
from sandboxes.workspace.kept_tree import Origin
from sandboxes.workspace.workspace import Workspace


@dataclass(frozen=True)
class Opened:
    """All of one session; ``stack`` takes it down. ``saved`` is claimed.

    ``abandons`` says that the record holds more than ``history``: a step that was under way.
    """

    saved: SavedSession
    workspace: Workspace
    sandbox: Sandbox
    session: Session
    stack: ExitStack
    history: History = field(default_factory=History)
    records: Sequence[Record] = ()
    abandons: bool = False


def opened_new(
    repo: Path, settings: Settings, model: LoadedModel, *, store: SessionStore, name: str
) -> Opened:
    """See ``LiveSession.begin``."""
    with ExitStack() as stack:
        workspace = Workspace.create(repo, ignored=settings.ignored_files)
        stack.callback(workspace.close)
        sandbox = stack.enter_context(open_box(settings, workspace, name))
        saved = register(store, name, repo, settings, model, workspace, check=settings.check)
        stack.callback(forget_if_unused, store, saved.path)
        saved = stack.enter_context(saved.claim())
        workspace.keep_record(saved.files)
        saved = saved.update(status=IDLE, root=sandbox.root)
        session = model.engine.session(seed=settings.seed)
        return Opened(saved, workspace, sandbox, session, stack.pop_all())


def opened_saved(
    saved: SavedSession, settings: Settings, model: LoadedModel, around: Surroundings
) -> Opened:
    """See ``LiveSession.open``."""
    with ExitStack() as stack:
        saved = stack.enter_context(saved.claim())
        parts = Resumption(saved, None, settings, model, around.listen, around.stop, around.control)
        records = records_of(saved)
        whole = history_of(records)
        history, newest = parts.without_half_a_step(records, whole)
        if newest is not None:
            stack.callback(newest.close)
        origin = Origin(saved.files, saved.info.baseline, saved.info.head)
        tree = history.tree or saved.info.first_tree
        workspace = Workspace.reopen(saved.info.repo, origin, tree, ignored=settings.ignored_files)
        stack.callback(workspace.close)
        sandbox = stack.enter_context(open_box(settings, workspace, saved.id))
        if "tokenizer" in foreign(saved, history, model):
            # Its ids mean nothing here; the first turn encodes the conversation anew.
            session = model.engine.session(seed=saved.info.seed)
        else:
            session = parts.plan(history, None, sandbox, None, newest).session
        abandons = history.loose or len(history.steps) < len(whole.steps)
        status = "interrupted" if saved.status == RUNNING else saved.status
        saved = saved.update(status=status, root=sandbox.root)
        return Opened(
            saved, workspace, sandbox, session, stack.pop_all(), history, records, abandons
        )
