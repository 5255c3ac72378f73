"""Watching how much disk a sandbox fills, where the file system keeps no quota for us.

The kernel bounds one file, not their sum. So a thread looks at the free space several times a
second, and measures the folder when much of it went, or some time has passed. Over the limit, or
with hardly any space left, all that runs in the sandbox is killed, and again for as long as the
folder grows; what is there stays, for a command to remove. Between two looks a command can write
what the disk takes in that time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sandboxes.errors import SandboxError

LOOK_EVERY_S = 0.25
MEASURE_EVERY_S = 5.0
STEP_BYTES = 64 * 1024**2
RESERVE_BYTES = 256 * 1024**2


class DiskWatch:
    """Calls ``kill_all`` on a thread of its own when ``top`` holds more than ``limit_mb``.

    ``spared`` are bytes that do not count: what an image had there.
    """

    def __init__(
        self, top: Path, limit_mb: int, kill_all: Callable[[], None], spared: int = 0
    ) -> None:
        self._top = top
        self._limit = limit_mb * 1024**2 + spared
        self._kill_all = kill_all
        self._over = threading.Event()
        self._done = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="disk-watch", daemon=True)
        self._thread.start()

    def trouble(self) -> str:
        """Why everything was killed, told once; else nothing."""
        told, self._trouble = self._trouble, ""
        return told

    def end(self) -> None:
        """Stop watching."""
        self._done.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        free = measured_free = _free(self._top)
        last = 0
        measured = time.monotonic()
        # The walk takes its time on a large tree: look at it for a twentieth of the time at most.
        pause = MEASURE_EVERY_S
        while not self._done.wait(LOOK_EVERY_S):
            free = _free(self._top)
            short = free < RESERVE_BYTES
            due = time.monotonic() - measured >= pause
            if not (short or due or measured_free - free >= STEP_BYTES):
                continue
            began = time.monotonic()
            used = disk_usage(self._top)
            measured, measured_free = time.monotonic(), free
            pause = max(MEASURE_EVERY_S, 20 * (measured - began))
            if (used > self._limit or short) and used > last:
                self._stop(used, short=used <= self._limit)
            last = used

    def _stop(self, used: int, *, short: bool) -> None:
        if self._done.is_set():
            return
        if short:
            self._trouble = "the disk has hardly any space left, so all that ran was killed"
        else:
            self._trouble = (
                f"the repository's folder grew to {used // 1024**2} MB, over its limit of "
                f"{self._limit // 1024**2} MB, so all that ran was killed; remove what is not "
                "needed"
            )
        try:
            self._kill_all()
        except (SandboxError, OSError):
            return


def disk_usage(top: Path) -> int:
    """Return the bytes that files below ``top`` take on disk. Follows no link, never raises."""
    total = 0
    seen: set[tuple[int, int]] = set()
    waiting = [os.fspath(top)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if (found.st_dev, found.st_ino) in seen:
                            continue
                        seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:  # gone meanwhile, or not ours to read
            continue
    return total


def _free(top: Path) -> int:
    try:
        found = os.statvfs(top)
    except OSError:
        return 1 << 62
    return found.f_bavail * found.f_frsize
