"""Stored beginnings of prompts: equal to running them, shared by processes, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from agent.client import Client
from agent.events import Event, Prefilled
from agent.loading import load_model
from agent.loop.conversation import Conversation
from agent.loop.first_prompt import Beginning
from agent.run.report import status_of
from agent.run.solve import solve
from agent.sessions.history import history_of
from agent.sessions.prefix_cache import MIN_TOKENS, PrefixCache, cache_dir
from agent.sessions.records import message_from_json, records_from_json
from agent.sessions.store import SessionStore
from agent.sessions.trajectory import read_lines
from agent.settings.table import Settings
from agent.types import Task
from model.errors import StateError
from model.messages import Message
from model.session import Session
from tests.support.stops import StopWhen
from tools.registry import default_tools

NOISE = {"sandbox": "bubblewrap", "max_steps": 2, "max_turn_tokens": 12, "temperature": 1.0}
SYSTEM = Message("system", "You work on code. " * 150)


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_model(str(tiny_checkpoint))


@pytest.fixture
def cache(model, tmp_path) -> PrefixCache:
    return PrefixCache(model.engine, 100, tmp_path / "prefixes")


def begun(model, cache: PrefixCache, task: str, seed: int = 3, system: Message = SYSTEM) -> Session:
    """A session that has read the whole first prompt."""
    messages = [system, Message("user", task)]
    session = model.engine.session()
    conversation = Conversation(session, model.chat, (), model.engine.generation)
    opening = Beginning(model, cache, seed).enter(conversation, messages)
    assert opening is not None
    assert list(opening.written) == model.chat.begin(messages, (), True)
    conversation.hear(opening.ids)
    assert conversation.session.ids == tuple(opening.written)
    return conversation.session


def goes_on(model, session: Session) -> tuple[list[float], torch.Tensor]:
    """What it samples next, and the logits after that."""
    events = session.generate(model.engine.generation, max_tokens=20, stop_ids=frozenset())
    said = [event.logprob for event in events]
    session.extend([1])
    return said, session.snapshot().logits


def test_a_warm_start_goes_on_bit_for_bit_as_a_cold_one(model, cache) -> None:
    off = PrefixCache(model.engine, 0, cache.root)
    cold = begun(model, off, "another task")
    assert cache.entries() == []
    first = begun(model, cache, "a task")
    (entry,) = cache.entries()
    warm = begun(model, cache, "another task")
    assert cache.entries()[0].path == entry.path
    assert warm.usage.shared_tokens >= MIN_TOKENS
    assert (first.usage.shared_tokens, cold.usage.shared_tokens) == (0, 0)
    for session in (cold, first, warm):
        assert session.usage.repeated_tokens == 0
    assert warm.usage.prefilled_tokens == cold.usage.prefilled_tokens - warm.usage.shared_tokens
    assert warm.usage.reused_tokens == cold.usage.reused_tokens
    said, logits = goes_on(model, cold)
    said_warm, logits_warm = goes_on(model, warm)
    assert said_warm == said
    assert torch.equal(logits_warm, logits)


def test_sessions_that_begin_together_run_their_common_beginning_once(model, cache) -> None:
    together = threading.Barrier(6)

    def begin(number: int) -> Session:
        together.wait()
        return begun(model, cache, f"task {number}")

    with ThreadPoolExecutor(6) as pool:
        sessions = list(pool.map(begin, range(6)))
    shared = sorted(session.usage.shared_tokens for session in sessions)
    assert shared[0] == 0
    assert shared[1:] == [shared[-1]] * 5
    assert shared[-1] >= MIN_TOKENS


def test_a_short_beginning_is_not_stored(model, cache) -> None:
    session = begun(model, cache, "a task " * 300, system=Message("system", "Short."))
    assert session.length > MIN_TOKENS
    assert cache.entries() == []


def test_another_system_message_starts_cold(model, cache) -> None:
    begun(model, cache, "a task")
    other = begun(model, cache, "a task", system=Message("system", SYSTEM.content + "More."))
    assert other.usage.shared_tokens == 0
    assert len(cache.entries()) == 2


def test_other_weights_and_another_version_start_cold(model, cache, monkeypatch) -> None:
    begun(model, cache, "a task")
    monkeypatch.setattr("agent.sessions.prefix_cache.version", lambda: "0.0.0.other")
    assert begun(model, cache, "a task").usage.shared_tokens == 0
    monkeypatch.undo()
    assert begun(model, cache, "a task").usage.shared_tokens > 0
    fingerprint = type(model.engine).fingerprint
    monkeypatch.setattr(type(model.engine), "fingerprint", property(lambda self: "other"))
    assert begun(model, cache, "a task").usage.shared_tokens == 0
    monkeypatch.setattr(type(model.engine), "fingerprint", fingerprint)


@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing", "empty"])
def test_a_damaged_entry_is_made_again(model, cache, fault) -> None:
    begun(model, cache, "a task")
    (entry,) = cache.entries()
    files = sorted(path for path in (entry.path / "state").rglob("*") if path.is_file())
    assert files
    for path in files:
        data = path.read_bytes()
        path.chmod(0o600)
        if fault == "truncated":
            path.write_bytes(data[: len(data) // 2])
        elif fault == "flipped":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        else:
            path.unlink()
    if fault == "empty":
        (entry.path / "session_state.json").write_text("")
    again = begun(model, cache, "a task")
    assert again.usage.shared_tokens == 0
    assert begun(model, cache, "another").usage.shared_tokens > 0


def test_the_least_recently_used_go_first(model, cache, tmp_path) -> None:
    systems = [Message("system", SYSTEM.content + name) for name in "abcd"]
    for number, system in enumerate(systems[:3]):
        begun(model, cache, "a task", system=system)
        newest = cache.entries()[-1].path
        os.utime(newest, (1000 + number, 1000 + number))
    a, b, c = [entry.path for entry in cache.entries()]
    assert begun(model, cache, "a task", system=systems[0]).usage.shared_tokens > 0
    # Times in the records differ in length.
    room = sum(entry.size for entry in cache.entries()) + 1000
    small = PrefixCache(model.engine, 100, cache.root)
    small._limit = room
    begun(model, small, "a task", system=systems[3])
    left = {entry.path for entry in small.entries()}
    assert a in left
    assert b not in left
    assert c in left
    assert len(left) == 3
    small._limit = 10
    begun(model, small, "a task", system=Message("system", SYSTEM.content + "e"))
    assert {entry.path for entry in small.entries()} <= left
    assert not list(cache.root.glob(".new-*"))


def test_a_full_disk_does_not_stop_a_run(model, cache, monkeypatch) -> None:
    def full(session: Session, directory: Path) -> None:
        (directory / "state").mkdir()
        raise StateError("No space left on device")

    monkeypatch.setattr(Session, "save", full)
    begun(model, cache, "a task")
    assert list(cache.root.glob("*")) == []


def test_processes_write_and_read_at_once(tiny_checkpoint, tmp_path) -> None:
    """Several at the same entry, under a limit that also makes them evict each other's."""
    place = tmp_path / "prefixes"
    program = f"""
from pathlib import Path
from tests.integration.test_warm import SYSTEM, begun
from agent.events import Event, Prefilled
from agent.sessions.history import history_of
from agent.loading import load_model
from agent.run.report import status_of
from agent.sessions.prefix_cache import PrefixCache
from model.messages import Message
model = load_model({str(tiny_checkpoint)!r})
cache = PrefixCache(model.engine, 100, Path({str(place)!r}))
cache._limit = 3 * 200_000
for number in range(6):
    system = Message("system", SYSTEM.content + str(number % 3))
    assert begun(model, cache, "a task", system=system).usage.repeated_tokens == 0
    print(len(cache.entries()))
"""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert len(out.split()) == 6, err.decode()
    assert not list(place.glob(".new-*"))


