"""Request that the command line makes of the chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODES = ("ask", "edit", "auto", "plan")
"""What a person is asked about: everything, commands, nothing; ``plan`` only looks."""


@dataclass(frozen=True)
class Wanted:
    """A repository, the flags given, and a saved session to go on with.

    ``resume`` is a session's id, "" for the newest of the repository, None for a new session.
    """

    repo: Path
    flags: Mapping[str, Any] = field(default_factory=dict)
    resume: str | None = None
    mode: str = "ask"
