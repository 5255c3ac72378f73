"""What a client does in the middle: of a prefill, of a decode, of a question, of another's turn."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.acp_client import ANSWER_S, RawClient, Refused, Served, allow, choose
from tests.support.gated import gated


def ask(client: RawClient, session: str, text: str = "add subtracts") -> asyncio.Future[Any]:
    blocks = [{"type": "text", "text": text}]
    return client.ask("session/prompt", sessionId=session, prompt=blocks)


async def heard(client: RawClient) -> None:
    """Until the server has taken in all that was sent."""
    await client.initialize()


@pytest.fixture
def serve(placed_model, store):
    """``serve(test, *turns)`` runs ``test(client)``; ``model=`` takes the place of turns."""

    def run(test, *turns: str, model: Any = None, **flags: Any) -> None:
        async def inside() -> None:
            async with Served(model or placed_model(*turns), store, **flags) as client:
                await client.initialize()
                await test(client)

        asyncio.run(inside())

    return run


@pytest.mark.parametrize("part", ["prefill", "decode"])
def test_a_cancel_in_a_pass_lets_no_other_follow(serve, script, buggy_repo, placed_model, part):
    model, network = gated(placed_model(*script.repair()), prefill_chunk=64)
    seen = 0

    def stop_at(widths: tuple[int, ...]) -> bool:
        nonlocal seen
        seen += (widths[0] > 1) is (part == "prefill")
        return seen == 3

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        network.stop_at = stop_at
        asked = ask(client, session, "add subtracts " * 200)
        await asyncio.to_thread(network.reached.wait)
        begun = len(network.passes)
        client.notify("session/cancel", sessionId=session)
        await heard(client)
        assert not asked.done()
        network.let_go()
        assert (await asyncio.wait_for(asked, ANSWER_S))["stopReason"] == "cancelled"
        assert len(network.passes) == begun
        assert (await client.prompt(session, "go on"))["stopReason"] == "end_turn"

    serve(test, model=model, mode="auto")


def test_a_prompt_right_after_a_cancel_waits_for_its_end(serve, script, buggy_repo, placed_model):
    model, network = gated(placed_model(*script.repair()))

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        network.stop_at = lambda widths: widths == (1,)
        first = ask(client, session)
        await asyncio.to_thread(network.reached.wait)
        client.notify("session/cancel", sessionId=session)
        second, third = ask(client, session, "go on"), ask(client, session, "and on")
        await heard(client)
        network.let_go()
        assert (await asyncio.wait_for(first, ANSWER_S))["stopReason"] == "cancelled"
        with pytest.raises(Refused, match="a turn is running"):
            await asyncio.wait_for(third, ANSWER_S)
        assert (await asyncio.wait_for(second, ANSWER_S))["stopReason"] == "end_turn"

    serve(test, model=model, mode="auto")


def test_two_sessions_decode_in_one_pass(serve, script, buggy_repo, placed_model) -> None:
    long = script.turn(thinking="one two three " * 60, content="Done.")
    model, network = gated(placed_model(long))

    async def test(client: RawClient) -> None:
        sessions = [await client.new(buggy_repo), await client.new(buggy_repo)]
        network.stop_at = lambda widths: widths == (1,)
        asks = [ask(client, sessions[0])]
        await asyncio.to_thread(network.reached.wait)
        asks.append(ask(client, sessions[1]))
        while not model.engine.scheduler._waiting:  # the other's prompt, behind this pass
            await asyncio.sleep(0.001)
        network.let_go()
        for asked in asks:
            assert (await asyncio.wait_for(asked, ANSWER_S))["stopReason"] == "end_turn"
        assert (1, 1) in network.passes

    serve(test, model=model)


def test_a_cancel_while_the_person_is_asked(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        client.answers["session/request_permission"] = None
        session = await client.new(buggy_repo)
        asked = ask(client, session)
        while not client.asked:
            await asyncio.sleep(0.005)
        client.notify("session/cancel", sessionId=session)
        assert (await asyncio.wait_for(asked, ANSWER_S))["stopReason"] == "cancelled"
        late = {"outcome": {"outcome": "cancelled"}}
        client.raw({"jsonrpc": "2.0", "id": 0, "result": late})
        client.answers["session/request_permission"] = allow
        assert (await client.prompt(session, "go on"))["stopReason"] == "end_turn"
        assert "a + b" in (buggy_repo / "calc.py").read_text()

    serve(test, *script.repair())


def test_the_mode_may_change_while_the_person_is_asked(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        client.answers["session/request_permission"] = None
        session = await client.new(buggy_repo)
        asked = ask(client, session)
        while not client.asked:
            await asyncio.sleep(0.005)
        await client.request("session/set_mode", sessionId=session, modeId="auto")
        client.raw({"jsonrpc": "2.0", "id": 0, "result": allow(client.asked[0][1])})
        assert (await asyncio.wait_for(asked, ANSWER_S))["stopReason"] == "end_turn"
        assert len(client.asked) == 1
        assert "a + b" in (buggy_repo / "calc.py").read_text()

    serve(test, *script.repair())


@pytest.mark.parametrize(
    ("line", "both"), [("# from the person\n", True), ("    return a * b\n", False)]
)
def test_the_person_types_while_they_are_asked(serve, script, buggy_repo, line, both) -> None:
    path = str(buggy_repo / "calc.py")
    buffer = {path: Path(path).read_text()}

    def type_and_allow(params: dict[str, Any]) -> dict[str, Any]:
        if params["toolCall"]["kind"] == "edit":
            first, last = buffer[path].splitlines(keepends=True)
            buffer[path] = line + "\n\n" + first + last if both else first + line
        return allow(params)

    def write(params: dict[str, Any]) -> dict[str, Any]:
        buffer[params["path"]] = params["content"]
        return {}

    async def test(client: RawClient) -> None:
        await client.initialize(fs={"readTextFile": True, "writeTextFile": True})
        client.answers = {
            "session/request_permission": type_and_allow,
            "fs/read_text_file": lambda params: {"content": buffer[path]},
            "fs/write_text_file": write,
        }
        session = await client.new(buggy_repo)
        await client.prompt(session, "add subtracts")
        assert line in buffer[path]
        assert ("a + b" in buffer[path]) is both
        told = str(client.told("tool_call_update"))
        assert ("Not kept: the user changed calc.py" in told) is not both

    repair = script.repair()
    serve(test, repair[2], script.turn(content="Done."))


def test_always_holds_when_the_session_is_closed_and_loaded(serve, script, buggy_repo) -> None:
    run = script.turn(script.call("run_shell_command", command="python3 test_calc.py"))

    async def test(client: RawClient) -> None:
        where = {"cwd": str(buggy_repo), "mcpServers": []}
        client.answers["session/request_permission"] = choose("allow_always")
        session = await client.new(buggy_repo)
        await client.prompt(session, "run it")
        await client.request("session/load", sessionId=session, **where)
        await client.prompt(session, "run it")
        assert len(client.asked) == 1
        await client.request("session/close", sessionId=session)
        await client.request("session/load", sessionId=session, **where)
        await client.prompt(session, "run it")
        assert len(client.asked) == 1
        other = await client.new(buggy_repo)
        await client.prompt(other, "run it")
        assert len(client.asked) == 2

    serve(test, *[run, script.turn(content="It ran.")] * 3)


def test_a_session_that_another_editor_has_open(serve, script, buggy_repo, store, placed_model):
    where = {"cwd": str(buggy_repo), "mcpServers": []}

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        await client.prompt(session, "hello")
        async with Served(placed_model(answer), store) as other:
            await other.initialize()
            found = await other.request("session/list", cwd=str(buggy_repo))
            assert [s["sessionId"] for s in found["sessions"]] == [session]
            for method in ("session/load", "session/resume", "session/fork"):
                with pytest.raises(Refused, match=f"{session} is in use by process"):
                    await other.request(method, sessionId=session, **where)
            with pytest.raises(Refused, match="in use"):
                await other.request("session/delete", sessionId=session)
        assert (await client.prompt(session, "still there?"))["stopReason"] == "end_turn"
        await client.request("session/close", sessionId=session)
        fork = await client.request("session/fork", sessionId=session, **where)
        with pytest.raises(Refused, match="is open"):  # to fork it was not to open it
            await client.prompt(session, "hello")
        assert (await client.prompt(fork["sessionId"], "hello"))["stopReason"] == "end_turn"

    answer = script.turn(content="Hello.")
    serve(test, answer)


def test_a_client_that_goes_away_while_a_command_runs(serve, script, buggy_repo, store, tmp_path):
    mark = tmp_path / "pid"

    async def test(client: RawClient) -> None:
        ask(client, await client.new(buggy_repo))
        while not mark.exists() or not mark.read_text().strip():
            await asyncio.sleep(0.01)

    command = f"( echo $BASHPID > {mark}; exec sleep 600 )"
    serve(test, script.turn(script.call("run_shell_command", command=command)), mode="auto")
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), 0)
    (saved,) = store.sessions()
    assert saved.status == "interrupted"


def test_what_a_limit_and_a_defect_are_called(serve, script, buggy_repo, monkeypatch) -> None:
    from agent.acp.hub import Hub

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        answer = await client.prompt(session, "add subtracts")
        assert answer["stopReason"] == "max_turn_requests"
        assert client.text().endswith("[stopped: the limit on steps was reached (--max-steps)]")

        def settings(*_: Any) -> None:
            raise KeyError("x")

        monkeypatch.setattr(Hub, "settings", settings)
        with pytest.raises(Refused, match=r"session/new could not be done: KeyError\('x'\)"):
            await client.new(buggy_repo)

    serve(test, *script.repair(), mode="auto", max_steps=1)


def test_a_list_comes_in_pages(serve, buggy_repo, store) -> None:
    made = [store.create(task=f"number {n}", repo=str(buggy_repo)).id for n in range(120)]

    async def test(client: RawClient) -> None:
        found: list[str] = []
        cursor: dict[str, str] = {}
        sizes = []
        while True:
            page = await client.request("session/list", cwd=str(buggy_repo), **cursor)
            found += [session["sessionId"] for session in page["sessions"]]
            sizes.append(len(page["sessions"]))
            if page.get("nextCursor") is None:
                break
            cursor = {"cursor": page["nextCursor"]}
        assert sizes == [50, 50, 20]
        assert found == made[::-1]
        with pytest.raises(Refused, match="cursor"):
            await client.request("session/list", cursor="' or 1=1")

    serve(test, "x")
