"""A session that stays open: turns, the user's files, rewinding, and going on after a kill."""

from __future__ import annotations

import pytest

from agent.client import Client, OnDisk
from agent.errors import ConfigError
from agent.run.open_session import OpenSession
from agent.run.resume import resume, stored_settings
from agent.sessions.history import history_of
from agent.sessions.trajectory import read_records
from agent.settings.table import Settings
from agent.types import Answered, Interrupted, Submitted, Task


class Scene:
    """One repository and one open session on it."""

    def __init__(self, repo, model, store) -> None:
        self.repo, self.model, self.store = repo, model, store
        self.client = Client(self.hear, files=OnDisk, talks=True)
        self.events: list[object] = []
        self.settings = Settings(sandbox="local")

    def hear(self, event) -> None:
        self.events.append(event)

    def begin(self) -> OpenSession:
        task = Task("", self.repo, self.settings.check)
        return OpenSession.new(task, self.settings, self.model, self.client, store=self.store)

    def open(self, name: str) -> OpenSession:
        saved = self.store.find(name)
        live = OpenSession.reopen(saved, self.settings, self.model, self.client)
        live.load()
        return live

    def history(self, name: str):
        return history_of(list(read_records(self.store.find(name).trajectory)))


@pytest.fixture
def scene(buggy_repo, script, placed_model, store):
    answer = script.turn(content="It adds now.")
    return Scene(buggy_repo, placed_model(*script.repair(), answer, *script.repair()), store)


def test_turns_follow_each_other_and_the_users_file_changes(scene, leftovers) -> None:
    live = scene.begin()
    turn = live.turn("add subtracts")
    assert isinstance(turn.result.outcome, Submitted)
    assert (scene.repo / "calc.py").read_text() == "def add(a, b):\n    return a + b\n"
    again = live.turn("and now?")
    assert again.result.outcome == Answered(patch=again.result.outcome.patch, text="It adds now.")
    usage = live.parts.conversation.session.usage
    assert usage.prefilled_tokens + usage.generated_tokens == usage.context_tokens
    live.close()
    assert leftovers() == []
    assert scene.store.find(live.id).status == "answered"


def test_a_session_that_was_closed_goes_on_without_prefilling(scene) -> None:
    live = scene.begin()
    live.turn("add subtracts")
    used, name = live.used, live.id
    live.close()
    live = scene.open(name)
    assert live.used == used
    assert live.parts.conversation.session.usage.repeated_tokens == 0
    turn = live.turn("and now?")
    assert isinstance(turn.result.outcome, Answered)
    assert turn.cost.prefilled_tokens < 60
    live.close()


def test_agent_resume_goes_on_with_it_too(scene) -> None:
    live = scene.begin()
    live.turn("add subtracts")
    live.close()
    saved = scene.store.find(live.id)
    settings = stored_settings(saved, {})
    report = resume(saved, "and now?", settings, scene.model)
    assert report.patch == ""  # the user's files have the change already
    assert len(report.result.steps) > 5


def test_what_nobody_spoke_in_is_not_kept(scene, leftovers) -> None:
    scene.begin().close()
    assert scene.store.sessions() == []
    assert leftovers() == []


def test_a_rewind_takes_conversation_files_and_state_back(scene) -> None:
    live = scene.begin()
    live.turn("add subtracts")
    after_repair = live.used
    live.turn("and now?")
    assert live.rewind(5) == (0, [])
    assert live.used == after_repair
    assert live.rewind(2) != (None, [])
    assert "a - b" in (scene.repo / "calc.py").read_text()
    assert len(scene.history(live.id).steps) == 2
    with pytest.raises(ConfigError, match="there is no step 9"):
        live.rewind(9)
    assert live.rewind(0) == (0, [])
    turn = live.turn("add subtracts")
    assert isinstance(turn.result.outcome, Submitted)
    assert "a + b" in (scene.repo / "calc.py").read_text()
    live.close()


def test_a_rewind_leaves_what_the_user_changed(scene) -> None:
    live = scene.begin()
    live.turn("add subtracts")
    mine = "# mine\n" + (scene.repo / "calc.py").read_text()
    (scene.repo / "calc.py").write_text(mine)
    assert live.rewind(0)[1] == ["calc.py"]
    assert (scene.repo / "calc.py").read_text() == mine
    live.close()


def test_an_interrupted_turn_is_gone_on_with(scene) -> None:
    steps = []

    def stop_after_two(event) -> None:
        if type(event).__name__ == "StepDone":
            steps.append(event)
            if len(steps) == 2:
                scene.client.stop.cancel()

    scene.client.listen = stop_after_two
    live = scene.begin()
    turn = live.turn("add subtracts")
    assert isinstance(turn.result.outcome, Interrupted)
    scene.client.stop.clear()
    turn = live.turn("go on")
    assert isinstance(turn.result.outcome, Submitted)
    assert "a + b" in (scene.repo / "calc.py").read_text()
    live.close()


def test_what_the_user_wrote_meanwhile_is_seen_and_kept(scene, script, placed_model) -> None:
    old, new = "    return a - b", "    return a + b"
    scene.model = placed_model(
        script.turn(content="Hello."),
        script.turn(script.call("edit", file_path="calc.py", old_string=old, new_string=new)),
        script.turn(script.call("read_file", file_path="calc.py")),
        script.turn(content="Done."),
    )
    live = scene.begin()
    live.turn("hello")
    (scene.repo / "calc.py").write_text("# one\n# two\n# three\ndef add(a, b):\n    return a - b\n")
    (scene.repo / "new.py").write_text("x = 1\n")
    (scene.repo / "test_calc.py").unlink()
    live.turn("repair it")
    assert (scene.repo / "calc.py").read_text().startswith("# one\n")
    assert "a + b" in (scene.repo / "calc.py").read_text()
    assert not (scene.repo / "test_calc.py").exists()
    told = [m.content for m in scene.history(live.id).messages if m.role == "user"]
    assert told[1].endswith("(Changed by the user meanwhile: calc.py, new.py, test_calc.py)")
    assert "# one" in scene.history(live.id).steps[2].observations[0].text
    live.close()
