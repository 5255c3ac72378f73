"""Records of an open session beside its steps: how it begins, goes on, and ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent import version
from agent.errors import AgentError, StoreError
from agent.loading import LoadedModel
from agent.run import report as reporting
from agent.run.build import run_limits, sampling_of
from agent.sessions.history import live_records
from agent.sessions.info import RUNNING
from agent.sessions.pictures import keep_pictures, pictures_by_hash
from agent.sessions.records import EndRecord, PulledRecord, Record, ResumeRecord
from agent.sessions.store import SavedSession, SessionStore, now
from agent.settings.table import Settings
from agent.types import CheckReport, RunResult, Step, Task
from model.messages import Message
from sandboxes.paths import Owner
from sandboxes.workspace.workspace import Workspace

IDLE = "idle"
"""The status of a session in which nobody has said anything yet."""


def register(
    store: SessionStore,
    name: str,
    task: Task,
    settings: Settings,
    model: LoadedModel,
    workspace: Workspace,
) -> SavedSession:
    """Make the folder of a new session. Raises ``StoreError``.

    With an empty task it is one that stays open between user turns. With several attempts in the
    settings it is the first one's.
    """
    engine = model.engine
    several = {"attempt": 1, "attempts": settings.n} if task.text and settings.n > 1 else {}
    saved = store.create(
        name,
        task=task.text,
        repo=task.repo.resolve(),
        **({"folder": task.folder} if task.folder else {}),
        check=task.check,
        model=engine.name,
        fingerprint=engine.fingerprint,
        tokenizer=model.chat.tokenizer_fingerprint,
        version=version(),
        sandbox=settings.sandbox,
        image=settings.image,
        network=settings.network,
        thinking=settings.thinking,
        seed=settings.seed,
        sampling=dataclasses.asdict(sampling_of(settings, engine.generation)),
        limits=dataclasses.asdict(run_limits(settings)),
        settings=settings.kept(),
        baseline=workspace.baseline,
        **({} if task.text else {"began": workspace.baseline}),
        head=workspace.head,
        allowed_from=0,
        **({"pictures": pictures} if (pictures := pictures_by_hash(task.pictures)) else {}),
        **several,
    )
    try:
        keep_pictures(saved.path, task.pictures)
    except OSError as error:
        raise StoreError(f"cannot save pictures in {saved.path}: {error.strerror}") from error
    return saved


def forget_if_unused(store: SessionStore, path: Path) -> None:
    """Remove a session in which nobody said anything."""
    with suppress(AgentError, OSError):
        if not store.find(path.name).info.task:
            store.remove(path.name)


def pulled_after(records: Iterable[Record], step: int) -> set[str]:
    """Return the paths that the user changed after live step ``step``."""
    seen = 0
    paths: set[str] = set()
    for record in live_records(records):
        seen += isinstance(record, Step)
        if isinstance(record, PulledRecord) and seen >= step:
            paths.update(record.paths)
    return paths


def turn_starts(records: Iterable[Record]) -> list[int]:
    """Return how many steps there were when each of the user's turns began that has steps."""
    seen, starts = 0, {0}
    for record in live_records(records):
        if isinstance(record, ResumeRecord) and record.messages:
            starts.add(seen)
        seen += isinstance(record, Step)
    return sorted(start for start in starts if start < seen)


def resumed(
    settings: Settings, model: LoadedModel, messages: Sequence[Message] | None
) -> ResumeRecord:
    """Return the record of a session that goes on; ``messages`` are what the model is told."""
    return ResumeRecord(
        time=now(),
        version=version(),
        model=model.engine.name,
        fingerprint=model.engine.fingerprint,
        thinking=settings.thinking,
        messages=None if messages is None else tuple(messages),
    )


def mark_running(
    saved: SavedSession, settings: Settings, model: LoadedModel, allowed_from: int, **fields: Any
) -> SavedSession:
    """Write down that this process runs a turn; limits count from step ``allowed_from`` on."""
    return saved.update(
        status=RUNNING,
        owner=str(Owner.of_this_process()),
        thinking=settings.thinking,
        settings=settings.kept(),
        limits=dataclasses.asdict(run_limits(settings)),
        allowed_from=allowed_from,
        model=model.engine.name,
        fingerprint=model.engine.fingerprint,
        version=version(),
        **fields,
    )


def ending(result: RunResult, steps: int, check: CheckReport | None = None) -> EndRecord:
    """Return the record of a run's end."""
    status, exit_status = reporting.status_of(result, check)
    return EndRecord(
        status,
        exit_status,
        reporting.summary_of(result),
        steps,
        result.usage,
        result.outcome.patch,
    )


@contextmanager
def marks_its_end(saved: SavedSession) -> Iterator[None]:
    """Write down that the run was cut short if the block raises before its end is."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            current = saved.reread()
            if current.status == RUNNING:
                current.update(**_cut_short(error))
        raise


def _cut_short(error: BaseException) -> dict[str, Any]:
    """Return what ``session.json`` says of a run that an exception ended."""
    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted", "exit_status": reporting.EXIT_INTERRUPTED}
    return {"status": "failed", "exit_status": reporting.EXIT_ERROR, "summary": str(error)}
