"""The parts of a patch. Lines lack their line feed; a carriage return stays in the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[" ", "-", "+"]
_MAX_PATH = 4_096


class PatchError(Exception):
    """A patch that cannot be read or does not fit. The message is for the model."""


def refuse_long(path: str) -> None:
    """Raise ``PatchError`` if ``path`` is longer than a path can be."""
    if len(path) > _MAX_PATH:
        raise PatchError(f"a path of the patch is longer than {_MAX_PATH:,} characters")


@dataclass(frozen=True)
class PatchLine:
    """One line of a hunk: context, removed or added."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Hunk:
    """One change in a file.

    ``start`` is the line that the header names, from 1, where there is one. ``anchors`` are lines
    that come before it, the outermost first; only in the envelope format must they be there
    (``anchored``). ``at_end`` says that the old lines are the file's last. ``ends_bare`` and
    ``ended_bare`` say that the file's last line has no line feed after the change, and before it.
    """

    number: int
    lines: tuple[PatchLine, ...]
    start: int | None = None
    anchors: tuple[str, ...] = ()
    anchored: bool = False
    at_end: bool = False
    ended_bare: bool = False
    ends_bare: bool = False

    @property
    def old(self) -> list[str]:
        """The lines that must be there."""
        return [line.text for line in self.lines if line.kind != "+"]

    @property
    def new(self) -> list[str]:
        """The lines that will be there."""
        return [line.text for line in self.lines if line.kind != "-"]


@dataclass(frozen=True)
class FilePatch:
    """The change of one file. ``paths`` are ways to read its name, the likeliest first."""

    action: Literal["add", "delete", "update"]
    paths: tuple[str, ...]
    hunks: tuple[Hunk, ...] = ()
    move_to: tuple[str, ...] = ()
    executable: bool | None = None

    @property
    def path(self) -> str:
        """The name for messages."""
        return self.paths[0]
