"""Steps of sessions that are compared with and without drafts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from model.sampling import SamplingParams
from model.session import Session, TokenEvent

GREEDY = SamplingParams(temperature=0.0)
WARM = SamplingParams(temperature=1.0, top_k=50, top_p=0.9, presence_penalty=0.5)


def say(session: Session, count: int, params: SamplingParams = WARM) -> list[TokenEvent]:
    return list(session.generate(params, max_tokens=count, stop_ids=frozenset()))


def detour(session: Session, kind: str, count: int) -> Session:
    """Something that must leave no trace; the session to go on with."""
    if kind == "rewind":
        point = session.snapshot()
        say(session, count)
        session.extend([5, 6])
        session.restore(point)
    elif kind == "fork":
        twin = session.fork()
        say(session, count)
        return twin
    elif kind == "fork and stay":
        say(session.fork(), count, GREEDY)
    elif kind == "save":
        with tempfile.TemporaryDirectory() as folder:
            session.save(Path(folder))
            resumed = Session.resume(session._scheduler, Path(folder))
        resumed._drafter = session._drafter.copy()
        return resumed
    elif kind == "park":
        session.park()
    return session
