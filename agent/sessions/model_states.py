"""The saved states of a session, and the nearest one to where it should be.

A state cannot be cut back, so one that is ahead is of no use. What is missing is prefilled.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent import version
from agent.errors import StoreError
from agent.sessions.history import History, cut_error, most_tokens
from agent.sessions.records import Record
from agent.sessions.store import SavedSession
from model import persist
from model.engine import Engine
from model.errors import StateError
from model.session import Session, Usage

KEPT_POINTS = 5


@dataclass(frozen=True)
class NearestState:
    """A session that holds ``session.ids``, a beginning of what was asked for.

    ``current`` says that it is the state after the last step, and ``damage`` what was wrong with
    that one, if anything.
    """

    session: Session
    current: bool
    damage: str = ""


def nearest(
    engine: Engine,
    saved: SavedSession,
    ids: Sequence[int],
    *,
    seed: int,
    foreign: bool = False,
    newest: Session | None = None,
) -> NearestState:
    """Return the longest saved state whose ids ``ids`` begin with, else an empty session.

    With ``foreign`` no saved state is used. ``newest`` is the state after the last step if it was
    loaded already; it is used or closed here.
    """
    if foreign:
        if newest is not None:
            newest.close()
        return NearestState(engine.session(seed=seed), current=False)
    damage = ""
    places = [saved.path, *reversed(points(saved))]
    best: NearestState | None = None
    for place in places:
        if place != saved.path and int(place.name) > len(ids):
            continue
        if best is not None and int(place.name) <= best.session.length:
            break
        try:
            known = newest if place == saved.path else None
            session = engine.resume(place) if known is None else known
        except StateError as error:
            damage = damage or (str(error) if place == saved.path else "")
            continue
        if session.ids == tuple(ids[: session.length]):
            if best is not None:
                best.session.close()
            best = NearestState(session, current=place == saved.path)
            if not best.current:
                break
            # Past the last step there may be the user turn at which a process was killed.
        else:
            session.close()
    if best is None:
        best = NearestState(engine.session(seed=seed), current=False)
    return NearestState(best.session, best.current, damage)


def catch_up(found: NearestState, ids: Sequence[int], spent: Usage) -> int:
    """Prefill what ``found`` lacks of ``ids``; returns how many tokens that cost.

    Its counters become ``spent`` and that cost, unless it is the current state, which knows its
    own. Raises ``StoreError`` for ids that the model does not have.
    """
    session = found.session
    if not found.current:
        session.carry(spent - session.usage)
    missing = ids[session.length :]
    try:
        session.extend(missing)
    except ValueError as error:
        raise StoreError(f"the session's record is damaged: {error}") from error
    return len(missing)


def check_records(saved: SavedSession, records: Sequence[Record]) -> None:
    """Raise ``StoreError`` if the saved state has more tokens than the records ever had.

    A state is written after its step's record, so the trajectory was cut then.
    """
    tokens, most = persist.saved_length(saved.path), most_tokens(records)
    if tokens > most:
        raise cut_error(saved, f"{most:,} of at least {tokens:,} tokens are there")


def points(saved: SavedSession) -> list[Path]:
    """Return the states kept at user turns, by length."""
    return sorted(p for p in (saved.path / "points").glob("[0-9]*") if p.name.isdecimal())


def keep_point(saved: SavedSession, session: Session) -> None:
    """Save ``session`` as it is at a user turn. Raises ``StateError``.

    Points further on are no longer on the session's way; of the others the first and the newest
    stay.
    """
    place = saved.path / "points" / f"{session.length:09}"
    session.save(place)
    old = points(saved)
    here = old.index(place)
    for gone in (*old[here + 1 :], *old[1 : max(1, here - KEPT_POINTS + 2)]):
        shutil.rmtree(gone, ignore_errors=True)


def disown(saved: SavedSession) -> None:
    """Remove all saved states: they belong to other weights, tokens, or another version."""
    (saved.path / persist.RECORD).unlink(missing_ok=True)
    shutil.rmtree(saved.path / "points", ignore_errors=True)


def foreign(saved: SavedSession, history: History, fingerprint: str, tokenizer: str) -> list[str]:
    """Return what is not as it was when the state was saved: weights, tokenizer, version."""
    now_known = {
        "weights": (saved.info.fingerprint, fingerprint),
        "tokenizer": (
            history.tokenizer or saved.info.tokenizer,
            tokenizer,
        ),
        "version": (saved.info.version, version()),
    }
    return [name for name, (then, here) in now_known.items() if then != here]


def changed_text(why: Sequence[str]) -> str:
    """Return the answer of ``foreign`` in words."""
    return f"changed since the state was saved: {', '.join(why)}"


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many ids both begin with."""
    pairs = zip(left, right, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
