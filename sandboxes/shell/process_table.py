"""Processes of a sandbox that runs on the host's own process table: finding and killing them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Process start times count in ticks, and our own clock was read a little later.
SLACK_TICKS = 2
KILL_WITHIN_S = 3.0
WRITE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Process:
    """One line of the process table. ``start`` is in ticks after boot."""

    pid: int
    parent: int
    group: int
    session: int
    start: int
    zombie: bool
    stopped: bool


class PipeStream:
    """A ``shell.Stream`` over the pipes of a child process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.process = process
        self._in = process.stdin.fileno()
        self._out = process.stdout.fileno()
        os.set_blocking(self._in, False)
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)

    def read(self, timeout_s: float) -> bytes | None:
        if not self._poll.poll(timeout_s * 1000):
            return None
        return os.read(self._out, 1 << 16)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        deadline = time.monotonic() + WRITE_TIMEOUT_S
        while view:
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError("the shell does not read its commands") from None
                select.select([], [self._in], [], 0.1)

    def exit_code(self, pid: int) -> int | None:
        try:
            code = self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        """Close the pipes and reap the process if it has ended or ends at once."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1.0)


def process_table() -> dict[int, Process]:
    """Return every process that can be seen, by pid."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (found := read_process(int(entry.name))) is not None:
            table[found.pid] = found
    return table


def read_process(pid: int) -> Process | None:
    """One process, or None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The name in the middle may hold anything, so count from its closing bracket.
    fields = stat.rpartition(b")")[2].split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start=int(fields[19]),
        zombie=fields[0] in (b"Z", b"X"),
        stopped=fields[0] in (b"T", b"t"),
    )


def now_ticks() -> int:
    """Return the time since boot, on the clock that process start times use."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_S)


def started_since(
    table: Mapping[int, Process],
    members: Iterable[int],
    ticks: int,
    shell: int,
    spared: Collection[int] = (),
) -> list[int]:
    """Return members started at or after ``ticks``, less what older members but the shell started.

    The ``spared``, and what they started, are left out too. So a server that an earlier command
    left running keeps the workers it starts later.
    """
    inside = set(members)

    def of_older(process: Process) -> bool:
        seen = set()
        parent = table.get(process.parent)
        while parent is not None and parent.pid in inside and parent.pid not in seen:
            if parent.pid != shell and (parent.start < ticks or parent.pid in spared):
                return True
            seen.add(parent.pid)
            parent = table.get(parent.parent)
        return False

    return [
        pid
        for pid in inside
        if pid != shell
        and pid not in spared
        and (process := table.get(pid)) is not None
        and not process.zombie
        and process.start >= ticks
        and not of_older(process)
    ]


def kill_until_none(find: Callable[[], list[int]]) -> bool:
    """Kill what ``find`` returns until it returns nothing. True if that was reached.

    All are stopped before the first is killed, else a fork bomb outruns us.
    """
    deadline = time.monotonic() + KILL_WITHIN_S
    while time.monotonic() < deadline:
        stopped: set[int] = set()
        for _ in range(10):
            fresh = [pid for pid in find() if pid not in stopped]
            if not fresh:
                break
            send(fresh, signal.SIGSTOP)
            stopped.update(fresh)
        if not stopped:
            return True
        send(stopped, signal.SIGKILL)
        time.sleep(0.005)
    return False


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each, whether or not it is still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
