"""The line at the bottom of a terminal that says what is under way, and for how long."""

from __future__ import annotations

import threading
import time

from rich.cells import cell_len
from rich.console import Console

from agent.text import visible

TOLD_AFTER_S = 1.0
_EVERY_S = 0.25
_CLEAR = "\r\x1b[K"


class Status:
    """One line that is drawn over itself until it ends; at most one at a time.

    ``lock`` is held while the line is drawn or taken away, so that whoever prints holds it too.
    """

    def __init__(self, console: Console, lock: threading.RLock) -> None:
        self._console, self._lock = console, lock
        self._terminal = console.is_terminal and not console.is_dumb_terminal
        self.clock = time.monotonic
        self._what = ""
        self._detail = ""
        self._since = 0.0
        self._thread: threading.Thread | None = None

    def begin(self, what: str) -> None:
        """Say that ``what`` is under way; its time counts from now."""
        with self._lock:
            self._what, self._detail, self._since = what, "", self.clock()
            self.draw()

    def say(self, what: str) -> None:
        """Say anew what is under way; its time goes on."""
        with self._lock:
            self._what = what
            self.draw()

    def detail(self, text: str) -> None:
        """Say more of what is under way; nothing happens if nothing is."""
        with self._lock:
            self._detail = text

    def end(self) -> None:
        """Take the line away. May be called when there is none."""
        with self._lock:
            if self._what:
                self._what = ""
                self._write(_CLEAR)

    def draw(self) -> None:
        """Draw the line, with its time once that is a second."""
        with self._lock:
            if not self._what:
                return
            seconds = self.clock() - self._since
            took = f" · {duration(seconds)}" if seconds >= TOLD_AFTER_S else ""
            room = self._console.width - 1
            head = cut(_plain(self._what), room - cell_len(took)) + took
            if self._detail:
                head = cut(f"{head} · {_plain(self._detail)}", room)
            self._write(_CLEAR + head)

    def keep_drawing(self) -> None:
        """Draw again and again on a thread of its own, until the process ends."""
        if self._thread is None and self._terminal:
            self._thread = threading.Thread(target=self._redraw, name="status", daemon=True)
            self._thread.start()

    def _write(self, text: str) -> None:
        if self._terminal:
            self._console.file.write(text)
            self._console.file.flush()

    def _redraw(self) -> None:
        pause = threading.Event()
        while not pause.wait(_EVERY_S):
            self.draw()


def _plain(text: str) -> str:
    return " ".join(visible(text).split())


def duration(seconds: float) -> str:
    """Return ``3 s``, ``2 min 05 s`` or ``1 h 20 min``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def cut(text: str, cells: int) -> str:
    """Return the beginning of ``text`` that fits ``cells`` columns."""
    if cell_len(text) <= cells:
        return text
    kept, used = [], 1
    for character in text:
        used += cell_len(character)
        if used > cells:
            break
        kept.append(character)
    return "".join(kept) + "…"
