"""Preview a call: run it over a sandbox that keeps its writes instead of making them."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import errno
import os
from dataclasses import dataclass
from typing import Any, cast

from sandboxes.base import Sandbox
from tools.types import ToolContext


@dataclass(frozen=True)
class Change:
    """The text of one file before and after; None where there is no file. Bad UTF-8 is replaced."""

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
        """Allow only what reads."""
        if name in _LOOKS:
            return getattr(self._sandbox, name)
        raise AttributeError(f"{name} has no preview")

    def shell(self) -> Any:
        """Refuse: a command's changes cannot be seen without running it."""
        raise RuntimeError("a call that runs commands has no preview")

    def read_bytes(self, path: str, *, max_bytes: int | None = None) -> bytes:
        """Read a file as it would be after the writes so far."""
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
        """Keep that the file would be removed."""
        self._written[self._sandbox.relative(path)] = None

    def changes(self) -> tuple[Change, ...]:
        """Return the files that would change, in the order of their first write."""
        found = []
        for path, data in self._written.items():
            try:
                old = _decode(self._sandbox.read_bytes(path))
            except OSError:
                old = None
            new = None if data is None else _decode(data)
            if old != new:
                found.append(Change(path, old, new))
        return tuple(found)


def preview_context(context: ToolContext) -> tuple[ToolContext, Paper]:
    """Return a copy of ``context`` whose writes go to a ``Paper``, and that paper."""
    paper = Paper(context.sandbox)
    fields = {
        field.name: getattr(context, field.name)
        for field in dataclasses.fields(context)
        if field.name != "sandbox"
    }
    for name in ("todos", "seen"):
        fields[name] = copy.deepcopy(fields[name])
    return ToolContext(sandbox=cast(Sandbox, paper), **fields), paper


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def diff_lines(change: Change) -> list[str]:
    """Return the change as the lines of a unified diff."""
    old = (change.old or "").splitlines()
    new = (change.new or "").splitlines()
    names = (
        "/dev/null" if change.old is None else f"a/{change.path}",
        "/dev/null" if change.new is None else f"b/{change.path}",
    )
    found = list(difflib.unified_diff(old, new, *names, lineterm=""))
    return found or [f"{change.path}: only line ends change"]
