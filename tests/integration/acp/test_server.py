"""Turns, permissions, sessions and options over real pipes, with a scripted network."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.acp.session import OPENING
from agent.sessions.history import history_of, records_of
from tests.support.acp_client import RawClient, Refused, Served, allow, choose


@pytest.fixture
def serve(placed_model, store) -> Callable[..., Any]:
    """``serve(test, *turns, **flags)`` runs the coroutine function ``test(client)``."""

    def run(test: Callable[[RawClient], Coroutine[Any, Any, Any]], *turns: str, **flags: Any):
        async def inside() -> Any:
            async with Served(placed_model(*turns), store, **flags) as client:
                client.hello = await client.initialize(fs={})
                return await test(client)

        return asyncio.run(inside())

    return run


def fixed(repo: Path) -> bool:
    return "a + b" in (repo / "calc.py").read_text()


def test_a_turn_is_told_while_it_happens(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        answer = await client.prompt(session, "add subtracts")
        assert answer["stopReason"] == "end_turn"
        kinds = [update["sessionUpdate"] for _, update in client.updates]
        assert kinds.index("agent_thought_chunk") < kinds.index("tool_call")
        assert client.told("session_info_update")[0]["title"] == "add subtracts"
        calls = client.told("tool_call")
        assert [call["kind"] for call in calls] == ["execute", "read", "edit", "execute"]
        assert len({call["toolCallId"] for call in calls}) == 4
        ends = {
            update["toolCallId"]: update["status"]
            for update in client.told("tool_call_update")
            if update.get("status") in ("completed", "failed")
        }
        assert list(ends.values()) == ["failed", "completed", "completed", "completed"]
        diff = next(
            content
            for update in client.told("tool_call_update")
            for content in update.get("content") or ()
            if content["type"] == "diff"
        )
        assert diff["path"] == str(buggy_repo / "calc.py")
        assert diff["oldText"] == "def add(a, b):\n    return a - b\n"
        assert diff["newText"] == "def add(a, b):\n    return a + b\n"
        places = [u["locations"] for u in client.told("tool_call_update") if u.get("locations")]
        assert {"path": str(buggy_repo / "calc.py"), "line": 2} in [p[0] for p in places]
        assert client.text().endswith("add subtracted; it adds now")
        used = [update["used"] for update in client.told("usage_update")]
        assert (
            used == sorted(used)
            and used[-1] == answer["_meta"]["tenuto"]["usage"]["context_tokens"]
        )
        assert [c["name"] for c in client.told("available_commands_update")[0]["availableCommands"]]
        assert fixed(buggy_repo)

    serve(test, *script.repair())


@pytest.mark.parametrize(
    ("mode", "asked"),
    [("ask", ["execute", "edit", "execute"]), ("edit", ["execute", "execute"]), ("auto", [])],
)
def test_the_mode_says_what_is_asked(serve, script, buggy_repo, mode, asked) -> None:
    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        await client.request("session/set_mode", sessionId=session, modeId=mode)
        await client.prompt(session, "add subtracts")
        assert [params["toolCall"]["kind"] for _, params in client.asked] == asked
        assert client.told("current_mode_update") == [
            {"sessionUpdate": "current_mode_update", "currentModeId": mode}
        ]
        assert fixed(buggy_repo)

    serve(test, *script.repair())


def test_what_is_rejected_does_not_happen(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        client.answers["session/request_permission"] = choose("reject_once")
        session = await client.new(buggy_repo)
        answer = await client.prompt(session, "add subtracts")
        assert answer["stopReason"] == "end_turn"
        assert not fixed(buggy_repo)
        refused = [
            update["content"][0]["content"]["text"]
            for update in client.told("tool_call_update")
            if update.get("status") == "failed"
        ]
        assert len(refused) == 3 and all("the user refused" in text for text in refused)

    serve(test, *script.repair())


def test_always_is_asked_once(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        client.answers["session/request_permission"] = choose("allow_always")
        session = await client.new(buggy_repo)
        await client.prompt(session, "add subtracts")
        kinds = [params["toolCall"]["kind"] for _, params in client.asked]
        assert kinds == ["execute", "edit"]

    repair = script.repair()
    serve(test, repair[0].replace("-B ", ""), *repair[1:3], repair[3].replace("-B ", ""), repair[4])


def test_the_session_is_loaded_forked_listed_and_deleted(
    serve, script, buggy_repo, placed_model, store, tmp_path
) -> None:
    answer = script.turn(content="It adds now.")

    def conversation(client: RawClient) -> list[Any]:
        """What a person has read: text, and each call with its title, kind and end."""
        ends = {update["toolCallId"]: update for update in client.told("tool_call_update")}
        titles = {
            update["toolCallId"]: update["title"]
            for update in client.told("tool_call_update")
            if "title" in update
        }
        thoughts = client.text("agent_thought_chunk").replace(OPENING, "")  # on a busy machine
        read: list[Any] = [thoughts, client.text()]
        for call in client.told("tool_call"):
            name = call["toolCallId"]
            status = ends.get(name, call)["status"]
            read.append((name, titles.get(name, call["title"]), call["kind"], status))
        return read

    async def first(client: RawClient) -> tuple[str, list[Any]]:
        session = await client.new(buggy_repo)
        await client.prompt(session, "add subtracts")
        return session, conversation(client)

    async def second(client: RawClient) -> None:
        found = await client.request("session/list", cwd=str(buggy_repo))
        assert [(s["sessionId"], s["title"]) for s in found["sessions"]] == [
            (session, "add subtracts")
        ]
        where = {"cwd": str(buggy_repo), "mcpServers": []}
        loaded = await client.request("session/load", sessionId=session, **where)
        assert {option["id"] for option in loaded["configOptions"]} == {
            "mode",
            "model",
            "effort",
            "thinking",
            "sandbox",
        }
        assert client.text("user_message_chunk") == "add subtracts"
        assert conversation(client) == read
        before = len(client.updates)
        ended = await client.prompt(session, "and now?")
        usage = ended["_meta"]["tenuto"]["usage"]
        assert usage["prefilled_tokens"] < 60
        assert "It adds now." in client.text()
        ids = history_of(records_of(store.find(session))).ids
        await client.prompt(session, "/rewind")
        assert client.text().endswith("(nothing prefilled).")
        again = await client.prompt(session, "and now?")
        assert again["_meta"]["tenuto"]["usage"]["prefilled_tokens"] == usage["prefilled_tokens"]
        assert history_of(records_of(store.find(session))).ids == ids
        fork = await client.request("session/fork", sessionId=session, **where)
        assert fork["sessionId"] != session
        again = await client.prompt(fork["sessionId"], "so?")
        assert again["stopReason"] == "end_turn"
        await client.prompt(session, "so?")
        both = [history_of(records_of(store.find(n))).ids for n in (session, fork["sessionId"])]
        assert both[0] == both[1] and both[0][: len(ids)] == ids
        assert {name for name, _ in client.updates[before:]} == {session, fork["sessionId"]}
        await client.request("session/close", sessionId=session)
        with pytest.raises(Refused, match="is open"):
            await client.prompt(session, "hello?")
        await client.request("session/resume", sessionId=session, **where)
        await client.request("session/delete", sessionId=session)
        await client.request("session/delete", sessionId=session)
        with pytest.raises(Refused) as refused:
            await client.request("session/load", sessionId=session, **where)
        assert refused.value.code == -32002
        found = await client.request("session/list")
        assert [s["sessionId"] for s in found["sessions"]] == [fork["sessionId"]]

    turns = (*script.repair(), answer, answer)
    session, read = serve(first, *turns)
    serve(second, *turns)


def test_commands_are_answered_without_the_model(serve, script, buggy_repo, store) -> None:
    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        await client.prompt(session, "add subtracts")
        assert fixed(buggy_repo)
        await client.prompt(session, f"/check {script.CHECK}")
        assert client.text().endswith("The check passes.")
        await client.prompt(session, "/rewind")
        assert client.text().endswith("Back at the end of step 0 (nothing prefilled).")
        assert not fixed(buggy_repo)
        await client.prompt(session, "/check")
        assert client.text().endswith("The check fails (1).")
        await client.prompt(session, "/thinking drop")
        await client.prompt(session, "/fork")
        name = client.text().rpartition(" ")[2].rstrip(".")
        assert store.find(name).info.parent == session
        with pytest.raises(Refused, match="no step 7"):
            await client.prompt(session, "/rewind 7")
        with pytest.raises(Refused, match="no way of thinking"):
            await client.prompt(session, "/thinking hard")
        await client.prompt(session, "add subtracts")
        assert fixed(buggy_repo)

    serve(test, *script.repair())


def test_the_context_is_emptied_when_asked(serve, script, buggy_repo, store) -> None:
    big = script.turn(script.call("run_shell_command", command="seq 1 4000"))

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        await client.prompt(session, "count")
        before = client.told("usage_update")[-1]["used"]
        await client.prompt(session, "/compact")
        await client.prompt(session, "count again")
        assert "[context emptied: " in client.text("agent_thought_chunk")
        after = [update["used"] for update in client.told("usage_update")]
        assert min(after[after.index(before) :]) < before
        (kept,) = [s for s in store.sessions() if s.info.parent == session]
        assert kept.status == "compacted"
        where = {"cwd": str(buggy_repo), "mcpServers": []}
        await client.request("session/close", sessionId=session)
        client.updates.clear()
        await client.request("session/load", sessionId=session, **where)
        said = [u["content"]["text"] for u in client.told("user_message_chunk")]
        assert said == ["count", "count again"]

    serve(test, big, script.turn(content="I counted to 500, as I was told."))


def test_options_change_the_next_turn(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        await client.prompt(session, "add subtracts")

        async def choice(name: str, value: str) -> str:
            answer = await client.request(
                "session/set_config_option", sessionId=session, configId=name, value=value
            )
            option = next(o for o in answer["configOptions"] if o["id"] == name)
            return str(option["currentValue"])

        assert await choice("thinking", "off") == "off"
        assert await choice("sandbox", "bubblewrap") == "bubblewrap"
        assert await choice("mode", "auto") == "auto"
        for name, value in (("thinking", "hard"), ("sandbox", "moon"), ("model", "/nowhere")):
            with pytest.raises(Refused):
                await choice(name, value)
        with pytest.raises(Refused, match="no option"):
            await choice("colour", "red")
        await client.prompt(session, "and now?")
        assert client.text().endswith("adds now.")

    serve(test, *script.repair(), "It adds now.")


def test_plans_are_told(serve, script, buggy_repo) -> None:
    todos = '[{"content": "look", "status": "completed"}, {"content": "mend", "status": "pending"}]'

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        await client.prompt(session, "plan it")
        assert client.told("plan")[0]["entries"] == [
            {"content": "look", "priority": "medium", "status": "completed"},
            {"content": "mend", "priority": "medium", "status": "pending"},
        ]

    serve(test, script.turn(script.call("todo_write", todos=todos)), script.turn(content="So."))


def test_output_is_streamed(serve, script, buggy_repo, store) -> None:
    command = "echo one; while [ ! -e go ]; do sleep 0.02; done; echo two"

    async def test(client: RawClient) -> None:
        session = await client.new(buggy_repo)
        seen = asyncio.Event()

        def look(update: dict[str, Any]) -> None:
            if "one" in str(update.get("content")) and update.get("toolCallId"):
                seen.set()

        client.on_update = look
        ask = client.ask(
            "session/prompt", sessionId=session, prompt=[{"type": "text", "text": "wait"}]
        )
        await asyncio.wait_for(seen.wait(), 30)
        (next((store.root.parent / "workspaces").glob("*/tree")) / "go").write_text("")
        await asyncio.wait_for(ask, 30)
        last = client.told("tool_call_update")[-1]
        assert "one\ntwo" in last["content"][0]["content"]["text"]

    serve(
        test,
        script.turn(script.call("run_shell_command", command=command)),
        script.turn(content="Finished."),
    )


def test_unsaved_text_is_seen_and_edits_go_through_the_editor(serve, script, buggy_repo) -> None:
    buffers = {str(buggy_repo / "calc.py"): "# unsaved\ndef add(a, b):\n    return a - b\n"}

    def read(params: dict[str, Any]) -> dict[str, Any]:
        if params["path"] not in buffers:
            raise Refused({"code": -32002, "message": "no such file"})
        return {"content": buffers[params["path"]]}

    def write(params: dict[str, Any]) -> dict[str, Any]:
        buffers[params["path"]] = params["content"]
        return {}

    async def test(client: RawClient) -> None:
        await client.initialize(fs={"readTextFile": True, "writeTextFile": True})
        client.answers |= {"fs/read_text_file": read, "fs/write_text_file": write}
        session = await client.new(buggy_repo)
        await client.prompt(session, "add subtracts")
        assert buffers[str(buggy_repo / "calc.py")] == (
            "# unsaved\ndef add(a, b):\n    return a + b\n"
        )
        assert "# unsaved" in str(client.told("tool_call_update"))
        assert not fixed(buggy_repo)  # saving is the editor's matter

    serve(test, *script.repair())


def test_two_sessions_work_at_once(serve, script, buggy_repo, git_repo) -> None:
    other = git_repo({"calc.py": "def add(a, b):\n    return a - b\n"}, name="other")

    async def test(client: RawClient) -> None:
        both = [await client.new(buggy_repo), await client.new(other)]
        waiting: list[dict[str, Any]] = []
        client.answers["session/request_permission"] = None
        prompts = [{"type": "text", "text": "add subtracts"}]
        asks = [client.ask("session/prompt", sessionId=s, prompt=prompts) for s in both]
        while len({params["sessionId"] for _, params in client.asked}) < 2:
            await asyncio.sleep(0.01)
        # Both are in the middle of a turn.
        client.answers["session/request_permission"] = allow
        for number in range(len(client.asked)):
            client.raw({"jsonrpc": "2.0", "id": number, "result": allow(client.asked[number][1])})
        for ask in asks:
            assert (await asyncio.wait_for(ask, 60))["stopReason"] == "end_turn"
        assert fixed(buggy_repo) and fixed(other)
        assert not waiting

    serve(test, *script.repair())


def test_the_clients_mcp_servers_give_tools(serve, script, buggy_repo, tmp_path) -> None:
    """A program and an HTTP service; another kind, which is not advertised, is refused."""
    file, port = tmp_path / "pids", tmp_path / "port"
    program = str(Path(__file__).parent.parent.parent / "support" / "mcp_server.py")
    given = {
        "name": "my tests",
        "command": sys.executable,
        "args": [program, "stdio", str(file)],
        "env": [{"name": "GIVEN", "value": "1"}],
    }
    os.mkfifo(port)
    web = subprocess.Popen([sys.executable, program, "http", str(port)], stderr=subprocess.DEVNULL)

    async def test(client: RawClient) -> None:
        where = {"cwd": str(buggy_repo)}
        url = f"http://127.0.0.1:{port.read_text()}/mcp"
        service = {"type": "http", "name": "web", "url": url, "headers": []}
        answer = await client.request("session/new", mcpServers=[given, service], **where)
        await client.prompt(answer["sessionId"], "add 2 and 3")
        assert [params["toolCall"]["kind"] for _, params in client.asked] == ["other", "other"]
        ends = [u for u in client.told("tool_call_update") if u.get("status") == "completed"]
        assert [end["rawOutput"]["text"] for end in ends] == ["5", "9"]
        pids = [int(pid) for pid in file.read_text().split()]
        await client.request("session/close", sessionId=answer["sessionId"])
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
        sse = {"type": "sse", "name": "old", "url": "http://localhost:1/", "headers": []}
        with pytest.raises(Refused, match="only stdio and HTTP"):
            await client.request("session/new", mcpServers=[sse], **where)

    calls = script.call("mcp__my_tests__add", a=2, b=3), script.call("mcp__web__add", a=4, b=5)
    try:
        serve(test, script.turn(*calls), script.turn(content="Five and nine."))
    finally:
        web.kill()
        web.wait()


def test_output_as_the_client_shows_terminals(serve, script, buggy_repo) -> None:
    async def test(client: RawClient) -> None:
        await client.initialize(fs={}, _meta={"terminal_output": True})
        session = await client.new(buggy_repo)
        await client.prompt(session, "run it")
        meta = [u["_meta"] for u in client.told("tool_call_update") if "_meta" in u]
        name = meta[0]["terminal_info"]["terminal_id"]
        data = "".join(m["terminal_output"]["data"] for m in meta if "terminal_output" in m)
        assert data == "one\ntwo\n"
        assert meta[-1]["terminal_exit"] == {"terminal_id": name, "exit_code": 3, "signal": None}

    command = "echo one; echo two; (exit 3)"
    serve(
        test,
        script.turn(script.call("run_shell_command", command=command)),
        script.turn(content="Done."),
    )
