"""Going on with saved sessions: a scripted model behind the real session, store and sandboxes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from agent.client import Client
from agent.errors import ConfigError, StoreError
from agent.events import Notice, StepDone, ThinkingDelta
from agent.run.report import status_of
from agent.run.resume import resume, stored_settings
from agent.run.rewind import fork, rewind
from agent.run.solve import solve
from agent.sessions.history import history_of, live_records
from agent.sessions.model_states import nearest, points
from agent.sessions.records import records_from_json
from agent.sessions.trajectory import read_lines, read_records, session_ids
from agent.settings.table import Settings
from agent.types import Step, Task
from model.errors import StateError
from model.session import Session
from tests.support.stops import StopWhen


def local(**fields: object) -> Settings:
    """Each session reads its prompt itself, so that what was prefilled can be told exactly."""
    return Settings(sandbox="local", warm_cache_mb=0, **fields)


class Stop(BaseException):
    """Ends a process's work at once, as a kill would: nothing is written after it."""


def count(kind, events) -> int:
    return sum(isinstance(event, kind) for event in events)


class Scene:
    """One repository, one scripted model, and the sessions on it."""

    def __init__(self, repo, model, store, check) -> None:
        self.repo, self.model, self.store, self.check = repo, model, store, check
        self.notices: list[str] = []

    def task(self) -> Task:
        return Task("add subtracts", self.repo, check=self.check)

    def solve(self, **fields):
        return solve(self.task(), local(**fields), self.model, store=self.store)

    def interrupted_after(self, steps: int, settings: Settings | None = None) -> str:
        """A session whose user pressed Ctrl-C after so many steps; returns its id."""
        done: list[object] = []
        client = Client(done.append, StopWhen(lambda: count(StepDone, done) >= steps))
        report = solve(self.task(), settings or local(), self.model, client, store=self.store)
        assert status_of(report.result, report.check) == ("interrupted", 130)
        return report.session

    def resume(self, name: str, message: str | None = None, *, model=None, **fields):
        saved = self.store.find(name)
        self.notices.clear()
        keep = {key: fields.pop(key) for key in ("check", "seed", "apply") if key in fields}

        def listen(event) -> None:
            if isinstance(event, Notice):
                self.notices.append(event.text)

        settings = stored_settings(saved, fields)
        return resume(saved, message, settings, model or self.model, Client(listen), **keep)

    def said(self, name: str) -> list[tuple[int, ...]]:
        """What the model sampled in each live step."""
        return [step.token_ids for step in self.history(name).steps]

    def history(self, name: str):
        return history_of(list(read_records(self.store.find(name).trajectory)))


@pytest.fixture
def scene(buggy_repo, script, placed_model, store) -> Scene:
    return Scene(buggy_repo, placed_model(*script.repair()), store, script.CHECK)


@pytest.mark.parametrize("steps", [0, 1, 3, 4])
def test_an_interrupted_session_ends_as_if_it_had_not_been(scene, steps, leftovers) -> None:
    whole = scene.solve()
    report = scene.resume(scene.interrupted_after(steps))
    assert status_of(report.result, report.check) == ("submitted", 0)
    assert report.patch == whole.patch
    assert scene.said(report.session) == scene.said(whole.session)
    ids = session_ids(scene.store.find(report.session).trajectory)
    assert scene.history(report.session).ids == tuple(ids)
    usage = report.result.usage
    assert usage.prefilled_tokens + usage.generated_tokens == usage.context_tokens == len(ids)
    assert usage.generated_tokens == whole.result.usage.generated_tokens
    assert len(report.result.steps) == 5
    assert report.check.before == scene.history(report.session).check
    assert scene.notices == []
    assert leftovers() == []
    assert scene.store.find(report.session).info.steps == 5


def test_a_saved_state_is_loaded_once(scene, monkeypatch) -> None:
    name = scene.interrupted_after(3)
    loaded: list[Path] = []
    load = scene.model.engine.resume
    monkeypatch.setattr(
        scene.model.engine, "resume", lambda path: loaded.append(path) or load(path)
    )
    report = scene.resume(name)
    assert status_of(report.result, report.check) == ("submitted", 0)
    assert loaded.count(scene.store.find(name).path) == 1


