"""Wrap an MCP tool as one of ours: its name, its schema, its call, and its observation.

Everything a server says is untrusted. Names are made plain, descriptions and schemas are cut,
results are cleaned of terminal codes and cut like any command's output.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp.types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
    Tool,
)
from pydantic import BaseModel, ConfigDict

from tools.mcp.running_servers import RunningServers, ServerFailed
from tools.mcp.spec import McpServer
from tools.text.truncate import clean_output, cut_middle
from tools.types import Observation, ToolContext, ToolSpec

MAX_NAME = 64
MAX_DESCRIPTION = 2000
MAX_SCHEMA = 20_000
MAX_CHARACTERS = 25_000
MAX_DEPTH = 12
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
        schema_given=_read_schema(tool.input_schema),
    )


def _make_name(server: McpServer, tool: Tool, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", f"mcp__{server.name}__{tool.name}")[:MAX_NAME]
    name, number = plain, 2
    while name in taken:
        name = f"{plain[: MAX_NAME - 4]}_{number}"
        number += 1
    return name


def _read_schema(given: Any) -> Mapping[str, Any]:
    """Return the schema of the parameters, or one that allows anything if it is odd."""
    schema = given if isinstance(given, dict) else {}
    try:
        fits = _measure_depth(schema) <= MAX_DEPTH and len(json.dumps(schema)) <= MAX_SCHEMA
    except (TypeError, ValueError):
        fits = False
    properties = schema.get("properties", {})
    if not fits or not isinstance(properties, dict):
        return {"type": "object", "properties": {}}
    if not all(isinstance(one, dict) for one in properties.values()):
        return {"type": "object", "properties": {}}
    return {**schema, "type": "object", "properties": properties}


def _measure_depth(value: Any, at: int = 0) -> int:
    """Return how deep ``value`` nests, up to ``MAX_DEPTH``."""
    if at > MAX_DEPTH or not isinstance(value, dict | list):
        return at
    inner = value.values() if isinstance(value, dict) else value
    return max((_measure_depth(one, at + 1) for one in inner), default=at)


def _observe(result: CallToolResult) -> Observation:
    texts = [_show_block(block) for block in result.content]
    if not texts and result.structured_content is not None:
        texts = [json.dumps(result.structured_content, ensure_ascii=False, default=str)]
    text, cut = cut_middle(clean_output("\n".join(texts)), MAX_CHARACTERS)
    return Observation(text or "(nothing)", ok=not result.is_error, truncated=cut)


def _show_block(block: Any) -> str:
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, EmbeddedResource) and isinstance(block.resource, TextResourceContents):
        return block.resource.text
    if isinstance(block, ResourceLink):
        return f"[resource {block.uri}]"
    if isinstance(block, ImageContent | AudioContent):
        return f"[{block.mime_type}, {len(block.data) * 3 // 4:,} bytes, left out]"
    return "[content of another kind, left out]"
