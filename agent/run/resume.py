"""Go on with a saved session."""

from __future__ import annotations

from agent.client import Client
from agent.loading import LoadedModel
from agent.run.open_session import OpenSession
from agent.run.stored_settings import stored_settings
from agent.sessions.store import SavedSession
from agent.settings.table import Settings
from agent.types import SolveReport

__all__ = ["resume", "stored_settings"]


def resume(
    saved: SavedSession,
    message: str | None,
    settings: Settings,
    model: LoadedModel,
    client: Client | None = None,
    *,
    check: str | None = None,
    seed: int | None = None,
    apply: bool = False,
) -> SolveReport:
    """Go on with ``saved`` in a fresh sandbox whose files are those of its last complete step.

    Without ``message`` a session that was stopped goes on as if it had not been. ``check`` replaces
    its check, ``seed`` its random numbers from here on. Raises ``ConfigError`` if there is nothing
    to go on with, ``StoreError`` (in use, damaged), ``SandboxError`` when a run cannot begin.
    """
    opened = OpenSession.reopen(
        saved, settings, model, client or Client(), goes_on=message is None, seed=seed
    )
    with opened as session:
        session.set_check(check)
        session.announce()
        return session.turn(message, apply=apply)
