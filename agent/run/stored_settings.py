"""Read the settings of a saved session, without loading torch: a bad flag is told at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import StoreError
from agent.sessions.store import SavedSession
from agent.settings.load import check_settings
from agent.settings.table import Settings


def stored_settings(saved: SavedSession, flags: Mapping[str, Any]) -> Settings:
    """Return the settings the session ran with last, with the flags that were given over them.

    Raises ``StoreError`` if the session does not say, ``ConfigError`` for a flag that cannot be.
    """
    if not saved.info.complete:
        raise StoreError(
            f"session {saved.id} is damaged or of an older version; start anew with agent solve"
        )
    stored = dict(saved.info.settings)
    given = {key: value for key, value in flags.items() if value is not None}
    layers = [("the command line", given), (f"session {saved.id}", stored)]
    return check_settings({**stored, "n": 1, **given}, layers)
