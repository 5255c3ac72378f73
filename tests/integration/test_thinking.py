"""Reasoning kept, dropped and switched off between user turns, on a real network.

The tiny model's words are noise, but its state is the real architecture's: what is compared is the
next token's logits, bit for bit.
"""

from __future__ import annotations

import pytest
import torch

from agent.loading import load_model
from agent.loop.conversation import Conversation
from agent.loop.first_prompt import Beginning
from agent.run.resume import resume, stored_settings
from agent.run.rewind import fork, rewind
from agent.run.solve import solve
from agent.sessions.history import history_of
from agent.sessions.prefix_cache import PrefixCache
from agent.sessions.records import message_from_json, records_from_json
from agent.sessions.trajectory import read_lines
from agent.settings.table import Settings
from agent.types import Task
from model.session import Session

FIELDS = {"sandbox": "bubblewrap", "max_steps": 1, "max_turn_tokens": 40, "temperature": 1.0}


class Scene:
    def __init__(self, repo, model, store) -> None:
        self.repo, self.model, self.store = repo, model, store

    def begin(self, **fields) -> str:
        settings = Settings(**{**FIELDS, **fields})
        return solve(Task("a task", self.repo), settings, self.model, store=self.store).session

    def say(self, name: str, message: str, **fields):
        saved = self.store.find(name)
        settings = stored_settings(saved, fields)
        return resume(saved, message, settings, self.model)

    def records(self, name: str):
        return list(read_lines(self.store.find(name).trajectory))

    def history(self, name: str):
        return history_of(records_from_json(self.records(name)))

    def session(self, name: str) -> Session:
        return self.model.engine.resume(self.store.find(name).path)

    def rebuilt(self, name: str, pieces: list[int]) -> torch.Tensor:
        """The logits after the ids of ``name`` and a 1, all read anew, cut at each of ``pieces``.

        The last sampled token has not run yet: it runs together with what comes next.
        """
        ids = [*self.history(name).ids, 1]
        session = self.model.engine.session()
        for start, end in zip([0, *pieces], [*pieces, len(ids)], strict=True):
            session.extend(ids[start:end])
        found = session.snapshot().logits
        assert found is not None
        return found


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_model(str(tiny_checkpoint))


@pytest.fixture
def scene(buggy_repo, model, store) -> Scene:
    return Scene(buggy_repo, model, store)


def logits(session: Session) -> torch.Tensor:
    """Those of the next token."""
    session.extend([1])
    found = session.snapshot().logits
    assert found is not None
    return found


def test_dropping_equals_a_session_that_never_had_the_reasoning(scene) -> None:
    """The same text in the same pieces, from the start: the same logits to the last bit."""
    name = scene.begin()
    first = scene.history(name)
    report = scene.say(name, "and now?", thinking="drop")
    history = scene.history(name)
    prompt = [r for r in scene.records(name) if r["type"] == "prompt"][-1]
    assert 0 < prompt["at"] < len(first.ids)
    whole = scene.model.chat.begin(
        history.messages[:-1], scene_tools(scene), True, preserve_thinking=False
    )
    assert list(history.ids[: len(whole)]) == whole
    assert first.messages[-1].thinking == "" or first.messages[-1].thinking not in (
        scene.model.chat._tokenizer.decode(whole)
    )
    # Where a cold session pauses: what tasks share, the two turns' starts, each sampled token.
    said = len(report.result.steps[-1].token_ids)
    start = scene.model.chat.turn_cut(first_prompt(scene, name))
    assert start <= prompt["at"]
    cuts = [*shared_cuts(scene, name), start, scene.model.chat.turn_cut(whole), len(whole)]
    cuts += range(len(whole) + 1, len(whole) + said)
    dropped = logits(scene.session(name))
    assert torch.equal(dropped, scene.rebuilt(name, sorted(set(cuts))))


def test_the_modes_take_turns(scene) -> None:
    name = scene.begin()
    ids = [scene.history(name).ids]
    for mode in ("preserve", "drop", "off", "preserve", "drop"):
        report = scene.say(name, f"again, {mode}", thinking=mode)
        history = scene.history(name)
        assert history.thinking == mode
        assert scene.session(name).ids == history.ids
        assert report.result.usage.context_tokens == len(history.ids)
        ids.append(history.ids)
    kept = [ids[n + 1][: len(ids[n])] == ids[n] for n in range(len(ids) - 1)]
    assert kept[0], "preserve only appends"
    assert not kept[1], "drop takes the reasoning back"
    assert kept[2], "off appends, too"
    assert kept[3]


def test_off_generates_without(scene) -> None:
    name = scene.begin(thinking="off")
    prompt = next(r for r in scene.records(name) if r["type"] == "prompt")
    text = scene.model.chat._tokenizer.decode(prompt["ids"])
    assert text.endswith("<think>\n\n</think>\n\n")
    assert scene.store.find(name).info.usage.thinking_tokens == 0


def test_reasoning_survives_resume_fork_and_rewind(scene) -> None:
    name = scene.begin()
    first = scene.history(name)
    scene.say(name, "more")
    copy = fork(scene.store, scene.store.find(name))
    assert scene.history(copy.id).ids[: len(first.ids)] == first.ids
    assert torch.equal(logits(scene.session(copy.id)), logits(scene.session(name)))
    rewind(scene.store.find(name), 1, scene.model)
    assert scene.history(name).ids == first.ids
    assert scene.session(name).ids == first.ids
    assert scene.history(name).messages[-1].thinking == first.messages[-1].thinking
    scene.say(copy.id, "even more")
    usage = scene.store.find(copy.id).info.usage
    total = scene.session(copy.id).usage
    assert total.repeated_tokens == 0
    assert usage.context_tokens == total.context_tokens


def first_prompt(scene: Scene, name: str) -> list[int]:
    """The ids of the first prompt."""
    return next(r["ids"] for r in scene.records(name) if r["type"] == "prompt")


def shared_cuts(scene: Scene, name: str) -> list[int]:
    """Where the beginnings end that other tasks share."""
    prompt = next(r for r in scene.records(name) if r["type"] == "prompt")
    engine, chat = scene.model.engine, scene.model.chat
    fresh = Conversation(engine.session(), chat, scene_tools(scene), engine.generation)
    messages = [message_from_json(message) for message in prompt["messages"]]
    cuts = Beginning(scene.model, PrefixCache(engine, 0), 0).cuts(fresh, messages, prompt["ids"])
    assert cuts
    return cuts


def scene_tools(scene: Scene):
    from tools.registry import default_tools

    return [tool.schema() for tool in default_tools()]
