"""Contexts that get full: what is kept, what is counted, and how it ends where nothing helps."""

from __future__ import annotations

import pytest

from agent.client import Client
from agent.events import Compacted, Event, Notice, StepDone
from agent.loop.compaction import PREFACE, listed, open_files
from agent.run.report import status_of
from agent.run.resume import resume, stored_settings
from agent.run.rewind import fork, rewind
from agent.run.solve import solve
from agent.sessions.history import history_of
from agent.sessions.records import records_from_json
from agent.sessions.trajectory import read_lines
from agent.settings.table import Settings
from agent.types import Step, Task
from model.chat.chat_format import ChatFormat
from model.messages import Message, ToolCall
from model.usage import Usage
from tools.types import Observation

CONTEXT = 16_000
BIG = "test -e .seen || seq 1 2200; touch .seen"
WORDS = "The cause is in calc.py: add subtracts. Nothing is changed yet, so edit it next."


@pytest.fixture
def turns(script) -> tuple[str, ...]:
    """After the second one the context is nearly full; the third answers the question too."""
    plan = '[{"content": "find the cause", "status": "in_progress"}]'
    return (
        script.turn(
            script.call("todo_write", todos=plan), script.call("read_file", file_path="calc.py")
        ),
        script.turn(script.call("run_shell_command", command=BIG)),
        script.turn(
            script.call("edit", file_path="calc.py", old_string="a - b", new_string="a + b"),
            content=WORDS,
        ),
        script.turn(script.call("submit", summary="add adds")),
    )


class Scene:
    def __init__(self, repo, model, store, script) -> None:
        self.model, self.store = model, store
        self.events: list[Event] = []
        self.task = Task("add subtracts", repo, check=script.CHECK)

    def solve(self, **fields):
        settings = Settings(**{"sandbox": "bubblewrap", **fields})
        return solve(
            self.task,
            settings,
            self.model,
            store=self.store,
            client=Client(listen=self.events.append),
        )

    def compactions(self) -> list[Compacted]:
        return [event for event in self.events if isinstance(event, Compacted)]

    def history(self, name: str):
        return history_of(records_from_json(self.records(name)))

    def records(self, name: str):
        return list(read_lines(self.store.find(name).trajectory))


@pytest.fixture
def scene(buggy_repo, placed_model, store, script, turns) -> Scene:
    made = Scene(buggy_repo, placed_model(*turns, context_length=CONTEXT), store, script)
    made.placed = lambda length: placed_model(*turns, context_length=length)
    return made


def status(report):
    return status_of(report.result, report.check)


def test_a_full_context_is_given_up_for_an_account_of_it(scene) -> None:
    report = scene.solve()
    assert status(report) == ("submitted", 0)
    (event,) = scene.compactions()
    assert event.by_model
    assert event.after < event.before / 2
    records = scene.records(report.session)
    (prompt,) = [record for record in records if "compacted" in record]
    system, user = prompt["messages"]
    assert system == records[[r["type"] for r in records].index("prompt")]["messages"][0]
    text = user["content"]
    assert text.startswith("add subtracts\n\nCheck: python3 -B test_calc.py\n\n" + PREFACE[:20])
    # The placed model answers the question with the end of its third turn.
    assert WORDS[20:] in text
    assert "[>] find the cause" in text
    assert "# calc.py as it is now\n\ndef add(a, b):\n    return a - b" in text
    assert "seq 1 2200" in text
    assert prompt["at"] == 0
    assert prompt["compacted"]["kept"] == event.kept


def test_the_counters_add_up(scene) -> None:
    report = scene.solve()
    usage = report.result.usage
    (event,) = scene.compactions()
    assert usage.repeated_tokens == 0
    old = scene.model.engine.resume(scene.store.find(event.kept).path).length
    # What was held, the question and its answer.
    assert usage.compacted_tokens > event.before > old
    # The system message is the same, so the new context starts from what is stored.
    assert usage.shared_tokens > 256
    assert usage.context_tokens == len(scene.history(report.session).ids)
    total = sum((step.usage for step in report.result.steps), start=type(usage)())
    for name in ("prefilled_tokens", "generated_tokens", "shared_tokens", "compacted_tokens"):
        assert getattr(total, name) == getattr(usage, name), name
    saved = scene.store.find(report.session)
    resumed = scene.model.engine.resume(saved.path)
    assert resumed.ids == scene.history(report.session).ids
    assert saved.info.usage.compacted_tokens == usage.compacted_tokens


