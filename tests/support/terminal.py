"""A pseudo-terminal: a program in it, keys typed, and the screen read as a person would."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pexpect
import pyte

STEP_S = 0.05


class Terminal:
    """One program in a terminal of ``columns`` by ``rows``, drawn by pyte.

    ``raw`` is every byte that the program wrote.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        columns: int = 80,
        rows: int = 40,
    ) -> None:
        self.raw = b""
        self.screen = pyte.HistoryScreen(columns, rows, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.child: Any = pexpect.spawn(
            command[0],
            list(command[1:]),
            cwd=str(cwd),
            env={**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", **env},
            dimensions=(rows, columns),
            timeout=None,
        )
        self.child.delaybeforesend = None

    def type(self, text: str) -> None:
        """Type ``text``; ``\\r`` is Enter and ``\\x1b`` is Esc."""
        self.child.send(text)

    def read(self) -> None:
        """Take in what the program has written by now; answer when it asks where the cursor is."""
        try:
            while True:
                data = self.child.read_nonblocking(65536, timeout=STEP_S)
                self.raw += data
                self._stream.feed(data)
                if b"\x1b[6n" in data:
                    cursor = self.screen.cursor
                    self.child.send(f"\x1b[{cursor.y + 1};{cursor.x + 1}R")
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass

    @property
    def text(self) -> str:
        """All lines, those that scrolled away first."""
        gone = [
            "".join(line[x].data for x in range(self.screen.columns)).rstrip()
            for line in self.screen.history.top
        ]
        return "\n".join([*gone, *(line.rstrip() for line in self.screen.display)])

    def wait(self, until: str | Callable[[str], bool], within_s: float = 60.0) -> str:
        """Read until ``until`` stands on the screen; return all text. Raises ``AssertionError``."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            self.read()
            text = self.text
            if until in text if isinstance(until, str) else until(text):
                return text
            if not self.child.isalive():
                self.read()
                break
        raise AssertionError(f"never came: {until!r}\n{self.text}")

    def resize(self, columns: int, rows: int) -> None:
        """Change the terminal's size, as a window manager does."""
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def end(self, within_s: float = 30.0) -> int | None:
        """Wait for the program's end; return its exit code, None if a signal ended it."""
        deadline = time.monotonic() + within_s
        while self.child.isalive() and time.monotonic() < deadline:
            self.read()
        self.read()
        assert not self.child.isalive(), self.text
        code: int | None = self.child.exitstatus
        return code

    def close(self) -> None:
        """Kill the program."""
        if not self.child.closed and self.child.isalive():
            self.child.kill(signal.SIGKILL)
            self.child.wait()
        self.child.close(force=True)
