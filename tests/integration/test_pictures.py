"""Pictures in saved sessions: a scripted model over a small random one with eyes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.client import Client
from agent.events import Event, Notice
from agent.loading import LoadedModel, load_model
from agent.run.open_session import OpenSession
from agent.run.solve import solve
from agent.sessions.history import history_of
from agent.sessions.records import PromptRecord
from agent.sessions.store import SessionStore
from agent.sessions.trajectory import read_records, session_ids
from agent.settings.table import Settings
from agent.types import Task
from model.vision.picture import read_picture
from tests.support.forced import forced
from tests.support.sighted import png, sighted_format

SETTINGS = Settings(sandbox="local", map_tokens=0)
PICTURE = read_picture(png(60, 90, seed=3), "design.png")


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(sighted_format(tmp_path_factory.mktemp("sighted"))[3]))


def test_a_picture_lands_in_the_context_and_stays(
    sighted: LoadedModel, store: SessionStore, buggy_repo: Path, script: Any
) -> None:
    (buggy_repo / "shot.png").write_bytes(png(80, 50, seed=8))
    look = script.turn(script.call("read_file", file_path="shot.png"))
    model = forced(sighted, (look, look, *script.repair()))
    eyes = sighted.engine.eyes
    assert eyes is not None
    before = eyes.encoded
    task = Task("make it look like this", buggy_repo, pictures=(PICTURE,))
    report = solve(task, SETTINGS, model, store=store)
    assert report.patch
    steps = report.result.steps
    (saved,) = store.sessions()
    records = list(read_records(saved.trajectory))
    prompts = [record for record in records if isinstance(record, PromptRecord)]

    shown = [message.pictures for prompt in prompts for message in prompt.messages]
    names = [picture.name for pictures in shown for picture in pictures]
    assert names == ["design.png", "shot.png", "shot.png"]
    assert len(list((saved.path / "pictures").iterdir())) == 2
    assert eyes.encoded == before + 2
    tokens = eyes.preparing.grid(80, 50).tokens
    assert sum(i < 0 for i in prompts[1].ids) == tokens
    # The step after the picture prefills what is new, and nothing else.
    assert steps[1].usage.prefilled_tokens == len(prompts[1].ids)
    assert steps[3].usage.prefilled_tokens == len(prompts[3].ids)
    total = report.result.usage
    assert total.prefilled_tokens + total.generated_tokens + total.shared_tokens == (
        total.context_tokens
    )
    assert len(session_ids(saved.trajectory)) == total.context_tokens

    # Another process has no picture in memory: it reads them from the session's folder.
    with OpenSession.reopen(saved, SETTINGS, forced(sighted, (look,)), Client(talks=True)) as live:
        live.load()
        assert live.parts.conversation.session.ids == history_of(records).ids
        live.rewind(1)
        assert live.parts.conversation.session.ids == history_of(records, 1).ids


def test_a_model_without_eyes_is_told_in_words(
    placed_model: Callable[..., LoadedModel], store: SessionStore, buggy_repo: Path, script: Any
) -> None:
    (buggy_repo / "shot.png").write_bytes(png(80, 50, seed=8))
    look = script.turn(script.call("read_file", file_path="shot.png"))
    heard: list[Event] = []
    task = Task("make it so", buggy_repo, pictures=(PICTURE,))
    model = placed_model(look, *script.repair())
    report = solve(task, SETTINGS, model, Client(listen=heard.append), store=store)
    assert report.result.steps[0].observations[0].text.startswith("[binary file: ")
    said = [event.text for event in heard if isinstance(event, Notice)]
    assert any("no eyes" in text and "design.png" in text for text in said)
    assert any("no eyes" in text and "shot.png" in text for text in said)
    ids = session_ids(store.sessions()[0].trajectory)
    assert min(ids) >= 0
    text = model.chat._tokenizer.decode(ids)
    assert "[PNG picture design.png, 90 × 60 pixels]\nmake it so" in text
