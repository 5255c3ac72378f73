"""Pictures of an editor: said to be welcome only where they are seen, and told again."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.acp.content import sees_pictures
from agent.loading import load_model
from agent.sessions.history import records_of
from agent.sessions.records import PromptRecord
from agent.sessions.store import SessionStore
from model.vision.picture import read_picture
from tests.support.acp_client import RawClient, Served
from tests.support.forced import forced
from tests.support.sighted import png, sighted_format

SHOT = png(40, 70, seed=1)
BLOCK = {"type": "image", "data": base64.b64encode(SHOT).decode(), "mimeType": "image/png"}


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sighted_format(tmp_path_factory.mktemp("sighted"))[3]


def test_a_picture_of_the_editor_reaches_the_model_and_is_told_again(
    sighted: Path, store: SessionStore, git_repo: Callable[..., Path], script: Any
) -> None:
    repo = git_repo({"linked.png": png(30, 30, seed=2), "own.png": png(90, 30, seed=3)})
    model = load_model(str(sighted))
    look = script.turn(script.call("read_file", file_path="own.png"))
    link = {"type": "resource_link", "uri": f"file://{repo}/linked.png", "name": "linked.png"}

    async def run() -> None:
        turns = (look, script.turn(content="I see."))
        served = Served(forced(model, turns), store)
        served.hub._models[str(sighted)] = served.hub._models["scripted"]
        served._flags["model"] = str(sighted)
        async with served as client:
            hello = await client.initialize()
            assert hello["agentCapabilities"]["promptCapabilities"]["image"] is True
            session = await client.new(repo)
            said = {"type": "text", "text": "like this: "}
            answer = await client.request(
                "session/prompt", sessionId=session, prompt=[said, BLOCK, link]
            )
            assert answer["stopReason"] == "end_turn"
            await check(client, session)

    async def check(client: RawClient, session: str) -> None:
        (saved,) = store.sessions()
        first = next(r for r in records_of(saved) if isinstance(r, PromptRecord))
        shown = [p.digest for message in first.messages for p in message.pictures]
        assert shown == [read_picture(data).digest for data in (SHOT, png(30, 30, seed=2))]
        live = pictures(client)
        assert live == [png(90, 30, seed=3)]
        await client.request("session/close", sessionId=session)
        client.updates.clear()
        await client.request("session/load", sessionId=session, cwd=str(repo), mcpServers=[])
        chunks = [u["content"] for u in client.told("user_message_chunk")]
        assert [base64.b64decode(c["data"]) for c in chunks if c["type"] == "image"] == [
            SHOT,
            png(30, 30, seed=2),
        ]
        assert pictures(client) == live

    asyncio.run(run())


def pictures(client: RawClient) -> list[bytes]:
    """The pictures in results of calls."""
    updates = client.told("tool_call_update") + client.told("tool_call")
    blocks = [c["content"] for u in updates for c in u.get("content") or () if "content" in c]
    return [base64.b64decode(block["data"]) for block in blocks if block["type"] == "image"]


def test_a_model_without_eyes_is_not_offered_pictures_and_told_of_them_in_words(
    placed_model: Any, store: SessionStore, buggy_repo: Path, script: Any
) -> None:
    async def run() -> None:
        async with Served(placed_model(script.turn(content="Well.")), store) as client:
            hello = await client.initialize()
            assert hello["agentCapabilities"]["promptCapabilities"]["image"] is False
            session = await client.new(buggy_repo)
            said = {"type": "text", "text": "like this"}
            prompt = [said, {**BLOCK, "uri": "file:///a/shot%1b.png"}]
            answer = await client.request("session/prompt", sessionId=session, prompt=prompt)
            assert answer["stopReason"] == "end_turn"
            assert "no eyes" in client.text() or any("no eyes" in str(u) for u in client.updates)

    asyncio.run(run())


@pytest.mark.parametrize("lack", ["visual", "token", "folder", "damaged"])
def test_what_the_files_say_is_what_is_loaded(tmp_path: Path, lack: str) -> None:
    folder = sighted_format(tmp_path / "model")[3]
    flags = {"model": str(folder)}
    assert sees_pictures(flags) and load_model(str(folder)).chat.sees
    weights = folder / "model.safetensors"
    match lack:
        case "visual":
            # An export of the language model alone: the same file with other names.
            data = weights.read_bytes()
            weights.write_bytes(data.replace(b"model.visual.", b"model.unknown"))
        case "token":
            tokenizer = folder / "tokenizer.json"
            tokenizer.write_text(tokenizer.read_text().replace("<|image_pad|>", "<|image_bad|>"))
        case "folder":
            flags = {"model": str(tmp_path / "gone")}
        case "damaged":
            weights.write_bytes(weights.read_bytes()[:100])
    assert not sees_pictures(flags)
    if lack in ("visual", "token"):
        assert not load_model(str(folder)).chat.sees


def test_settings_that_cannot_be_read_promise_nothing() -> None:
    assert not sees_pictures({"model": "embedded", "device": "abacus"})
