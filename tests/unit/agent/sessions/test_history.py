"""Records and sessions that are not what they should be are refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.errors import StoreError
from agent.run.resume import stored_settings
from agent.sessions.history import history_of, most_tokens, records_of
from agent.sessions.model_states import points
from agent.sessions.records import (
    ASKED_FOR,
    PromptRecord,
    RewindRecord,
    SessionRecord,
    record_from_json,
)
from agent.sessions.store import SavedSession, SessionStore
from agent.settings.table import Settings
from agent.types import Step
from model.messages import Message
from model.usage import Usage


@pytest.fixture
def saved(tmp_path: Path) -> SavedSession:
    known = {"task": "t", "repo": "/r", "baseline": "b", "head": "h", "allowed_from": 0}
    saved = SessionStore(tmp_path).create(**known, seed=0, settings=Settings().model_dump())
    saved.files.mkdir()
    return saved


@pytest.mark.parametrize(
    "record",
    [
        {"type": "step"},
        {"type": "step", "index": 0, "message": "?", "usage": {"nothing": 1}},
        {"type": "rewind"},
        {"type": "check", "when": "before"},
        {"type": "session", "seed": "?"},
        {"type": "words", "messages": [{}]},
        {"type": "resume", "messages": 5},
    ],
)
def test_a_record_that_lacks_something_is_refused_in_words(record: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="trajectory is damaged"):
        record_from_json(record)


@pytest.mark.parametrize("key", ["task", "repo", "baseline", "head", "settings", "allowed_from"])
def test_a_session_that_lacks_something_is_refused_in_words(saved: SavedSession, key: str) -> None:
    assert records_of(saved) == []
    assert stored_settings(saved, {"max_steps": 3}).max_steps == 3
    damaged = saved.update(**{key: ["?"]})
    for use in (records_of, lambda session: stored_settings(session, {})):
        with pytest.raises(StoreError, match="damaged"):
            use(damaged)


def test_settings_of_another_version_are_named_as_the_sessions(saved: SavedSession) -> None:
    later = saved.update(settings={**saved.info.settings, "later": 1})
    with pytest.raises(Exception, match=f"later = 1 in session {saved.id}"):
        stored_settings(later, {})


def test_a_lost_trajectory_is_no_new_beginning(saved: SavedSession) -> None:
    with pytest.raises(StoreError, match="cannot go on"):
        records_of(saved.update(steps=2))


def test_a_trajectory_that_was_cut_is_no_new_beginning(saved: SavedSession) -> None:
    step = Step(0, Message("assistant"), (), Usage())
    with saved.writer() as trajectory:
        trajectory.write(SessionRecord(saved.info))
        for _ in range(3):
            trajectory.prompt([Message("user", "hi")], [1, 2])
            trajectory.step(step)
    ended = saved.update(steps=3)
    lines = saved.trajectory.read_bytes().splitlines(keepends=True)
    assert len(records_of(ended)) == len(lines)
    for left in range(len(lines)):
        saved.trajectory.write_bytes(b"".join(lines[:left]))
        with pytest.raises(StoreError, match=f"was cut, {max(0, left - 1) // 2} of at least 3"):
            records_of(ended)


def test_the_most_tokens_a_session_had(saved: SavedSession) -> None:
    step = Step(0, Message("assistant"), (), Usage(), (7, 8, 9))
    told = [PromptRecord((), (1, 2)), step, PromptRecord((), (3,)), step]
    assert most_tokens(told) == 9
    assert most_tokens([*told, RewindRecord(1), PromptRecord((), (4,)), step]) == 9
    assert most_tokens([*told, PromptRecord((), (4, 5), at=2), step]) == 9
    assert most_tokens([*told, RewindRecord(0), PromptRecord((), (5,) * 20)]) == 9


@pytest.mark.parametrize("why", [ASKED_FOR, "not completed"])
def test_what_was_gone_back_from_is_abandoned_and_what_is_done_again_is_not(why: str) -> None:
    first = Step(
        0, Message("assistant"), (), Usage(3, prefilled_tokens=2, generated_tokens=1), (7,)
    )
    second = Step(
        1, Message("assistant"), (), Usage(8, prefilled_tokens=4, generated_tokens=1), (8,)
    )
    told = PromptRecord((), (1, 2))
    more = PromptRecord((), (3, 4, 5, 6))
    usage = history_of([told, first, more, second, RewindRecord(1, why), more, second]).usage
    assert usage.context_tokens == 8
    abandoned, repeated = usage.abandoned_tokens, usage.repeated_tokens
    assert (abandoned, repeated) == ((5, 0) if why == ASKED_FOR else (0, 5))


def test_a_stranger_among_the_points_is_let_alone(saved: SavedSession) -> None:
    for name in ("000000005", "00x", "notes"):
        (saved.path / "points" / name).mkdir(parents=True)
    assert [path.name for path in points(saved)] == ["000000005"]
