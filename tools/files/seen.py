"""The file contents that the model knows: as it read them, or as its own edits left them."""

from __future__ import annotations

import difflib
import hashlib

from tools.errors import ToolFailure
from tools.text.text_file import decode
from tools.text.truncate import cut_line

_KEPT_BYTES = 1_000_000
_VERSIONS = 10
_DIFF_LINES = 80
_DIFF_LINE_CHARACTERS = 300


class SeenFiles:
    """The known contents by path from the workspace root, links followed."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, bytes | None]] = {}
        self._versions: dict[str, list[bytes | None]] = {}
        self._news: dict[str, bytes] = {}

    def __copy__(self) -> SeenFiles:
        """Return an independent copy, for a call that is only previewed."""
        other = SeenFiles()
        other._files = dict(self._files)
        other._versions = {real: list(kept) for real, kept in self._versions.items()}
        return other

    def note(self, real: str, data: bytes) -> None:
        """Note that the model knows ``data`` as the content of ``real``."""
        kept = data if len(data) <= _KEPT_BYTES else None
        known, digest = self._files.get(real), _hash(data)
        self._files[real] = (digest, kept)
        if kept is not None and (known is None or known[0] != digest):
            self._news[real] = kept

    def take_news(self) -> list[bytes]:
        """Return the contents that the model has come to know since this was last asked."""
        news, self._news = self._news, {}
        return list(news.values())

    def forget(self, real: str) -> None:
        """Forget the content of one file."""
        self._files.pop(real, None)

    def clear(self) -> None:
        """Forget every file: the tree was put back to another state."""
        self._files.clear()
        self._versions.clear()

    def keep_version(self, real: str, data: bytes | None) -> None:
        """Keep what the file was before a change (None: not there), for an undo."""
        if data is None or len(data) <= _KEPT_BYTES:
            self._versions[real] = [*self._versions.get(real, []), data][-_VERSIONS:]
        else:
            self._versions.pop(real, None)

    def has_version(self, real: str) -> bool:
        """Return whether a change of the file can be taken back."""
        return bool(self._versions.get(real))

    def take_version(self, real: str) -> bytes | None:
        """Return what the file was before its last change, and forget that change."""
        return self._versions[real].pop()

    @property
    def paths(self) -> frozenset[str]:
        """The paths of the files that the model knows."""
        return frozenset(self._files)

    def refuse_if_changed(self, shown: str, real: str, data: bytes) -> None:
        """Raise ``ToolFailure`` if the model knows the file with another content than ``data``."""
        known = self._files.get(real)
        if known is None or known[0] == _hash(data):
            return
        raise ToolFailure(
            f"Nothing was changed: {shown} is not what it was when you last read or wrote it; "
            "a command or somebody else changed it since. Read it again with read_file, then "
            f"repeat the edit if it still fits.{_diff(known[1], data)}"
        )


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=20).digest()


def _diff(before: bytes | None, after: bytes) -> str:
    """Return what changed, as a diff; empty if it cannot be shown."""
    old, new = (None if data is None else decode(data) for data in (before, after))
    if old is None or new is None:
        return ""
    lines = [
        cut_line(line, _DIFF_LINE_CHARACTERS)
        for line in difflib.unified_diff(_to_lines(old.text), _to_lines(new.text), n=1, lineterm="")
    ][2:]
    if not lines:
        return " The difference is in its encoding or its line endings."
    if len(lines) > _DIFF_LINES:
        left = len(lines) - _DIFF_LINES
        lines = [*lines[:_DIFF_LINES], f"[... {left} more lines of difference ...]"]
    return " The difference:\n" + "\n".join(lines)


def _to_lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").split("\n")
