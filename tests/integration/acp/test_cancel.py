"""Cancelling at any moment: the right answer, nothing left running, and the session goes on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.acp_client import ANSWER_S, RawClient, Refused, Served

MOMENTS = (0, 2, 20, 45, 72)
"""After how many updates of a turn of about a hundred."""


@pytest.fixture
def serve(placed_model, store):
    """``serve(test, *turns)`` runs the coroutine function ``test(client)``; nothing is asked."""

    def run(test, *turns: str, **flags: Any) -> None:
        async def inside() -> None:
            async with Served(placed_model(*turns), store, mode="auto", **flags) as client:
                await client.initialize()
                await test(client)

        before = children()
        asyncio.run(inside())
        assert children() <= before

    return run


def children() -> set[str]:
    """The processes below this one that do something, but for what pytest and git leave alone."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if fields and fields[1] == str(os.getpid()) and fields[0] != "Z":
            found.add(entry.name)
    return found


def blocks(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}]


async def cancel_after(client: RawClient, session: str, updates: int) -> str:
    """Prompt, and cancel once so many updates came; the stop reason."""
    reached = asyncio.Event()
    came = 0

    def count(update: dict[str, Any]) -> None:
        nonlocal came
        came += 1
        if came >= updates:
            reached.set()

    client.on_update = count
    asked = client.ask("session/prompt", sessionId=session, prompt=blocks("add subtracts"))
    if updates:
        stop = asyncio.ensure_future(reached.wait())
        await asyncio.wait({stop, asked}, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
    over = asked.done()
    client.notify("session/cancel", sessionId=session)
    answer = await asyncio.wait_for(asked, ANSWER_S)
    told = len(client.updates)
    await asyncio.sleep(0.05)
    assert len(client.updates) == told, "an update came after the answer"
    reason = str(answer["stopReason"])
    assert reason == "cancelled" or over or reason == "end_turn", (updates, reason)
    return reason


def test_at_any_update(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        reasons = []
        for updates in MOMENTS:
            session = await client.new(buggy_repo)
            reasons.append(await cancel_after(client, session, updates))
            open_calls = {u["toolCallId"] for u in client.told("tool_call")}
            ended = {
                u["toolCallId"]
                for u in client.told("tool_call_update")
                if u.get("status") in ("completed", "failed")
            }
            assert open_calls == ended
            assert (await client.prompt(session, "go on"))["stopReason"] == "end_turn"
            await client.request("session/close", sessionId=session)
            (buggy_repo / "calc.py").write_text("def add(a, b):\n    return a - b\n")
        assert reasons.count("cancelled") >= len(MOMENTS) // 2

    serve(test, *script.repair())


def test_a_running_command_dies(serve, script, buggy_repo, tmp_path) -> None:
    mark = f"{tmp_path}/pid"
    command = f"echo $BASHPID > {mark}; exec -a victim sleep 600"

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        asked = client.ask("session/prompt", sessionId=session, prompt=blocks("wait"))
        while not Path(mark).exists() or not Path(mark).read_text().strip():
            await asyncio.sleep(0.01)
        pid = int(Path(mark).read_text())
        client.notify("session/cancel", sessionId=session)
        assert (await asyncio.wait_for(asked, ANSWER_S))["stopReason"] == "cancelled"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert client.told("tool_call_update")[-1]["status"] == "failed"
        assert (await client.prompt(session, "go on"))["stopReason"] == "end_turn"
        said = client.text()
        assert said.endswith("Stopped.")

    serve(
        test,
        script.turn(script.call("run_shell_command", command=f"( {command} )")),
        script.turn(content="Stopped."),
    )


def test_of_a_request_by_its_number(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        asked = client.ask("session/prompt", sessionId=session, prompt=blocks("wait"))
        while not client.told("tool_call"):
            await asyncio.sleep(0.01)
        client.notify("$/cancel_request", requestId=client._number)
        assert (await asyncio.wait_for(asked, ANSWER_S))["stopReason"] == "cancelled"

    serve(test, script.turn(script.call("run_shell_command", command="sleep 600")))


def test_of_nothing_changes_nothing(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        client.notify("session/cancel", sessionId=session)
        client.notify("session/cancel", sessionId=session)
        assert (await client.prompt(session, "add subtracts"))["stopReason"] == "end_turn"
        client.notify("session/cancel", sessionId=session)
        assert "a + b" in (buggy_repo / "calc.py").read_text()

    serve(test, *script.repair())


def test_closing_ends_the_turn(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        asked = client.ask("session/prompt", sessionId=session, prompt=blocks("wait"))
        while not client.told("tool_call"):
            await asyncio.sleep(0.01)
        await client.request("session/close", sessionId=session)
        assert (await asyncio.wait_for(asked, ANSWER_S))["stopReason"] == "cancelled"
        with pytest.raises(Refused, match="is open"):
            await client.prompt(session, "hello")

    serve(test, script.turn(script.call("run_shell_command", command="sleep 600")))
