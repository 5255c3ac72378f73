"""``/try``: several answers at once from one state, and one of them taken."""

from __future__ import annotations

import pytest

from agent.client import Client, OnDisk
from agent.errors import ConfigError
from agent.events import CallDone, FromAttempt
from agent.run.open_session import OpenSession
from agent.run.tries import try_turn
from agent.run.try_lines import try_lines
from agent.settings.load import load_settings
from agent.types import Task

OLD, NEW = "    return a - b", "    return a + b"


@pytest.fixture
def turns(script) -> tuple[str, ...]:
    edit = script.call("edit", file_path="calc.py", old_string=OLD, new_string=NEW)
    return (
        script.turn(content="It subtracts."),
        script.turn(edit),
        script.turn(content="Done."),
        script.turn(content="You are welcome."),
    )


def test_tries_share_the_state_and_change_nothing_until_one_is_taken(
    buggy_repo, placed_model, script, turns, store
) -> None:
    heard: list[object] = []
    client = Client(heard.append, files=OnDisk, talks=True)
    settings = load_settings({"sandbox": "local"}, buggy_repo)
    model = placed_model(*turns)
    task = Task("", buggy_repo, script.CHECK)
    with OpenSession.new(task, settings, model, client, store=store) as session:
        session.turn("look")
        used, before = session.used, (buggy_repo / "calc.py").read_text()
        (buggy_repo / "notes.txt").write_text("the user's own, after the last step\n")
        tries = try_turn(session, "repair it", 3, store)
        assert [one.number for one in tries] == [1, 2, 3]
        assert [one.error for one in tries] == ["", "", ""]
        assert {one.status for one in tries} == {"answered"}
        assert all(one.check is not None and one.check.passed for one in tries)
        (patch,) = {one.patch for one in tries}
        assert f"+{NEW}" in patch
        assert "notes.txt" not in patch
        # What each ran is the message and what its own call gave, never the context.
        assert all(0 < one.cost.prefilled_tokens < used for one in tries)
        assert session.used == used
        assert (buggy_repo / "calc.py").read_text() == before
        told = [
            e.number for e in heard if isinstance(e, FromAttempt) and isinstance(e.event, CallDone)
        ]
        assert sorted(told) == [1, 2, 3]
        lines = try_lines(tries)
        assert sum(line == "as try 1" for line in lines) == 2
        assert "answered, 1 file changed, check passes" in lines[0]
        session.parts.workspace.apply_to(buggy_repo, patch)
        chosen = tries[1].session
    assert (buggy_repo / "calc.py").read_text() == before.replace(OLD, NEW)
    with OpenSession.reopen(store.find(chosen), settings, model, client) as session:
        assert session.saved.info.parent is not None
        report = session.turn("thank you")
        assert report.result.steps[-1].message.content.strip() == "You are welcome."
    assert (buggy_repo / "calc.py").read_text() == before.replace(OLD, NEW)
    assert (buggy_repo / "notes.txt").exists()


def test_what_makes_no_sense_is_refused(buggy_repo, placed_model, turns, store) -> None:
    client = Client(files=OnDisk, talks=True)
    settings = load_settings({"sandbox": "local", "temperature": 0.0}, buggy_repo)
    task = Task("", buggy_repo)
    with OpenSession.new(task, settings, placed_model(*turns), client, store=store) as session:
        with pytest.raises(ConfigError, match="2 to 8 attempts, not 9"):
            try_turn(session, "x", 9, store)
        with pytest.raises(ConfigError, match="temperature above 0"):
            try_turn(session, "x", 2, store)
    assert store.sessions() == []
