"""Run one command and kill all its processes when it ends or its caller is gone.

A program of its own (``python -I -S watch.py FD COMMAND...``), standard library alone. It takes in
every process that its command leaves behind, and kills them all when the command ends or when FD,
the end of a pipe whose other end only the caller holds, says that the caller is gone, however it
went. Linux.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36
_KILL_WITHIN_S = 5.0


def main(arguments: list[str]) -> int:
    """Run ``arguments[1:]`` until it ends or the pipe ``arguments[0]`` closes; its exit code."""
    life = int(arguments[0])
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The caller decides, by the pipe.
        signal.signal(number, signal.SIG_IGN)
    try:
        process = subprocess.Popen(arguments[1:], restore_signals=True, preexec_fn=_reset_signals)
    except OSError as error:
        sys.stderr.write(f"{arguments[1]}: {error.strerror}\n")
        return 127
    # Ours would keep the command's pipes open after it has gone.
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    ended = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(life, select.POLLHUP)
    poll.register(ended, select.POLLIN)
    poll.poll()
    code = process.poll()
    _kill_all()
    return 0 if code is None else code & 0xFF


def _reset_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _kill_all() -> None:
    """Kill everything below this process, until there is nothing."""
    deadline = time.monotonic() + _KILL_WITHIN_S
    while time.monotonic() < deadline:
        below = _find_below(os.getpid())
        if not below:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in below:
                try:
                    os.kill(pid, number)
                except OSError:
                    continue
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.005)


def _find_below(top: int) -> list[int]:
    """Return the processes that ``top`` started, and those that these started."""
    parents = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 (this program imports as little as it can)
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
    seen = {top}
    reached = [top]
    while reached:
        above = reached.pop()
        for pid, parent in parents.items():
            if parent == above and pid not in seen:
                seen.add(pid)
                reached.append(pid)
    return sorted(seen - {top})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
