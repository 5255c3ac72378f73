"""Wrap an MCP tool as one of ours: its name, its schema, its call, and its observation.

Everything a server says is untrusted. Names are made plain, descriptions and schemas are cut,
results are cleaned of terminal codes and cut like any command's output.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mcp.types import CallToolResult, ImageContent, TextContent, Tool
from pydantic import BaseModel, ConfigDict

from tools.mcp.cleaning import reduce_schema
from tools.mcp.running_servers import RunningServers, ServerFailed
from tools.mcp.spec import McpServer
from tools.text.truncate import clean_output, cut_middle
from tools.types import FoundPicture, Observation, ToolContext, ToolSpec

MAX_NAME = 64
MAX_DESCRIPTION = 2000
MAX_CHARACTERS = 25_000
RESTARTED = (
    "[The MCP server {name} had ended and was started again: what it kept in memory is gone.]"
)


class AnyArguments(BaseModel):
    """Any arguments; the server checks them against its own schema."""

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True)
class McpTool(ToolSpec):
    """A ``ToolSpec`` whose schema comes from the server."""

    schema_given: Mapping[str, Any] = field(default_factory=dict)

    def schema(self) -> Mapping[str, Any]:
        """Return the server's own schema as a function schema."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.schema_given,
        }
        return {"type": "function", "function": function}


def wrap_tools(servers: RunningServers, taken: Iterable[str]) -> tuple[ToolSpec, ...]:
    """Wrap the tools of ``servers`` under names that are not in ``taken``."""
    names = set(taken)
    found: list[ToolSpec] = []
    for server, tool in servers.tools():
        name = _make_name(server, tool, names)
        names.add(name)
        found.append(_wrap(servers, server, tool, name))
    return tuple(found)


def _wrap(servers: RunningServers, server: McpServer, tool: Tool, name: str) -> McpTool:
    def run(context: ToolContext, parameters: AnyArguments) -> Observation:
        started = servers.starts(server.name)
        try:
            arguments = parameters.model_extra or {}
            result = servers.call(server.name, tool.name, arguments, context.stop)
        except ServerFailed as error:
            text = f"{name} gave nothing: {error}. The other tools still work; go on without it."
            return Observation(clean_output(text), ok=False)
        seen = _observe(result)
        if servers.starts(server.name) == started:
            return seen
        return dataclasses.replace(seen, text=f"{RESTARTED.format(name=server.name)}\n{seen.text}")

    described = clean_output(tool.description or tool.title or "")[:MAX_DESCRIPTION]
    return McpTool(
        name=name,
        description=described or f"The tool {name} of the MCP server {server.name}.",
        parameters=AnyArguments,
        run=run,
        kind="external",
        subject=f"{server.name}.{tool.name}",
        schema_given=reduce_schema(tool.input_schema)[0],
    )


def _make_name(server: McpServer, tool: Tool, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", f"mcp__{server.name}__{tool.name}")[:MAX_NAME]
    name, number = plain, 2
    while name in taken:
        name = f"{plain[: MAX_NAME - 4]}_{number}"
        number += 1
    return name


def _observe(result: CallToolResult) -> Observation:
    # The blocks are texts and pictures, see ``cleaning``.
    texts = [block.text for block in result.content if isinstance(block, TextContent)]
    text, cut = cut_middle(clean_output("\n".join(texts)), MAX_CHARACTERS)
    return Observation(
        text or "(nothing)", ok=not result.is_error, truncated=cut, pictures=tuple(_found(result))
    )


def _found(result: CallToolResult) -> Iterator[FoundPicture]:
    """Yield the pictures of a result; what is no base64 is left out."""
    images = [block for block in result.content if isinstance(block, ImageContent)]
    for number, block in enumerate(images, 1):
        with suppress(ValueError):
            yield FoundPicture(f"picture {number}", base64.b64decode(block.data, validate=True))
