"""The turns of a session and its forks, as lines to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.text import fenced

if TYPE_CHECKING:
    from agent.run.open_session import OpenSession
    from agent.sessions.store import SavedSession

SHOWN_CHARACTERS = 60


def tree_lines(session: OpenSession, saved: Sequence[SavedSession]) -> list[str]:
    """Return the session's ancestors, its turns with their first step, and its forks.

    Each line ends with what ``/tree`` takes to go there.
    """
    by_id = {other.id: other for other in saved}
    lines = []
    parent = by_id.get(session.saved.info.parent or "")
    if parent is not None:
        lines.append(f"forked from {parent.id}: {_short(parent.info.task)}")
    lines.append(f"{session.id}  {_short(session.saved.info.task)}  (here)")
    for number, start in enumerate(session.turns(), 1):
        lines.append(f"  turn {number}: from step {start}   /tree {session.id}:{start}")
    lines.append(f"  now: after step {len(session.steps)}")
    for other in saved:
        if other.info.parent == session.id:
            lines.append(f"  fork {other.id}: {other.status}   /tree {other.id}")
    return lines


def tree_text(session: OpenSession, saved: Sequence[SavedSession]) -> str:
    """Return the same as Markdown."""
    return fenced("\n".join(tree_lines(session, saved)))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"
