"""Requests that the command line makes of the chat: what the screen needs first, and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODES = ("ask", "edit", "auto", "plan")
"""What a person is asked about: everything, commands, nothing; ``plan`` only looks."""


@dataclass(frozen=True)
class Wanted:
    """A repository, the flags given, and a saved session to go on with.

    ``resume`` is a session's id, "" for the newest of the repository, None for a new session.
    ``first`` is the first message; "" for none.
    """

    repo: Path
    flags: Mapping[str, Any] = field(default_factory=dict)
    resume: str | None = None
    mode: str = "ask"
    first: str = ""


@dataclass(frozen=True)
class Opening:
    """Facts that the screen needs before the command line is read as a whole.

    ``read`` reads it, on the session's thread, and raises ``ConfigError`` for what cannot be.
    """

    repo: Path
    mode: str
    read: Callable[[], Wanted]
