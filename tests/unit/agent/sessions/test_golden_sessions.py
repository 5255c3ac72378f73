"""Sessions that version 0.1.0 saved are read as it read them, and written as it wrote them.

``tests/golden/sessions/NAME/`` has what that version wrote (``session.json``, ``trajectory.jsonl``)
and made of it: ``history.json`` is its ``history_of``, ``show.txt`` its ``agent sessions show``.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.cli import app
from agent.sessions.history import History, history_of
from agent.sessions.records import record_from_json, record_to_json
from agent.sessions.store import SessionStore
from agent.sessions.trajectory import TrajectoryWriter, read_lines, read_records

GOLDEN = Path(__file__).parents[3] / "golden" / "sessions"
NAMES = ("compacted", "pulled", "taken_back", "words")


@pytest.fixture(params=NAMES)
def folder(request: pytest.FixtureRequest) -> Path:
    return GOLDEN / str(request.param)


def as_json(history: History) -> dict[str, Any]:
    def as_then(data: dict[str, Any]) -> dict[str, Any]:
        """A message without the fields that came later, where they say nothing new."""
        later: dict[str, Any] = {"author": "user", "notes": [], "pictures": [], "closed": ""}
        later |= {key: [] for key in ("forced", "masked_logprobs", "spans")}
        return {k: value for k, value in data.items() if k not in later or later[k] != value}

    text = json.dumps(dataclasses.asdict(history))
    plain: dict[str, Any] = known_then(json.loads(text, object_hook=as_then))
    return plain


LATER_COUNTERS = ("abandoned_tokens", "mtp_drafted_tokens", "mtp_accepted_tokens", "forced_tokens")


def known_then(data: Any) -> Any:
    """``data`` without counters that are zero and that version 0.1.0 did not have."""
    if isinstance(data, dict):
        return {k: known_then(v) for k, v in data.items() if k not in LATER_COUNTERS or v}
    return [known_then(item) for item in data] if isinstance(data, list) else data


def test_a_trajectory_adds_up_to_the_same_history(folder: Path) -> None:
    history = history_of(list(read_records(folder / "trajectory.jsonl")))
    then = json.loads((folder / "history.json").read_bytes())
    now = as_json(history)
    assert {key: now[key] for key in then} == then


def test_each_record_is_written_as_it_was(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "trajectory.jsonl"
    with TrajectoryWriter(path) as writer:
        for record in read_records(folder / "trajectory.jsonl"):
            writer.write(record)
    assert known_then(list(read_lines(path))) == list(read_lines(folder / "trajectory.jsonl"))
    for line in read_lines(folder / "trajectory.jsonl"):
        again = known_then(record_to_json(record_from_json(line)))
        assert list(again) == list(line)


def test_session_json_is_complete_and_written_as_it_was(folder: Path) -> None:
    saved = SessionStore(GOLDEN).find(folder.name)
    assert saved.info.complete
    assert saved.info.stored == json.loads((folder / "session.json").read_bytes())
    later = saved.info.changed(status="killed", steps=9)
    assert {**saved.info.stored, "status": "killed", "steps": 9} == later.stored


def test_it_is_shown_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shutil.copytree(GOLDEN, tmp_path / "tenuto" / "sessions")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert app.call(["sessions", "show", folder.name]) == 0
    assert capsys.readouterr().out == (folder / "show.txt").read_text()
