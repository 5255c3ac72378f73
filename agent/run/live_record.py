"""The records that an open session adds to those of ``agent.sessions.trajectory``.

``pulled``  ``paths`` that the user changed and that were carried into the copy
``check``   with ``when`` "asked": the user ran the check

Its ``session.json`` has ``began``: the checkpoint of the files when it began. ``baseline`` moves:
it is what the user's own files were at the end of the last turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import version
from agent.errors import AgentError
from agent.loading import LoadedModel
from agent.run import report as reporting
from agent.run.build import run_limits, sampling_of
from agent.sessions.history import live_records
from agent.sessions.store import RUNNING, SavedSession, SessionStore, now
from agent.sessions.trajectory import TrajectoryWriter, message_to_json
from agent.settings.table import Settings
from agent.types import RunResult
from model.messages import Message
from sandboxes.paths import Owner
from sandboxes.workspace.workspace import Workspace

IDLE = "idle"
"""The status of a session in which nobody has said anything yet."""


def register(
    store: SessionStore,
    name: str,
    repo: Path,
    settings: Settings,
    model: LoadedModel,
    workspace: Workspace,
) -> SavedSession:
    """Make the session's folder. Raises ``StoreError``."""
    engine = model.engine
    return store.create(
        name,
        task="",
        repo=str(repo.resolve()),
        check=settings.check,
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
        settings=settings.model_dump(),
        baseline=workspace.baseline,
        began=workspace.baseline,
        head=workspace.head,
        allowed_from=0,
    )


def first_tree(saved: SavedSession) -> str:
    """The checkpoint of the session's first files."""
    return str(saved.data.get("began") or saved.data["baseline"])


def forget_if_unused(store: SessionStore, path: Path) -> None:
    """Remove a session in which nobody said anything."""
    with suppress(AgentError, OSError):
        if not store.find(path.name).data.get("task"):
            store.remove(path.name)


def pulled_after(records: Iterable[Mapping[str, Any]], step: int) -> set[str]:
    """The paths that the user changed after live step ``step``."""
    seen, paths = 0, set()
    for record in live_records(records):
        seen += record["type"] == "step"
        if record["type"] == "pulled" and seen >= step:
            paths.update(record["paths"])
    return paths


def turn_starts(records: Iterable[Mapping[str, Any]]) -> list[int]:
    """How many steps there were when each of the user's turns began that has steps."""
    seen, starts = 0, {0}
    for record in live_records(records):
        if record["type"] == "resume" and record.get("messages"):
            starts.add(seen)
        seen += record["type"] == "step"
    return sorted(start for start in starts if start < seen)


def write_told(
    trajectory: TrajectoryWriter,
    news: Sequence[Message],
    settings: Settings,
    model: LoadedModel,
) -> None:
    """What the model is about to hear; with none, that it will not hear what was written before."""
    trajectory.write(
        "resume",
        time=now(),
        version=version(),
        model=model.engine.name,
        fingerprint=model.engine.fingerprint,
        thinking=settings.thinking,
        messages=[message_to_json(message) for message in news],
    )


def begun(
    saved: SavedSession, settings: Settings, model: LoadedModel, steps: int, **fields: Any
) -> SavedSession:
    """``session.json`` of a session in which a turn runs after ``steps`` steps."""
    return saved.update(
        status=RUNNING,
        owner=str(Owner.of_this_process()),
        model=model.engine.name,
        fingerprint=model.engine.fingerprint,
        version=version(),
        settings=settings.model_dump(),
        allowed_from=steps,
        **fields,
    )


def ending(result: RunResult, steps: int) -> dict[str, Any]:
    """How a turn ended, as the record has it."""
    status, exit_status = reporting.status_of(result, None)
    return {
        "status": status,
        "exit_status": exit_status,
        "summary": reporting.summary_of(result),
        "steps": steps,
        "usage": result.usage.as_dict(),
    }