def test_a_session_goes_on_in_docker(
    docker_engine, buggy_repo, script, placed_model, store, leftovers
) -> None:
    scene = Scene(buggy_repo, placed_model(*script.repair()), store, script.CHECK)
    name = scene.interrupted_after(3, Settings(sandbox="docker"))
    report = scene.resume(name)
    assert status_of(report.result, report.check) == ("submitted", 0)
    assert "+    return a + b" in report.patch
    assert leftovers() == []


def test_files_that_git_does_not_track_come_back(scene, git_repo, script, placed_model) -> None:
    repo = git_repo({"a.py": "x = 1\n", ".gitignore": "*.log\n"}, name="other")
    (repo / "mine.txt").write_text("untracked\n")
    turns = (
        script.turn(script.call("write_file", file_path="new/b.py", content="y = 2")),
        script.turn(script.call("run_shell_command", command="cat mine.txt new/b.py; rm a.py")),
        script.turn(script.call("submit", summary="done")),
    )
    scene = Scene(repo, placed_model(*turns), scene.store, None)
    name = scene.interrupted_after(1)
    (repo / "mine.txt").write_text("changed since\n")
    report = scene.resume(name)
    assert report.result.steps[1].observations[0].text.startswith("untracked\ny = 2")
    assert "deleted file mode 100644" in report.patch
    assert "changed since" not in report.patch
    assert len(scene.notices) == 1
    assert "mine.txt" in scene.notices[0]
    assert (repo / "mine.txt").read_text() == "changed since\n"


def test_a_moved_head_is_said_and_changes_nothing(scene, git) -> None:
    name = scene.interrupted_after(2)
    git(scene.repo, "commit", "--quiet", "--allow-empty", "-m", "more")
    report = scene.resume(name)
    assert status_of(report.result, report.check) == ("submitted", 0)
    assert "HEAD" in scene.notices[0]


def test_a_message_is_a_new_user_turn(scene, script, placed_model) -> None:
    more = script.turn(script.call("submit", summary="still fine"))
    scene.model = placed_model(*script.repair(), more)
    name = scene.solve().session
    with pytest.raises(ConfigError, match="has ended"):
        scene.resume(name)
    report = scene.resume(name, "  look again ")
    assert status_of(report.result, report.check) == ("submitted", 0)
    prompts = [r for r in read_lines(scene.store.find(name).trajectory) if r["type"] == "prompt"]
    assert prompts[-1]["messages"] == [
        {"role": "tool", "content": "Submitted."},
        {"role": "user", "content": "look again"},
    ]
    usage = report.result.usage
    assert usage.prefilled_tokens + usage.generated_tokens == usage.context_tokens
    assert report.result.usage.context_tokens == len(scene.history(name).ids)


def test_a_limited_session_gets_a_new_allowance(scene) -> None:
    report = scene.solve(max_steps=2)
    assert status_of(report.result, report.check)[0] == "limit_steps"
    report = scene.resume(report.session)
    assert status_of(report.result, report.check)[0] == "limit_steps"
    assert len(report.result.steps) == 4
    report = scene.resume(report.session, max_steps=9)
    assert status_of(report.result, report.check) == ("submitted", 0)


def test_a_stopped_turn_goes_on_where_it_was(scene) -> None:
    whole = scene.solve()
    seen: list[object] = []

    report = solve(
        scene.task(),
        local(),
        scene.model,
        store=scene.store,
        client=Client(seen.append, StopWhen(lambda: count(ThinkingDelta, seen) >= 3)),
    )
    assert report.result.steps[-1].ended == "interrupted"
    again = scene.resume(report.session)
    assert again.patch == whole.patch
    turns = scene.said(again.session)
    assert [*turns[:1][0], *turns[1]] == [*scene.said(whole.session)[0]]
    assert again.result.usage.thinking_tokens == whole.result.usage.thinking_tokens
    kept = [scene.history(r.session).messages[2::2] for r in (again, whole)]
    assert kept[0] == kept[1]


