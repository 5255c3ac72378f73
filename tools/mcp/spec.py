"""The specification of an MCP server, before it is started."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
# What a program needs to be found and to find its user's files; nothing of this is a secret.
_ALWAYS_GIVEN = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


class McpServer(BaseModel):
    """One server: a ``command`` to talk to over its standard streams, or a ``url`` (HTTP).

    ``env`` and ``headers`` are values as they are; ``env_from`` names variables of the user to pass
    on, ``headers_from`` headers whose value is in a variable of the user. Beyond these a command
    gets only ``PATH``, ``HOME``, ``LANG``, ``LC_ALL`` and ``TMPDIR``. ``tools`` are the patterns of
    the tools to offer. Times are seconds: ``start_timeout`` until it has listed its tools,
    ``timeout`` for a call.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    command: tuple[str, ...] = ()
    url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    folder: Path | None = None
    env: Mapping[str, str] = Field(default_factory=dict)
    env_from: tuple[str, ...] = ()
    headers: Mapping[str, str] = Field(default_factory=dict)
    headers_from: Mapping[str, str] = Field(default_factory=dict)
    tools: tuple[str, ...] = ("*",)
    start_timeout: float = Field(default=20.0, gt=0, le=600, allow_inf_nan=False)
    timeout: float = Field(default=60.0, gt=0, le=3600, allow_inf_nan=False)

    @field_validator("name")
    @classmethod
    def _named_plainly(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError("a server's name has 1 to 32 letters, digits, - and _")
        return name

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> Self:
        if bool(self.command) == (self.url is not None):
            raise ValueError("a server has either a command (a list of words) or a url")
        return self

    def offers(self, tool: str) -> bool:
        """Return whether the user wants this tool of the server."""
        return any(fnmatch.fnmatchcase(tool, pattern) for pattern in self.tools)

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the server's command."""
        names = (*_ALWAYS_GIVEN, *self.env_from)
        return {name: os.environ[name] for name in names if name in os.environ} | dict(self.env)

    def all_headers(self) -> dict[str, str]:
        """Return the headers of requests. A variable that is not set gives none."""
        found = {
            header: os.environ[name]
            for header, name in self.headers_from.items()
            if name in os.environ
        }
        return dict(self.headers) | found