def test_the_second_solve_on_a_repository_starts_warm(
    model, buggy_repo, store: SessionStore
) -> None:
    # That of a local sandbox, whose copy lies elsewhere each time, and of one that is shut off.
    for sandbox in ("local", "bubblewrap"):
        seen = [
            solve(Task(text, buggy_repo), Settings(**NOISE | {"sandbox": sandbox}), model)
            for text in ("add subtracts", "add is wrong")
        ]
        shared = [report.result.usage.shared_tokens for report in seen]
        assert shared[0] == 0 < MIN_TOKENS < shared[1]


def test_a_warm_solve_says_what_a_cold_one_does(model, buggy_repo, store: SessionStore) -> None:
    cold = solve(Task("add subtracts", buggy_repo), Settings(**NOISE), model, store=store)
    assert cache_dir().is_dir()
    warm = solve(Task("add is wrong", buggy_repo), Settings(**NOISE), model, store=store)
    alone = Settings(warm_cache_mb=0, **NOISE)
    off = solve(Task("add is wrong", buggy_repo), alone, model, store=store)
    first, second, third = (report.result.usage for report in (cold, warm, off))
    assert (first.shared_tokens, third.shared_tokens) == (0, 0)
    assert second.shared_tokens > MIN_TOKENS
    assert second.prefilled_tokens + second.shared_tokens == third.prefilled_tokens
    for usage in (first, second, third):
        assert usage.repeated_tokens == 0
    step = warm.result.steps[0].usage
    assert step.shared_tokens == second.shared_tokens
    said = [[step.token_ids for step in report.result.steps] for report in (warm, off)]
    assert said[0] == said[1]
    logprobs = [[step.logprobs for step in report.result.steps] for report in (warm, off)]
    assert logprobs[0] == logprobs[1]
    records = list(read_lines(store.find(warm.session).trajectory))
    prompt = next(record for record in records if record["type"] == "prompt")
    assert len(prompt["ids"]) == step.prefilled_tokens + step.shared_tokens


def test_words_in_the_first_prefill_come_after_the_task(
    buggy_repo, script, placed_model, store
) -> None:
    """Stopped between the stored beginning and the rest: the user's words go into the rest."""
    asked: list[Event] = []
    said = ["Look at calc.py."]

    def words() -> str | None:
        asked.clear()
        return said.pop() if said else None

    report = solve(
        Task("add subtracts", buggy_repo),
        Settings(sandbox="bubblewrap"),
        placed_model(*script.repair()),
        store=store,
        client=Client(
            listen=lambda e: asked.append(e) if isinstance(e, Prefilled) else None,
            stop=StopWhen(lambda: bool(asked) and bool(said)),
            words=words,
        ),
    )
    assert status_of(report.result, report.check) == ("submitted", 0)
    assert said == []
    records = list(read_lines(store.find(report.session).trajectory))
    prompt = next(record for record in records if record["type"] == "prompt")
    messages = [message_from_json(message) for message in prompt["messages"]]
    assert [message.content for message in messages[1:]] == ["add subtracts", "Look at calc.py."]
    model = placed_model(*script.repair())
    schemas = [tool.schema() for tool in default_tools()]
    assert prompt["ids"] == model.chat.begin(messages, schemas, True)
    assert report.result.usage.repeated_tokens == 0
    assert report.result.usage.context_tokens == len(history_of(records_from_json(records)).ids)