def test_a_step_whose_state_was_not_saved_is_done_again(scene, store, monkeypatch) -> None:
    """The record of step 3 is on disk and its state is not: what a kill in between leaves."""
    whole = scene.solve()
    name = scene.interrupted_after(3)
    saved = store.find(name)
    keep = saved.path.with_name("keep")
    shutil.copytree(saved.path, keep)
    records = list(read_lines(saved.trajectory))
    assert scene.model.engine.resume(saved.path).ids == history_of(records_from_json(records)).ids
    rewind(saved, 2, scene.model)
    (saved.path / "trajectory.jsonl").write_bytes((keep / "trajectory.jsonl").read_bytes())
    store.find(name).update(status="killed")
    shutil.rmtree(keep)
    report = scene.resume(name)
    assert report.patch == whole.patch
    assert [r["to"] for r in read_lines(saved.trajectory) if r["type"] == "rewind"] == [2]
    assert scene.said(name) == scene.said(whole.session)


@pytest.mark.parametrize("fault", ["corrupt", "missing"])
def test_a_bad_state_is_rebuilt_from_the_tokens(scene, fault) -> None:
    whole = scene.solve()
    name = scene.interrupted_after(3)
    saved = scene.store.find(name)
    if fault == "missing":
        (saved.path / "session_state.json").unlink()
    else:
        for path in (saved.path / "state").iterdir():
            path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    report = scene.resume(name)
    assert report.patch == whole.patch
    assert scene.said(name) == scene.said(whole.session)
    assert "prefilled again" in scene.notices[0]
    assert len(scene.notices) == 1
    usage = report.result.usage
    assert usage.prefilled_tokens + usage.generated_tokens > usage.context_tokens


def test_other_weights_never_go_on_with_a_foreign_state(scene, script, placed_model) -> None:
    name = scene.interrupted_after(3)
    other = placed_model(script.turn(script.call("submit", summary="other")))
    assert other.engine.fingerprint != scene.model.engine.fingerprint
    report = scene.resume(name, model=other)
    assert "weights" in scene.notices[0]
    assert status_of(report.result, report.check) == ("submitted", 0)
    saved = scene.store.find(name)
    assert saved.info.fingerprint == other.engine.fingerprint
    assert other.engine.resume(saved.path).ids == scene.history(name).ids


def test_another_version_is_said_and_rebuilt(scene) -> None:
    name = scene.interrupted_after(3)
    scene.store.find(name).update(version="0.0.0.other")
    report = scene.resume(name)
    assert "version" in scene.notices[0]
    assert status_of(report.result, report.check) == ("submitted", 0)


def test_a_session_in_use_is_refused_with_the_process(scene) -> None:
    name = scene.interrupted_after(2)
    saved = scene.store.find(name)
    with saved.claim(), pytest.raises(StoreError, match=rf"{name} is in use by process \d+"):
        scene.resume(name)
    assert scene.resume(name).patch


def test_a_full_disk_ends_the_run_and_loses_that_step_only(scene, monkeypatch) -> None:
    whole = scene.solve()
    real, saves = Session.save, []

    def full(session: Session, directory: Path) -> None:
        saves.append(directory)
        if len(saves) > 3:
            raise StateError(f"cannot save the session in {directory}: No space left on device")
        real(session, directory)

    monkeypatch.setattr(Session, "save", full)
    report = scene.solve()
    assert status_of(report.result, report.check)[0] == "failed"
    assert "No space left" in report.result.outcome.reason
    monkeypatch.undo()
    again = scene.resume(report.session)
    assert again.patch == whole.patch
    assert scene.said(report.session) == scene.said(whole.session)
    usage = again.result.usage
    assert usage.prefilled_tokens + usage.generated_tokens == usage.context_tokens


def test_rewind_takes_files_tokens_and_state_together(scene) -> None:
    whole = scene.solve()
    saved = scene.store.find(whole.session)
    target = history_of(list(read_records(saved.trajectory)), 2)
    gone = len(scene.history(whole.session).ids) - len(target.ids)
    cost = rewind(saved, 2, scene.model)
    assert 0 < cost < len(target.ids)
    assert scene.model.engine.resume(saved.path).ids == target.ids
    assert scene.history(whole.session).ids == target.ids
    assert len([r for r in read_lines(saved.trajectory) if r["type"] == "step"]) == 5
    report = scene.resume(whole.session)
    assert report.patch == whole.patch
    usage = report.result.usage
    assert (usage.repeated_tokens, usage.abandoned_tokens) == (cost, gone)
    assert [step.index for step in report.result.steps] == [0, 1, 2, 3, 4]
    assert len([r for r in read_lines(saved.trajectory) if r["type"] == "step"]) == 8
    assert (
        len([r for r in live_records(read_records(saved.trajectory)) if isinstance(r, Step)]) == 5
    )


