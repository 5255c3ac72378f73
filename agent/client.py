"""Client of an open session, given by a front end: who listens, who answers, what stops it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from agent.control.approvals import Approvals
from agent.control.policy import HookLists
from agent.control.toolbox import Toolbox
from agent.events import Listener, nobody
from sandboxes.stop import Stop
from sandboxes.workspace.exchange import Exchange, File


class UserFiles(Protocol):
    """The user's files as the user sees them: perhaps an editor's buffers over the disk."""

    @property
    def asks(self) -> bool:
        """True if a file may differ from the disk, so that reading it is worth asking for."""
        ...

    def read(self, path: str) -> File | None:
        """Return the file, None if there is none. Raises ``OSError``."""
        ...

    def write(self, path: str, file: File | None) -> None:
        """Write it, or remove it. Raises ``OSError``."""
        ...


class OnDisk:
    """The user's files as they are on disk."""

    asks = False

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def read(self, path: str) -> File | None:
        """Read from the disk."""
        return self._exchange.users(path)

    def write(self, path: str, file: File | None) -> None:
        """Write to the disk."""
        self._exchange.write_users(path, file)


@dataclass
class Client:
    """One value for everything that a front end gives.

    ``listen`` is told each event. ``stop`` cancels what runs; any thread may set it, and whoever
    begins a turn clears it. ``approvals`` decide about calls, ``hooks`` are commands of the user's,
    ``tools`` has the tools, with those of MCP servers, and is closed by whoever made it; without it
    they are those of the settings' profile.

    ``words`` is asked once a turn was cancelled: it returns what the user says to the model, with
    which the turn goes on at once, or None for its end; it also takes the cancellation back.
    ``files`` makes the user's files from an exchange, and the workspace is kept like them; without
    it they are left alone. With ``talks`` a person reads what the model says, so that words without
    a call end a turn.
    """

    listen: Listener = nobody
    stop: Stop = field(default_factory=Stop)
    approvals: Approvals = field(default_factory=Approvals)
    words: Callable[[], str | None] | None = None
    hooks: HookLists = field(default_factory=HookLists)
    tools: Toolbox | None = None
    files: Callable[[Exchange], UserFiles] | None = None
    talks: bool = False
