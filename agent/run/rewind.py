"""Rewinding a saved session, and forking one."""

from __future__ import annotations

from agent import version
from agent.client import Client
from agent.errors import ConfigError, StoreError
from agent.events import Notice
from agent.loading import LoadedModel
from agent.sessions.history import History, history_of, records_of
from agent.sessions.info import KILLED, RUNNING
from agent.sessions.model_states import (
    catch_up,
    changed_text,
    check_records,
    disown,
    foreign,
    nearest,
)
from agent.sessions.records import ASKED_FOR, RewindRecord
from agent.sessions.store import SavedSession, SessionStore, now
from model.errors import StateError
from sandboxes.workspace.kept_record import open_record


def rewind(saved: SavedSession, step: int, model: LoadedModel, client: Client | None = None) -> int:
    """Take ``saved`` back to the end of live step ``step``; 0 is before the first.

    What came after stays in the trajectory as abandoned. The record decides: once its line is on
    disk, conversation, files and model state are those of ``step``; a state that could not be
    saved any more is rebuilt when the session goes on. Returns how many tokens had to be prefilled
    for the state now. Raises ``ConfigError`` if there is no such step, ``StoreError`` if another
    process works on the session, or the files of ``step`` are gone: nothing has moved then.
    """
    client = client or Client()
    with saved.claim() as saved:
        records = records_of(saved)
        check_records(saved, records)
        there = len(history_of(records).steps)
        if not 0 <= step <= there:
            raise ConfigError(f"session {saved.id} has no step {step}; --to takes 0 to {there}")
        back = RewindRecord(step, ASKED_FOR, now())
        target = history_of([*records, back])
        _write_back(saved, back, target)
        why = foreign(saved, target, *model.prints)
        saved = saved.update(
            status="interrupted",
            exit_status=None,
            summary=f"rewound to step {step}",
            steps=step,
            check_result=None,
            allowed_from=min(saved.info.allowed_from, step),
        )
        return _bring_back(saved, target, model, client, why)


def _write_back(saved: SavedSession, back: RewindRecord, target: History) -> None:
    """Write the record of going back, if the files of that step are whole.

    Raises ``StoreError``; nothing has moved then.
    """
    with open_record(saved.files) as files:
        if not files.is_whole(target.tree or saved.info.baseline):
            raise StoreError(
                f"session {saved.id} stays as it is: the files of step {len(target.steps)} are not "
                f"(or not all) in {saved.files}"
            )
    try:
        with saved.writer() as trajectory:
            trajectory.write(back)
    except OSError as error:
        raise StoreError(
            f"session {saved.id} stays as it is: its record cannot be written ({error.strerror})"
        ) from error


def _bring_back(
    saved: SavedSession, target: History, model: LoadedModel, client: Client, why: list[str]
) -> int:
    """Save the model's state of ``target``, where it can be had; return the tokens prefilled.

    ``why`` says what differs from the checkpoint that the session was saved with.
    """
    if "tokenizer" in why:
        client.listen(Notice(f"{changed_text(why)}; the state is rebuilt when the session goes on"))
        return 0
    if why:
        client.listen(Notice(f"{changed_text(why)}; the state is rebuilt from the stored tokens"))
    seed = saved.info.seed
    found = nearest(model.engine, saved, target.ids, seed=seed, foreign=bool(why))
    cost = catch_up(found, target.ids, target.usage)
    if why:
        disown(saved)
    try:
        if target.steps:
            found.session.save(saved.path)
    except StateError as error:
        client.listen(Notice(f"{error}; the state is rebuilt when the session goes on"))
    found.session.close()
    if why:
        name, fingerprint = model.engine.name, model.engine.fingerprint
        saved.update(model=name, fingerprint=fingerprint, version=version())
    return cost


def fork(store: SessionStore, saved: SavedSession) -> SavedSession:
    """Copy ``saved``: conversation, state and files, as a new session. Raises ``StoreError``."""
    with saved.claim() as saved:
        records_of(saved)
        status = KILLED if saved.status == RUNNING else saved.status
        return store.copy(saved, parent=saved.id, status=status)