def test_rewind_to_the_start(scene) -> None:
    whole = scene.solve()
    assert rewind(scene.store.find(whole.session), 0, scene.model) == 0
    assert scene.resume(whole.session).patch == whole.patch


def test_rewind_moves_nothing_if_the_files_of_the_step_are_gone(scene) -> None:
    name = scene.interrupted_after(3)
    saved = scene.store.find(name)
    before = saved.trajectory.read_bytes(), saved.info
    objects = [
        p for p in saved.files.glob("objects/**/*") if p.is_file() and p.parent.name != "info"
    ]
    for path in objects:
        path.unlink()
    with pytest.raises(StoreError, match="stays as it is: the files of step 2"):
        rewind(saved, 2, scene.model)
    assert (saved.trajectory.read_bytes(), saved.reread().info) == before


@pytest.mark.parametrize("step", [6, -1])
def test_rewind_to_a_step_that_is_not_there(scene, step) -> None:
    name = scene.solve().session
    before = scene.store.find(name).trajectory.read_bytes()
    with pytest.raises(ConfigError, match=f"has no step {step}; --to takes 0 to 5") as caught:
        rewind(scene.store.find(name), step, scene.model)
    assert caught.value.exit_code == 2
    assert scene.store.find(name).trajectory.read_bytes() == before


def test_a_fork_leaves_its_parent_alone(scene, contents) -> None:
    name = scene.interrupted_after(3)
    parent = scene.store.find(name)
    before = contents(parent.path)
    child = fork(scene.store, parent)
    assert child.info.parent == name
    report = scene.resume(child.id)
    assert status_of(report.result, report.check) == ("submitted", 0)
    assert scene.notices == []
    after = contents(parent.path)
    assert {**after, "lock": before["lock"]} == before
    usage = report.result.usage
    assert usage.prefilled_tokens + usage.generated_tokens == usage.context_tokens
    assert scene.resume(name).patch == report.patch


def test_dropped_reasoning_equals_a_session_built_without_it(
    scene, script, placed_model, store
) -> None:
    turn = script.turn(script.call("submit", summary="again"), thinking="Hm, again.")
    scene.model = placed_model(*script.repair(), turn, turn, turn)
    name = scene.solve().session
    kept = scene.history(name)
    assert scene.resume(name, "and now?", thinking="drop").patch
    saved = store.find(name)
    records = list(read_lines(saved.trajectory))
    prompt = [record for record in records if record["type"] == "prompt"][-1]
    history = scene.history(name)
    schemas = _schemas(scene)
    said = history.messages[:-1]
    expected = scene.model.chat.begin(said, schemas, True, preserve_thinking=False)
    ids = list(history.ids)
    assert ids[: len(expected)] == expected
    assert len(ids) == len(expected) + len(history.steps[-1].token_ids)
    assert ids[: prompt["at"]] == list(kept.ids[: prompt["at"]])
    assert 0 < prompt["at"] < len(kept.ids)
    # What was before the first reasoning is not prefilled again.
    assert history.steps[-1].usage.prefilled_tokens <= len(expected) - prompt["at"] + 8
    assert scene.resume(name, "once more", thinking="preserve").patch
    more = scene.history(name)
    assert more.ids[: len(ids)] == history.ids
    rewind(store.find(name), 5, scene.model)
    assert scene.history(name).ids == kept.ids


