"""Output of a command: its head and tail in memory, the whole in a file if it is long."""

from __future__ import annotations

import codecs
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

FILE_BYTES = 64 * 1024**2
FOLDER_BYTES = 256 * 1024**2


class CommandOutput:
    """The first and the last half of what came, the rest counted."""

    def __init__(
        self,
        limit: int,
        on_output: Callable[[str], None] | None = None,
        whole: OutputFile | None = None,
    ) -> None:
        self._head_limit = limit // 2
        self._tail_limit = limit - self._head_limit
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._on_output = on_output
        self._whole = whole
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.dropped = 0

    def add(self, data: bytes) -> None:
        """Take in what came."""
        if not data:
            return
        if self._whole is not None:
            self._whole.add(data)
        if self._on_output is not None and (text := self._decoder.decode(data)):
            self._on_output(text)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size - len(self._tail[0]) >= self._tail_limit:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self.dropped += gone
        extra = self._tail_size - self._tail_limit
        if extra > 0:
            self._tail[0] = self._tail[0][extra:]
            self._tail_size -= extra
            self.dropped += extra

    def finish(self) -> None:
        """Pass on a last character that came in part."""
        if self._on_output is not None and (text := self._decoder.decode(b"", True)):
            self._on_output(text)

    def text(self) -> str:
        """Return what is kept, with a line in place of what is not."""
        head, tail = bytes(self._head), b"".join(self._tail)
        if not self.dropped:
            return (head + tail).decode("utf-8", "replace")
        note = f"\n[... {self.dropped} bytes left out ...]\n"
        return head.decode("utf-8", "replace") + note + tail.decode("utf-8", "replace")


@dataclass
class OutputFolder:
    """The folder on the host in which long outputs are kept; ``shown`` is its path inside.

    Commands may read it and not write to it. One file holds at most ``FILE_BYTES``, all together
    about ``FOLDER_BYTES``: the oldest go first.
    """

    folder: Path
    shown: str
    _count: int = 0
    _sizes: dict[Path, int] = field(default_factory=dict)

    def start(self, over: int) -> OutputFile:
        """Return a file for the next command, made once more than ``over`` bytes have come."""
        self._count += 1
        return OutputFile(self, f"{self._count}.txt", over)

    def make_room(self) -> None:
        """Remove the oldest files, so that one more fits."""
        while self._sizes and sum(self._sizes.values()) > FOLDER_BYTES - FILE_BYTES:
            oldest = next(iter(self._sizes))
            del self._sizes[oldest]
            oldest.unlink(missing_ok=True)

    def note(self, path: Path, size: int) -> None:
        """Remember how large a file has become."""
        self._sizes[path] = size


class OutputFile:
    """The file of one command's output. Nothing here raises: a full disk costs the file alone."""

    def __init__(self, outputs: OutputFolder, name: str, over: int) -> None:
        self._outputs = outputs
        self._path = outputs.folder / name
        self._shown = f"{outputs.shown}/{name}"
        self._over = over
        self._begun = bytearray()
        self._file: IO[bytes] | None = None
        self._failed = False
        self.size = 0
        self.lost = 0

    @property
    def path(self) -> str | None:
        """The file's path inside the sandbox, or None if there is no file."""
        return self._shown if self._file is not None and not self._failed else None

    def add(self, data: bytes) -> None:
        """Take in what came."""
        if self._failed:
            return
        if self._file is None:
            self._begun += data
            if len(self._begun) > self._over:
                self._open()
            return
        self._write(data)

    def close(self) -> None:
        """Close the file, as nothing more comes."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._outputs.make_room()
            self._outputs.folder.mkdir(mode=0o755, exist_ok=True)
            fd = os.open(self._path, flags, 0o644)
            os.fchmod(fd, 0o644)
            self._file = os.fdopen(fd, "wb", buffering=0)
        except OSError:
            self._failed = True
            return
        begun, self._begun = bytes(self._begun), bytearray()
        self._write(begun)

    def _write(self, data: bytes) -> None:
        part = data[: FILE_BYTES - self.size]
        self.lost += len(data) - len(part)
        view = memoryview(part)
        try:
            assert self._file is not None
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            self._failed = True
        self.size += len(part)
        self._outputs.note(self._path, self.size)
