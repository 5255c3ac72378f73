"""What a call would change, found by letting it run on paper: its writes are kept, not made."""

from __future__ import annotations

import copy
import dataclasses
import errno
import os
from dataclasses import dataclass
from typing import Any, cast

from sandboxes.base import Sandbox
from tools.types import ToolContext


@dataclass(frozen=True)
class Change:
    """One file's text before and after; None where there is no file. Bad UTF-8 is replaced."""

    path: str
    old: str | None
    new: str | None


_LOOKS = frozenset({"kind", "root", "workspace", "resolve", "relative"})


class Paper:
    """A ``Sandbox`` whose writes go nowhere, and in which nothing can be run."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._written: dict[str, bytes | None] = {}

    def __getattr__(self, name: str) -> Any:
        """What only looks; all else would not be on paper."""
        if name in _LOOKS:
            return getattr(self._sandbox, name)
        raise AttributeError(f"{name} has no preview")

    def shell(self) -> Any:
        """Never: what a command would do cannot be seen without running it."""
        raise RuntimeError("a call that runs commands has no preview")

    def read_bytes(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """See ``base.Sandbox``; a file that was written here is as it would be."""
        name = self._sandbox.relative(path)
        if name not in self._written:
            return self._sandbox.read_bytes(path, max_bytes=max_bytes)
        data = self._written[name]
        if data is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return data if max_bytes is None else data[:max_bytes]

    def write_bytes(self, path: str, data: bytes, *, executable: bool | None = None) -> None:
        """Keep ``data``. Raises ``PathEscape`` as a real write would."""
        self._written[self._sandbox.relative(path)] = data

    def remove(self, path: str) -> None:
        """Keep that the file would go."""
        self._written[self._sandbox.relative(path)] = None

    def changes(self) -> tuple[Change, ...]:
        """The files that would change, in the order in which they were written first."""
        found = []
        for path, data in self._written.items():
            try:
                old = _text(self._sandbox.read_bytes(path))
            except OSError:
                old = None
            new = None if data is None else _text(data)
            if old != new:
                found.append(Change(path, old, new))
        return tuple(found)


def preview_context(context: ToolContext) -> tuple[ToolContext, Paper]:
    """A context like ``context`` in which nothing that happens is kept, and its paper."""
    paper = Paper(context.sandbox)
    fields = {
        field.name: getattr(context, field.name)
        for field in dataclasses.fields(context)
        if field.name != "sandbox"
    }
    for name in ("todos", "seen"):
        fields[name] = copy.deepcopy(fields[name])
    return ToolContext(sandbox=cast(Sandbox, paper), **fields), paper


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
