"""What docs/editors.md tells a person to copy starts the agent."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from typing import Any

from acp import spawn_agent_process
from acp.schema import ClientCapabilities

from tests.integration.acp.conftest import ROOT

PAGE = (ROOT / "docs" / "editors.md").read_text("utf-8")
COMMAND = "/path/to/tenuto/.venv/bin/agent"


class Nobody:
    """A client that only says hello."""

    def on_connect(self, connection: Any) -> None:
        """Nothing to keep."""


def configurations() -> list[dict[str, Any]]:
    blocks = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    return [json.loads(block)["agent_servers"]["Tenuto"] for block in blocks]


def test_every_block_names_the_same_command() -> None:
    assert len(configurations()) == 2
    assert all(found["command"] == COMMAND for found in configurations())
    assert PAGE.count(f'"{COMMAND}"') == 5
    flags = re.search(r'"args": (\["acp", .*?\])', PAGE)
    assert flags is not None and json.loads(flags.group(1))[0] == "acp"


def test_the_json_blocks_start_an_agent_that_says_what_it_can() -> None:
    async def hello(args: list[str]) -> Any:
        # The console script of the page; here its entry point, since the tests run from a clone.
        command = [sys.executable, "-c", "from agent.cli.main import main; main()", *args]
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        async with spawn_agent_process(Nobody(), *command, env=environment) as (agent, _):
            return await agent.initialize(1, ClientCapabilities())

    answers = [asyncio.run(hello(found["args"])) for found in configurations()[:1]]
    for answer in answers:
        assert (answer.protocol_version, answer.agent_info.name) == (1, "tenuto")
        can = answer.agent_capabilities
        assert can.load_session and can.session_capabilities.fork is not None
        assert not can.prompt_capabilities.image
