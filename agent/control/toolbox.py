"""The tools of a run: ours, and those of the user's MCP servers, which are started when needed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.events import Listener, Notice, nobody
from agent.settings.extensions import Extension
from sandboxes.stop import Stop
from tools.mcp.spec import McpServer
from tools.profiles.profile import load_profile
from tools.types import ToolSpec

if TYPE_CHECKING:
    from tools.mcp.running_servers import RunningServers


@dataclass
class Toolbox:
    """The tools and their servers. Several runs may share one at once; its maker closes it.

    ``more`` are tools of the task itself, offered after ours. ``skills`` are the user's own, which
    a model with room is told of.
    """

    servers: tuple[McpServer, ...] = ()
    profile: str = "qwen"
    more: tuple[ToolSpec, ...] = ()
    skills: tuple[Extension, ...] = ()
    _started: RunningServers | None = field(default=None, repr=False)
    _theirs: tuple[ToolSpec, ...] = field(default=(), repr=False)
    _starting: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def tools(
        self, listen: Listener = nobody, stop: Stop | None = None, *, also: Sequence[ToolSpec] = ()
    ) -> tuple[ToolSpec, ...]:
        """Return all tools the model gets: the profile's, ``also``, and those of servers.

        The MCP servers are started by the first who asks, and stay until ``close``; one that does
        not start is a notice. ``stop`` gives up waiting.
        """
        ours = load_profile(self.profile).tools
        ours = (*ours, *self.more)
        names = {spec.name for spec in ours}
        ours = (*ours, *(spec for spec in also if spec.name not in names))
        if not self.servers:
            return ours
        # The SDK takes a second to import.
        from tools.mcp.running_servers import RunningServers
        from tools.mcp.tool import wrap_tools

        with self._starting:
            if self._started is None:
                self._started = RunningServers()
                for line in self._started.start(self.servers, stop or Stop()):
                    listen(Notice(line))
                self._theirs = wrap_tools(self._started, [spec.name for spec in ours])
            return (*ours, *self._theirs)

    def close(self) -> None:
        """End the MCP servers. May be called twice; never raises."""
        with self._starting:
            if self._started is not None:
                self._started.close()
