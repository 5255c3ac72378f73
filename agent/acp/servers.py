"""The MCP servers that a client gives a session, as those of the configuration are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from acp.schema import HttpMcpServer, McpServerStdio
from pydantic import ValidationError

from agent.errors import ConfigError
from tools.mcp.spec import McpServer

NAME_CHARACTERS = 32


def servers_given(servers: Sequence[Any] | None) -> tuple[McpServer, ...]:
    """Return programs and HTTP services. Raises ``ConfigError`` for other ways to reach one."""
    found: dict[str, McpServer] = {}
    for server in servers or ():
        name = _plain(server.name, taken=found)
        try:
            if isinstance(server, McpServerStdio):
                found[name] = McpServer(
                    name=name,
                    command=(server.command, *server.args),
                    env={variable.name: variable.value for variable in server.env},
                )
            elif isinstance(server, HttpMcpServer):
                headers = {header.name: header.value for header in server.headers}
                found[name] = McpServer(name=name, url=server.url, headers=headers)
            else:
                raise ConfigError(f"MCP server {server.name}: only stdio and HTTP are supported")
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"MCP server {server.name}: {reason}") from error
    return tuple(found.values())


def _plain(name: str, taken: dict[str, McpServer]) -> str:
    """Write the name in the letters that tools may have, and unlike those ``taken``."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:NAME_CHARACTERS] or "server"
    number = 2
    unique = plain
    while unique in taken:
        end = f"_{number}"
        unique = plain[: NAME_CHARACTERS - len(end)] + end
        number += 1
    return unique
