"""Whole repairs by the embedded model, asked for by clients that others wrote."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

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

from tests.support.acp_wire import judge, recorded


class SdkClient:
    """An editor on the Python SDK, with one unsaved buffer at most."""

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.asked: list[Any] = []
        self.written: list[str] = []

    def on_connect(self, connection: Any) -> None:
        """Nothing to keep."""

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.updates.append(update)

    async def request_permission(self, session_id, tool_call, options, **_: Any):
        self.asked.append(tool_call)
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
def test_the_python_sdk_repairs(
    parity_repo, parity_task, agent_command, record, docker_engine
) -> None:
    client = SdkClient()

    async def use() -> Any:
        command = agent_command("--sandbox", "docker")
        async with spawn_agent_process(client, *command, env=dict(os.environ)) as (agent, _):
            files = FileSystemCapabilities(read_text_file=True, write_text_file=True)
            await agent.initialize(1, ClientCapabilities(fs=files))
            session = await agent.new_session(cwd=str(parity_repo), mcp_servers=[])
            return await agent.prompt(
                session_id=session.session_id, prompt=[text_block(parity_task)]
            )

    ended = asyncio.run(use())
    assert ended.stop_reason == "end_turn"
    assert "number % 2 == 0" in (parity_repo / "parity.py").read_text()
    assert client.written and set(client.written) == {str(parity_repo / "parity.py")}
    kinds = {call.kind for call in client.asked}
    assert kinds == {"edit", "execute"}
    usage = ended.field_meta["tenuto"]["usage"]
    assert usage["prefilled_tokens"] + usage["generated_tokens"] == usage["context_tokens"]
    found = judge(recorded(record))
    assert found.counted["session/request_permission"] == len(client.asked)