def test_the_old_context_stays_a_session(scene) -> None:
    report = scene.solve()
    (event,) = scene.compactions()
    kept = scene.store.find(event.kept)
    assert kept.status == "compacted"
    assert kept.info.parent == report.session
    there = scene.model.engine.resume(kept.path).ids
    assert there == scene.history(kept.id).ids
    assert len(there) < event.before
    copy = fork(scene.store, kept)
    settings = stored_settings(copy, {"compact": False})
    scene.events.clear()
    again = resume(copy, None, settings, scene.model, client=Client(listen=scene.events.append))
    assert status(again) == ("submitted", 0)
    assert scene.compactions() == []
    assert again.result.usage.repeated_tokens == 0
    # With compaction it goes the way of the first one.
    scene.store.find(event.kept)
    on = resume(
        kept,
        None,
        stored_settings(kept, {}),
        scene.model,
        client=Client(listen=scene.events.append),
    )
    assert status(on) == ("submitted", 0)
    assert len(scene.compactions()) == 1
    assert on.patch == report.patch


def test_it_can_be_resumed_and_rewound_on_both_sides(scene) -> None:
    report = scene.solve()
    name, steps = report.session, len(report.result.steps)
    (event,) = scene.compactions()
    saved = scene.store.find(name)
    assert rewind(saved, steps - 1, scene.model) >= 0
    whole = scene.history(name)
    assert len(whole.ids) < event.after + 500
    assert whole.messages[0].role == "system"
    assert (
        resume(scene.store.find(name), None, stored_settings(saved, {}), scene.model).patch
        == report.patch
    )
    rewind(scene.store.find(name), 2, scene.model)
    old = scene.history(name)
    assert old.ids == scene.history(event.kept).ids
    assert scene.model.engine.resume(saved.path).ids == old.ids
    again = resume(scene.store.find(name), None, stored_settings(saved, {}), scene.model)
    assert again.patch == report.patch


class Killed(BaseException):
    """Ends a process's work at once, as a kill would."""


@pytest.mark.parametrize("steps", [2, 3])
def test_a_kill_after_a_compaction_changes_nothing(scene, steps) -> None:
    """Killed before the next step is there, or just after it: one old context is kept, not two."""
    whole = scene.solve()
    said = [step.token_ids for step in whole.result.steps]

    def listen(event: Event) -> None:
        scene.events.append(event)
        done = sum(isinstance(one, StepDone) for one in scene.events)
        if scene.compactions() and done >= steps:
            raise Killed

    scene.events.clear()
    with pytest.raises(Killed):
        solve(
            scene.task,
            Settings(sandbox="bubblewrap"),
            scene.model,
            store=scene.store,
            client=Client(listen=listen),
        )
    (event,) = scene.compactions()
    (killed,) = [
        saved
        for saved in scene.store.sessions()
        if saved.id not in (whole.session, event.kept) and saved.info.parent is None
    ]
    scene.events.clear()
    again = resume(
        killed,
        None,
        stored_settings(killed, {}),
        scene.model,
        client=Client(listen=scene.events.append),
    )
    assert status(again) == ("submitted", 0)
    assert again.patch == whole.patch
    assert [step.token_ids for step in again.result.steps] == said
    assert scene.history(killed.id).ids == scene.history(whole.session).ids
    assert {event.kept for event in scene.compactions()} <= {event.kept}
    kept = [saved.id for saved in scene.store.sessions() if saved.info.parent == killed.id]
    assert kept == [event.kept]


