"""Bounding how old saved sessions get, and how much room they take."""

from __future__ import annotations

import time
from calendar import timegm
from collections.abc import Sequence
from contextlib import suppress

from agent.sessions.store import SavedSession


def size_of(saved: SavedSession) -> int:
    """Return the bytes on disk of a session; what it shares with a fork counts for both."""
    total = 0
    for path in saved.path.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size if not path.is_dir() else 0
    return total


def age_of(saved: SavedSession) -> float:
    """Return the seconds since a session was last changed; those of its folder if unreadable."""
    try:
        changed = timegm(time.strptime(saved.info.updated, "%Y-%m-%dT%H:%M:%SZ"))
    except ValueError:
        changed = int(saved.path.stat().st_mtime)
    return max(0.0, time.time() - changed)


def beyond(sessions: Sequence[SavedSession], days: float, megabytes: float) -> list[SavedSession]:
    """Return the sessions older than ``days``, and the oldest of those that are too much together.

    The newest sessions that fit into ``megabytes`` stay.
    """
    gone, room = [], megabytes * 1e6
    for saved in sorted(sessions, key=age_of):
        room -= size_of(saved)
        if age_of(saved) > days * 86_400 or room < 0:
            gone.append(saved)
    return gone[::-1]


def age_text(seconds: float) -> str:
    """Return an age in one short word: ``5 min``, ``3 h``, ``12 d``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "now"


def size_text(size: int) -> str:
    """Return a size in a short word: ``12 kB``, ``3.4 MB``."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{-(-size // 1000):,} kB"
