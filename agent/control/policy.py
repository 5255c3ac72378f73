"""The tables of the configuration files that say what a run may do: rules, hooks, MCP servers.

They are read anew for every run, also of a session that goes on, and are not saved with it.

The user's own file may say all of it. A repository is not trusted: its ``.agent.toml`` may only
add rules that ask or deny; its rules that allow count for nothing, hooks in it are an error, and
its MCP servers (programs that run outside the sandbox) are used only where the user said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.control.rules import Rules
from agent.errors import ConfigError
from agent.settings.load import reason_of
from agent.settings.toml_files import read_toml, repository_files, user_file
from tools.mcp.spec import McpServer


class Hook(BaseModel):
    """One command of the user's. ``tools`` are name patterns; ``timeout`` is in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str = Field(min_length=1)
    tools: tuple[str, ...] = ("*",)
    timeout: float = Field(default=60.0, gt=0, le=3600, allow_inf_nan=False)


class HookLists(BaseModel):
    """The hooks before and after a call, and at the end of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    before: tuple[Hook, ...] = ()
    after: tuple[Hook, ...] = ()
    end: tuple[Hook, ...] = ()


class _RuleLists(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class _Tables(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    rules: _RuleLists = _RuleLists()
    hooks: HookLists = HookLists()
    mcp: Mapping[str, McpServer] = Field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """The tables of all files together; ``notices`` tell the user what was left out, in lines."""

    rules: Rules = field(default_factory=Rules)
    hooks: HookLists = field(default_factory=HookLists)
    servers: tuple[McpServer, ...] = ()
    notices: tuple[str, ...] = ()


def load_policy(repo: Path | None = None, *, mcp_from_repo: bool = False) -> Policy:
    """Read the tables of the user's file and of the repository's. Raises ``ConfigError``."""
    own = user_file()
    users = _read(own, read_toml(own), Path.home())
    rules = _rules(own, users.rules)
    servers = dict(users.mcp)
    notices: list[str] = []
    for path in repository_files(repo):
        values = read_toml(path, trusted=False)
        if "hooks" in values:
            raise ConfigError(
                f"{path} sets 'hooks', which a repository may not decide; remove it there and set "
                f"it yourself in {own}"
            )
        tables = _read(path, values, path.parent)
        given = _rules(path, tables.rules)
        if given.allow:
            notices.append(f"the allow rules of {path} do not count; your own go into {own}")
        rules |= Rules(ask=given.ask, deny=given.deny)
        if mcp_from_repo:
            servers = dict(tables.mcp) | servers
        elif names := ", ".join(sorted(set(tables.mcp) - set(servers))):
            notices.append(f"{path} lists MCP servers ({names}); --mcp-from-repo starts them")
    return Policy(rules, users.hooks, tuple(servers.values()), tuple(notices))


def _read(path: Path, values: Mapping[str, Any], folder: Path) -> _Tables:
    """Return the tables in the file's ``values``; servers start in ``folder`` unless told
    otherwise.
    """
    servers = values.get("mcp", {})
    if isinstance(servers, Mapping):
        servers = {
            name: {"folder": folder, **server, "name": name} if isinstance(server, dict) else server
            for name, server in servers.items()
        }
    try:
        return _Tables(**{**values, "mcp": servers})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where} in {path}: {reason_of(first)}") from error


def _rules(path: Path, lists: _RuleLists) -> Rules:
    try:
        return Rules.parse(lists.allow, lists.ask, lists.deny)
    except ConfigError as error:
        raise ConfigError(f"{error} (in {path})") from error
