"""What is wrong is answered in one line, and the process goes on."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.acp_client import RawClient, Refused, Served
from tests.support.sighted import png

PARSE, REQUEST, METHOD, PARAMS, INTERNAL, MISSING = -32700, -32600, -32601, -32602, -32603, -32002


@pytest.fixture
def serve(placed_model, store):
    """``serve(test, *turns)`` runs the coroutine function ``test(client)``."""

    def run(test, *turns: str, **flags: Any) -> None:
        async def inside() -> None:
            async with Served(placed_model(*(turns or ("x",))), store, **flags) as client:
                await client.initialize()
                await test(client)

        asyncio.run(inside())

    return run


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"{not json\n", PARSE),
        (b"\xff\xfe\x00\n", PARSE),
        (b"[" * 100_000 + b"\n", PARSE),
        (b'"a string"\n', REQUEST),
        (b"[]\n", REQUEST),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "initialize"}]\n', REQUEST),
        (b'{"jsonrpc": "2.0", "id": {"a": 1}, "method": "initialize"}\n', REQUEST),
        (b'{"jsonrpc": "2.0"}\n', REQUEST),
        (b'{"jsonrpc": "2.0", "id": [1], "result": {}}\n', REQUEST),
    ],
)
def test_a_broken_frame_is_answered_and_the_next_one_too(serve, frame, code) -> None:
    async def test(client: RawClient) -> None:
        client.raw(frame)
        answer = await asyncio.wait_for(client.nameless.get(), 30)
        assert answer["error"]["code"] == code
        assert answer["id"] is None
        assert await client.initialize()

    serve(test)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"id": 900, "method": "initialize", "params": {}}, REQUEST),
        ({"jsonrpc": "1.0", "id": 900, "method": "initialize"}, REQUEST),
        ({"jsonrpc": "2.0", "id": 900, "method": 7}, REQUEST),
        ({"jsonrpc": "2.0", "id": 900, "method": "session/dance"}, METHOD),
        ({"jsonrpc": "2.0", "id": 900, "method": "_mine/dance", "params": {}}, METHOD),
        ({"jsonrpc": "2.0", "id": 900, "method": "session/prompt"}, PARAMS),
        ({"jsonrpc": "2.0", "id": 900, "method": "session/prompt", "params": [1]}, PARAMS),
        ({"jsonrpc": "2.0", "id": 900, "method": "session/new", "params": {"cwd": 1}}, PARAMS),
        ({"jsonrpc": "2.0", "id": 900, "method": "session/set_config_option"}, PARAMS),
        ({"jsonrpc": "2.0", "id": 900, "method": "session/delete", "params": {}}, PARAMS),
    ],
)
def test_a_request_that_cannot_be_is_refused(serve, message, code) -> None:
    async def test(client: RawClient) -> None:
        client.raw(message)
        answer = await asyncio.wait_for(client.nameless.get(), 30)
        assert (answer["id"], answer["error"]["code"]) == (900, code)
        assert "\n" not in json.dumps(answer["error"])
        assert await client.initialize()

    serve(test)


def test_answers_to_nothing_and_notes_of_nothing_are_passed_over(serve, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        client.raw({"jsonrpc": "2.0", "id": 77, "result": {}})
        client.raw({"jsonrpc": "2.0", "id": "x", "error": "oh"})
        client.raw({"jsonrpc": "2.0", "method": "session/dance", "params": {}})
        client.raw({"jsonrpc": "2.0", "method": "session/cancel", "params": {}})
        client.notify("session/cancel", sessionId="nobody")
        client.notify("$/cancel_request", requestId=4711)
        client.raw(b"\n\n   \n")
        assert await client.new(buggy_repo)
        assert client.nameless.empty()

    serve(test)


def test_sessions_that_are_not_there(serve, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        where = {"sessionId": "nobody", "cwd": str(buggy_repo), "mcpServers": []}
        for method, params in (
            ("session/prompt", {"sessionId": "nobody", "prompt": [{"type": "text", "text": "x"}]}),
            ("session/load", where),
            ("session/resume", where),
            ("session/fork", where),
            ("session/close", {"sessionId": "nobody"}),
            ("session/set_mode", {"sessionId": "nobody", "modeId": "ask"}),
            (
                "session/set_config_option",
                {"sessionId": "nobody", "configId": "mode", "value": "ask"},
            ),
        ):
            with pytest.raises(Refused, match="nobody") as refused:
                await client.request(method, **params)
            assert refused.value.code == MISSING, method

    serve(test)


def test_folders_that_will_not_do(serve, tmp_path, buggy_repo) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (tmp_path / "file").write_text("")

    async def test(client: RawClient) -> None:
        for cwd, why in (
            ("relative/path", "absolute path"),
            (str(plain), "git init"),
            (str(tmp_path / "missing"), "does not exist"),
            (str(tmp_path / "file"), "is not a folder"),
        ):
            with pytest.raises(Refused, match=why):
                await client.new(cwd)
        with pytest.raises(Refused, match="additionalDirectories"):
            await client.new(buggy_repo, additionalDirectories=[str(plain)])
        session = await client.new(buggy_repo)
        with pytest.raises(Refused, match="no mode"):
            await client.request("session/set_mode", sessionId=session, modeId="wild")

    serve(test)


def test_a_session_of_another_folder_is_not_loaded(serve, script, buggy_repo, git_repo) -> None:
    other = git_repo({"a.py": ""}, name="other")

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        await client.prompt(session, "hello")
        with pytest.raises(Refused, match="is one of"):
            await client.request("session/load", sessionId=session, cwd=str(other), mcpServers=[])

    serve(test, script.turn(content="Hello."))


def test_prompts_that_cannot_be_read(serve, script, buggy_repo) -> None:
    words = {"type": "text", "text": "look"}

    def image(data: str) -> dict[str, str]:
        return {"type": "image", "data": data, "mimeType": "image/png"}

    shot = base64.b64encode(png(16, 16)).decode()
    audio = {"type": "audio", "data": "AAAA", "mimeType": "audio/wav"}

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        blob = {"uri": "file:///x.bin", "blob": "AAAA"}
        for blocks, why in (
            ([audio], "audio blocks cannot be read"),
            ([words, image("AAAA")], "no picture"),
            ([words, image("%%%")], "not valid base64"),
            ([words, image(shot[:200])], "damaged"),
            ([image(shot)], "no words"),
            ([words, *[image(shot)] * 9], "9 pictures"),
            ([], "empty"),
            ([{"type": "text", "text": "  \n"}], "empty"),
            ([{"type": "resource", "resource": blob}], "no text"),
            ([{"type": "text", "text": "x" * 10_000_000}], "longer than"),
        ):
            with pytest.raises(Refused, match=why) as refused:
                await client.request("session/prompt", sessionId=session, prompt=blocks)
            assert refused.value.code == PARAMS
        assert (await client.prompt(session, "hello"))["stopReason"] == "end_turn"

    serve(test, script.turn(content="Hello."))


def test_links_and_resources_become_text(serve, script, buggy_repo, store) -> None:
    file = f"file://{buggy_repo}/calc.py"
    blocks = [
        {"type": "text", "text": "Look at "},
        {"type": "resource_link", "uri": file, "name": "calc.py"},
        {"type": "text", "text": " and\ud800 "},
        {"type": "resource_link", "uri": "https://example.org/x", "name": "x"},
        {"type": "resource", "resource": {"uri": file, "text": "def add(a, b): ..."}},
    ]

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        await client.request("session/prompt", sessionId=session, prompt=blocks)
        assert store.find(session).info.task == (
            "Look at `calc.py` and? `https://example.org/x`\n\n"
            "calc.py:\n```\ndef add(a, b): ...\n```"
        )

    serve(test, script.turn(content="Hello."))


def test_two_prompts_at_once_in_one_session(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        client.answers["session/request_permission"] = None
        session = await client.new(buggy_repo)
        blocks = [{"type": "text", "text": "add subtracts"}]
        first = client.ask("session/prompt", sessionId=session, prompt=blocks)
        while not client.asked:
            await asyncio.sleep(0.01)
        where = {"sessionId": session, "cwd": str(buggy_repo), "mcpServers": []}
        for method, params in (
            ("session/prompt", {"sessionId": session, "prompt": blocks}),
            ("session/fork", where),
            ("session/load", where),
            (
                "session/set_config_option",
                {"sessionId": session, "configId": "thinking", "value": "off"},
            ),
        ):
            with pytest.raises(Refused, match="a turn is running") as refused:
                await client.request(method, **params)
            assert refused.value.code == REQUEST
        client.notify("session/cancel", sessionId=session)
        assert (await asyncio.wait_for(first, 30))["stopReason"] == "cancelled"

    serve(test, *script.repair())


def test_a_sandbox_that_cannot_be_opened(serve, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        with pytest.raises(Refused, match="no-such-image") as refused:
            await client.prompt(session, "hello")
        assert refused.value.code == INTERNAL
        with pytest.raises(Refused, match="no-such-image"):
            await client.prompt(session, "hello")

    serve(test, sandbox="docker", image="no-such-image:1")


def test_a_client_that_goes_away_leaves_a_session_that_loads(
    serve, script, buggy_repo, store, leftovers
) -> None:
    async def leave(client: RawClient) -> None:
        client.answers["session/request_permission"] = None
        session = await client.new(buggy_repo)
        blocks = [{"type": "text", "text": "add subtracts"}]
        client.ask("session/prompt", sessionId=session, prompt=blocks)
        while len(client.asked) < 1:
            await asyncio.sleep(0.01)

    async def come_back(client: RawClient) -> None:
        where = {"cwd": str(buggy_repo), "mcpServers": []}
        await client.request("session/load", sessionId=saved.id, **where)
        assert client.text("user_message_chunk") == "add subtracts"
        assert (await client.prompt(saved.id, "go on"))["stopReason"] == "end_turn"

    serve(leave, *script.repair())
    assert leftovers() == []
    (saved,) = store.sessions()
    assert saved.status == "interrupted"
    serve(come_back, *script.repair())


def test_a_client_that_stops_reading_is_gone(placed_model, store, script, buggy_repo) -> None:
    async def inside() -> None:
        served = Served(placed_model(*script.repair()), store)
        async with served as client:
            await client.initialize()
            await client.new(buggy_repo)
            # The other end of what the server writes to: closed under it.
            null = os.open(os.devnull, os.O_WRONLY)
            read, write = os.pipe()
            os.close(read)
            os.dup2(write, served._ends[1])
            os.close(write)
            os.close(null)
            client.ask("session/list")
            await asyncio.wait_for(asyncio.shield(served._serving), 30)

    asyncio.run(inside())


def test_paths_in_a_prompt_do_not_lead_out(tmp_path: Path) -> None:
    from acp.schema import ResourceContentBlock

    from agent.acp.content import read_prompt

    def link(uri: str) -> ResourceContentBlock:
        return ResourceContentBlock(type="resource_link", uri=uri, name="x")

    inside = read_prompt([link(f"file://{tmp_path}/a%20b.py")], tmp_path)
    assert (inside.text, inside.files) == ("`a b.py`", ("a b.py",))
    outside = read_prompt([link(f"file://{tmp_path}/../etc/passwd")], tmp_path)
    assert outside.files == ()