def test_a_message_that_was_never_answered_is_asked_again(scene, script, placed_model) -> None:
    """Killed while the answer was written: the message is in the record, no step is."""
    more = script.turn(script.call("submit", summary="still fine"))
    scene.model = placed_model(*script.repair(), more)
    name = scene.solve().session
    seen: list[object] = []
    with pytest.raises(Stop):
        saved = scene.store.find(name)

        def listen(event) -> None:
            if type(event).__name__ == "ThinkingDelta":
                raise Stop

        settings = stored_settings(saved, {})
        resume(saved, "look again", settings, scene.model, Client(listen))
    assert seen == []
    scene.store.find(name).update(status="killed")
    # What was run of the message is on disk, and is not run again.
    turn = points(scene.store.find(name))[-1]
    ids = scene.model.engine.resume(turn).ids
    assert len(ids) > len(scene.history(name).ids)
    found = nearest(scene.model.engine, scene.store.find(name), ids, seed=0)
    assert (found.session.ids, found.current) == (ids, False)
    report = scene.resume(name)
    assert report.result.usage.repeated_tokens == 0
    assert status_of(report.result, report.check) == ("submitted", 0)
    assert scene.history(name).messages[-2].content == "look again"
    usage = report.result.usage
    assert usage.context_tokens == len(scene.history(name).ids)


def test_a_first_step_whose_state_was_not_saved_is_done_again(scene) -> None:
    whole = scene.solve()
    # Where the prompt names the same folder each time.
    name = scene.interrupted_after(1, Settings(sandbox="bubblewrap"))
    saved = scene.store.find(name)
    (saved.path / "session_state.json").unlink()
    saved.update(status="killed")
    first = scene.history(name)
    report = scene.resume(name)
    assert report.patch == whole.patch
    assert [r["to"] for r in read_lines(saved.trajectory) if r["type"] == "rewind"] == [0]
    assert scene.said(name) == scene.said(whole.session)
    assert scene.notices == []
    # The user's turn was kept and is not run again: only what came after it is paid twice.
    (point, *_) = sorted((saved.path / "points").iterdir())
    assert report.result.usage.repeated_tokens == len(first.ids) - int(point.name)


def test_what_a_killed_process_had_prefilled_is_counted_once(scene) -> None:
    """Killed in the first step: the prompt's state is on disk, no step is."""

    def listen(event) -> None:
        if type(event).__name__ == "ThinkingDelta":
            raise Stop

    with pytest.raises(Stop):
        boxed = Settings(sandbox="bubblewrap", warm_cache_mb=0)
        solve(scene.task(), boxed, scene.model, store=scene.store, client=Client(listen=listen))
    (saved,) = scene.store.sessions()
    (point,) = (saved.path / "points").iterdir()
    saved.update(status="killed")
    usage = scene.resume(saved.id).result.usage
    assert usage.repeated_tokens == 0
    first = scene.history(saved.id).steps[0].usage
    assert first.prefilled_tokens > int(point.name) > 256
    # The steps say the same as the session, so a state that is rebuilt counts alike.
    assert scene.history(saved.id).usage.prefilled_tokens == usage.prefilled_tokens


def test_a_session_without_its_files_is_refused(scene) -> None:
    name = scene.interrupted_after(1)
    shutil.rmtree(scene.store.find(name).files)
    with pytest.raises(StoreError, match="cannot go on"):
        scene.resume(name)


def test_a_damaged_record_is_refused(scene) -> None:
    name = scene.interrupted_after(2)
    path = scene.store.find(name).trajectory
    path.write_bytes(path.read_bytes().replace(b'"type": "step"', b'"type": "st', 1))
    with pytest.raises(StoreError, match="damaged at line"):
        scene.resume(name)


def _schemas(scene: Scene):
    from sandboxes.open import open_sandbox
    from sandboxes.workspace.workspace import Workspace
    from tools.registry import Registry
    from tools.types import ToolContext

    with open_sandbox("local", Workspace.create(scene.repo)) as sandbox:
        return json.loads(json.dumps(list(Registry(ToolContext(sandbox)).schemas())))


def test_a_running_session_is_not_forked(scene) -> None:
    """Asked in the middle of a step: the session goes on, and no copy is left."""
    refused: list[str] = []

    def listen(event) -> None:
        if isinstance(event, StepDone) and not refused:
            (saved,) = scene.store.sessions()
            with pytest.raises(StoreError, match="in use by process") as caught:
                fork(scene.store, saved)
            refused.append(str(caught.value))

    report = solve(scene.task(), local(), scene.model, Client(listen), store=scene.store)
    assert status_of(report.result, report.check) == ("submitted", 0)
    assert len(refused) == 1
    assert len(scene.store.sessions()) == 1
