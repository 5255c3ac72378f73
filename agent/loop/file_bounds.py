"""Bounds of ``--constrain edits``: paths of files that exist, and old text that stands in them.

What a file holds is looked at once a turn, when the model begins to write about it. A file that is
binary, empty or larger than ``along_text.MOST_BYTES``, or that has lines of call markup, bounds
nothing: the tool then says what is wrong, as always.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from model.constraints.along_text import MOST_BYTES, along_text
from model.constraints.call_grammar import ValuePlace
from model.constraints.listed import ListedValue
from model.constraints.text_state import TextState
from sandboxes.base import Sandbox
from sandboxes.errors import SandboxError
from tools.files.places import NOISE
from tools.registry import Registry
from tools.text.replace import NewlineMap
from tools.text.text_file import decode

PATHS = ("file_path", "path")
OLD = ("old_string", "old_str")
NEW_FILES = frozenset({"create"})
"""Commands of an editor tool whose path may be new, or a folder."""
FOLDERS = frozenset({"view"})
MOST_FILES = 50_000


class FileBounds:
    """The bounds of one turn. ``reads`` and ``edits`` are the tools that take a file's path."""

    def __init__(self, sandbox: Sandbox, reads: frozenset[str], edits: frozenset[str]) -> None:
        self._sandbox, self._reads, self._edits = sandbox, reads, edits

    @classmethod
    def of(cls, registry: Registry) -> FileBounds:
        """Return the bounds of a turn with the tools of ``registry``."""
        reads, edits = set(), set()
        for schema in registry.schemas():
            function = schema["function"]
            named = function["parameters"].get("properties", {}).keys()
            kind = registry.kind(function["name"])
            if not named & set(PATHS):
                continue
            if kind == "edit" and named & set(OLD):
                edits.add(function["name"])
            elif kind == "read" and "file_path" in named:
                reads.add(function["name"])
        return cls(registry.context.sandbox, frozenset(reads), frozenset(edits))

    def order(
        self, tool: str, given: Mapping[str, bytes], parameters: Sequence[str]
    ) -> Sequence[str]:
        """Return what an edit begins with: its command if it has one, then the path."""
        if tool not in self._edits:
            return parameters
        for first in ("command", *PATHS):
            if first in parameters:
                return [first]
        return parameters

    def value(
        self, tool: str, parameter: str, given: Mapping[str, bytes], place: ValuePlace
    ) -> TextState | None:
        """Return the state of a path that exists, or of text that stands in the file."""
        if tool not in self._edits | self._reads:
            return None
        command = given.get("command", b"").decode("utf-8", "replace")
        if parameter in PATHS:
            free = command in NEW_FILES | FOLDERS
            return None if free or not self.files else ListedValue(self.files, place)
        if parameter in OLD:
            path = next((given[name] for name in PATHS if given.get(name)), b"")
            text = self._text(path.decode("utf-8", "replace"))
            return along_text(text, place)
        return None

    @cached_property
    def files(self) -> list[bytes]:
        """The paths of all files below the root, sorted; none if there are too many."""
        root = self._sandbox.resolve(".")
        found: list[bytes] = []
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in NOISE]
            below = Path(folder).relative_to(root)
            for name in names:
                path = (below / name).as_posix()
                if _can_be_written(path) and not (Path(folder) / name).is_symlink():
                    found.append(path.encode())
            if len(found) > MOST_FILES:
                return []
        return sorted(found)

    def _text(self, path: str) -> bytes:
        """Return the text of a file as an edit looks for it; empty if there is none."""
        if not path:
            return b""
        try:
            data = self._sandbox.read_bytes(path, max_bytes=MOST_BYTES + 1)
        except (OSError, SandboxError):
            return b""
        file = decode(data) if len(data) <= MOST_BYTES else None
        if file is None:
            return b""
        return NewlineMap(file.text).text.encode("utf-8", "replace")


def _can_be_written(path: str) -> bool:
    """Tell whether a path reads the same out of a value of a call."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\n" not in path and "\r" not in path and path.strip() == path
