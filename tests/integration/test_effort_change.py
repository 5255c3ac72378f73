"""An effort changed inside a session: its beginning stays, the next message tells of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.client import Client
from agent.events import Event, Notice
from agent.loading import LoadedModel
from agent.run.open_session import OpenSession
from agent.run.thinking_change import set_effort
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from agent.types import Task
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.scripted import scripted_engine

TEMPLATES = Path(__file__).parents[1] / "golden" / "templates"
WORDS = "So.</think>\n\nHello there.<|im_end|>"


@pytest.fixture
def opened(tmp_path: Path, tiny_checkpoint: Path, tiny_tokenizer: Tokenizer, git_repo: Any) -> Any:
    """``opened("qwen3_8", effort="low")``: a session, its model, and what was told."""
    told: list[Event] = []
    repo = git_repo({"a.py": "x = 1\n"})
    store = SessionStore(tmp_path / "sessions")

    def open_(template: str, **settings: Any) -> tuple[OpenSession, Tokenizer, list[Event]]:
        directory = tmp_path / template
        shutil.copytree(tiny_checkpoint, directory)
        shutil.copyfile(TEMPLATES / f"{template}.jinja", directory / "chat_template.jinja")
        chat = ChatFormat.load(directory, tiny_tokenizer)
        model = LoadedModel(scripted_engine([WORDS] * 4, tokenizer=tiny_tokenizer), chat)
        client = Client(told.append, talks=True)
        chosen = Settings(sandbox="local", warm_cache_mb=0, keep_state=False, **settings)
        session = OpenSession.new(Task("", repo), chosen, model, client, store=store)
        return session, tiny_tokenizer, told

    return open_


def ids_of(session: OpenSession) -> tuple[int, ...]:
    return session.parts.conversation.session.ids


def test_the_beginning_stays_and_the_next_message_tells(opened: Any) -> None:
    session, tokenizer, _ = opened("qwen3_8", effort="low")
    with session:
        session.turn("Hi")
        before = ids_of(session)
        text = tokenizer.decode(before)
        assert text.count("Reasoning effort is set to low.") == 1
        assert set_effort(session, "max").startswith("effort xhigh: xhigh in the template's words")
        session.turn("And now?")
        after = ids_of(session)
        assert after[: len(before)] == before
        told = tokenizer.decode(after[len(before) :])
        assert told.count("And now?\n\n(From here on the reasoning effort is xhigh.)") == 1
        session.turn("Once more.")
        assert tokenizer.decode(ids_of(session)).count("From here on") == 1
        assert session.settings.effort == session.saved.info.settings["effort"] == "xhigh"


def test_none_opens_no_reasoning_and_a_level_opens_it_again(opened: Any) -> None:
    session, tokenizer, _ = opened("qwen3_8")
    with session:
        session.turn("Hi")
        set_effort(session, "none")
        session.turn("And now?")
        assert "<think>\n\n</think>\n\nSo." in tokenizer.decode(ids_of(session))
        set_effort(session, "low")
        assert session.settings.thinking == "preserve"
        assert set_effort(session, "frantic").startswith("no effort is called 'frantic'")


def test_a_small_member_begins_without_thinking(opened: Any) -> None:
    session, tokenizer, _ = opened("qwen3_5_nothink")
    with session:
        session.turn("Hi")
        assert tokenizer.decode(ids_of(session)).count("<think>\n\n</think>\n\n") == 1
        assert session.saved.info.thinking == "off"
        assert "knows no efforts" in set_effort(session, "high")
        session.turn("Think now.")
        assert session.steps[-1].message.thinking == "So."


def test_an_unknown_word_is_told_of(opened: Any) -> None:
    session, _, told = opened("qwen3_6", effort="frantic")
    with session:
        assert any(isinstance(e, Notice) and "frantic" in e.text for e in told)