def test_nothing_of_use_from_the_model_is_replaced_by_its_steps(scene, monkeypatch) -> None:
    real = ChatFormat.parser

    def silent(self, tools, thinking):
        parser = real(self, tools, thinking)
        if not thinking:
            monkeypatch.setattr(parser, "finish", lambda: Message("assistant"))
        return parser

    monkeypatch.setattr(ChatFormat, "parser", silent)
    report = scene.solve()
    assert status(report) == ("submitted", 0)
    (event,) = scene.compactions()
    assert not event.by_model
    (prompt,) = [r for r in scene.records(report.session) if "compacted" in r]
    text = prompt["messages"][1]["content"]
    assert "1. read_file file_path=calc.py -> def add(a, b):" in text
    assert prompt["compacted"]["summary"] == ""


def test_no_room_for_the_question_is_no_error(scene) -> None:
    """The tool's answer alone is longer than the room that is left: it is asked without it."""
    scene.model = scene.placed(13_500)
    report = scene.solve()
    (event,) = scene.compactions()
    assert event.before > 13_500
    assert event.by_model
    assert status(report) == ("submitted", 0)


def test_without_compaction_the_run_ends_at_the_limit(
    buggy_repo, placed_model, store, script, turns
) -> None:
    scene = Scene(buggy_repo, placed_model(*turns, context_length=9000), store, script)
    report = scene.solve(compact=False)
    assert status(report) == ("limit_context", 4)
    assert scene.compactions() == []


def test_a_compaction_that_frees_too_little_ends_at_the_limit(
    buggy_repo, placed_model, store, script, turns
) -> None:
    """The prompt itself is most of the context."""
    scene = Scene(buggy_repo, placed_model(*turns, context_length=5000), store, script)
    report = scene.solve()
    assert status(report) == ("limit_context", 4)
    assert scene.compactions() == []
    told = [event.text for event in scene.events if isinstance(event, Notice)]
    assert sum("free too little" in text for text in told) == 1


def test_the_tokens_given_up_count_towards_the_limit(scene) -> None:
    whole = scene.solve()
    usage = whole.result.usage
    most = usage.context_tokens + usage.compacted_tokens - 100
    report = scene.solve(max_tokens=most)
    assert status(report) == ("limit_tokens", 4)


def test_where_another_limit_ends_the_run_nothing_is_given_up(scene) -> None:
    report = scene.solve(max_steps=2)
    assert status(report) == ("limit_steps", 4)
    assert scene.compactions() == []
    usage = report.result.usage
    assert usage.compacted_tokens == 0
    assert usage.context_tokens == len(scene.history(report.session).ids)
    assert len(scene.store.sessions()) == 1


def test_the_list_of_steps_is_bounded_and_names_what_matters() -> None:
    call = ToolCall("run_shell_command", {"command": "x" * 900})
    seen = Observation("much\noutput\n[exit code 1]")
    message = Message("assistant", tool_calls=(call,))
    steps = [Step(n, message, (seen,), Usage()) for n in range(99)]
    text = listed(steps)
    assert len(text.splitlines()) == 61
    assert text.startswith("(39 earlier steps are left out)\n40. run_shell_command command=xxx")
    assert all(line.endswith("-> [exit code 1]") for line in text.splitlines()[1:])
    assert max(map(len, text.splitlines())) < 400


def test_files_that_do_not_fit_or_are_gone_are_left_out(scene) -> None:
    class Files:
        def run(self, name, arguments):
            path = arguments["file_path"]
            return Observation("x" * 50, ok=path != "gone.py")

    paths = ["a.py", "b.py", "gone.py", "a.py", "c.py"]
    steps = [
        Step(
            n,
            Message("assistant", tool_calls=(ToolCall("read_file", {"file_path": path}),)),
            (),
            Usage(),
        )
        for n, path in enumerate(paths)
    ]
    shown = [text.split()[1] for text in open_files(steps, Files(), 1000)]
    assert shown == ["b.py", "a.py", "c.py"]
    assert [text.split()[1] for text in open_files(steps, Files(), 100)] == ["c.py"]
