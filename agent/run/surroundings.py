"""What a front end gives a session that it holds open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from agent.events import Listener, nobody
from agent.run.frontend import Control
from agent.run.mirror import OnDisk, UserFiles
from sandboxes.stop import Stop
from sandboxes.workspace.exchange import Exchange


@dataclass
class Surroundings:
    """What a front end gives a session.

    ``files`` makes the user's files from an exchange. While ``stop`` is set nothing goes on:
    whoever begins a turn clears it, any thread may set it.
    """

    listen: Listener = nobody
    control: Control = field(default_factory=Control)
    files: Callable[[Exchange], UserFiles] = OnDisk
    stop: Stop = field(default_factory=Stop)
