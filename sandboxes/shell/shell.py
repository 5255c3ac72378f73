"""One bash kept open, spoken to over two pipes.

Bash reads the records of ``bash.py`` from one pipe and writes all output into the other. A command
is over when the nonce of its end mark is seen, which bash learns after the command itself; so the
mark comes after all that the command wrote, and no command can print its own.

``exit``, ``set -e``, ``exec`` and a time-out end the bash. Its last act is then to print its folder
and its exported variables, with which the next one starts; its exit code comes from the host. Where
a command may end it past that (``exec``, its own traps), the state before the command counts.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sandboxes.base import ExecResult, Running
from sandboxes.errors import SandboxGone, ShellBusy
from sandboxes.shell.bash import command_records, shell_command
from sandboxes.shell.command_output import CommandOutput, OutputFile, OutputFolder
from sandboxes.stop import Stop

POLL_S = 0.1
ALIVE_EVERY_S = 0.2
GRACE_S = 1.0
START_TIMEOUT_S = 30.0
_STATE_BYTES = 1 << 20
_MARKER = re.compile(rb"\036[0-9a-f]+:(\d+):\036")
# More than any marker has: two control characters, a nonce, a pid or code, two colons.
_MARKER_BYTES = 64
_LEAVING_S = 0.005
KILLED = 137


class Stream(Protocol):
    """The two directions of a started shell."""

    def read(self, timeout_s: float) -> bytes | None:
        """Return what has come within ``timeout_s``; None if nothing has, b"" at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Send all of ``data``. Raises ``OSError`` if the shell does not take it."""
        ...

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of the ended shell ``pid``, 128 + N after signal N; None if unknown.

        Raises ``SandboxGone``.
        """
        ...

    def close(self) -> None:
        """Let go of it. Never raises."""
        ...


class ShellHost(Protocol):
    """Service of a sandbox to its shell. ``pid`` is the shell's own idea of its process id."""

    def start_shell(self, command: list[str], slot: int) -> Stream:
        """Start ``command`` in the workspace root. Raises ``SandboxGone``.

        A sandbox has one shell in each slot at a time.
        """
        ...

    def shell_lives(self, pid: int) -> bool:
        """Tell whether the shell is there and not stopped. Raises ``SandboxGone``."""
        ...

    def stop_command(self, pid: int, since_s: float) -> None:
        """Signal USR1 to the shell, then kill all that was started in the last ``since_s``.

        What a process from before that time started is spared. Raises ``SandboxGone``.
        """
        ...

    def interrupt_command(self, pid: int, since_s: float) -> None:
        """Send SIGINT to what ``stop_command`` would kill. Raises ``SandboxGone``."""
        ...

    def trouble(self) -> str:
        """Why the sandbox itself killed what ran, told once; else nothing."""
        ...

    def kill_shell(self, pid: int) -> None:
        """Kill the shell. Raises ``SandboxGone``."""
        ...


@dataclass
class _Live:
    """A started shell. ``state`` is what it last printed of its own, ``leaving`` that it ends."""

    stream: Stream
    pid: int
    started: float
    token: bytes
    pending: bytes = b""
    state: bytes | None = None
    leaving: bool = False


@dataclass
class _Job:
    """The command that a shell runs, from its start to its end."""

    live: _Live
    command: str
    nonce: str
    began: float
    heard: float
    whole: OutputFile | None


@dataclass(frozen=True)
class _Patience:
    """Limits on the wait for a command. ``kills`` says what becomes of it at ``deadline``."""

    deadline: float
    kills: bool
    silence_s: float | None
    stop: Stop | None


class BashShell:
    """The ``Shell`` of every sandbox (see ``base.py``), over a ``ShellHost``."""

    def __init__(
        self,
        host: ShellHost,
        *,
        output_bytes: int,
        outputs: OutputFolder | None = None,
        slot: int = 0,
    ) -> None:
        self._host = host
        self._output_bytes = output_bytes
        self._outputs = outputs
        self._slot = slot
        self._live: _Live | None = None
        self._job: _Job | None = None
        self._carried: bytes | None = None

    @property
    def pid(self) -> int:
        """The shell's own idea of its process id; 0 if there is no shell."""
        return self._live.pid if self._live is not None else 0

    def run(
        self,
        command: str,
        *,
        timeout_s: float,
        silence_s: float | None = None,
        save_over: int | None = None,
        on_output: Callable[[str], None] | None = None,
        stop: Stop | None = None,
    ) -> ExecResult:
        if self._job is not None:
            raise ShellBusy("an earlier command still runs in the shell; wait for it or stop it")
        live = self._ready()
        began = time.monotonic()
        saves = save_over is not None and self._outputs is not None
        whole = self._outputs.start(save_over) if saves else None  # type: ignore[union-attr,arg-type]
        job = _Job(live, command, secrets.token_hex(8), began, began, whole)
        self._job = job
        patience = _Patience(began + timeout_s, True, silence_s, stop)
        text = command.replace("\0", "").encode("utf-8", "surrogateescape")
        return self._go_on(job, patience, on_output, command_records(text, job.nonce))

    def running(self) -> Running | None:
        if (job := self._job) is None:
            return None
        now = time.monotonic()
        return Running(job.command, now - job.began, now - job.heard)

    def wait(
        self,
        *,
        timeout_s: float,
        on_output: Callable[[str], None] | None = None,
        stop: Stop | None = None,
    ) -> ExecResult:
        patience = _Patience(time.monotonic() + timeout_s, False, None, stop)
        return self._go_on(self._current(), patience, on_output)

    def interrupt(self) -> None:
        if (job := self._job) is not None:
            self._host.interrupt_command(job.live.pid, time.monotonic() - job.began)

    def stop(self) -> ExecResult:
        return self._go_on(self._current(), _Patience(0.0, True, None, None), None)

    def close(self) -> None:
        """Close the shell. A later ``run`` starts a new one, if the sandbox is open."""
        live = self._live
        self._carried = None
        self._end_job()
        if live is not None:
            with suppress(SandboxGone, OSError):
                self._host.stop_command(live.pid, time.monotonic() - live.started)
            with suppress(SandboxGone, OSError):
                self._drop(live)

    def let_go(self) -> None:
        """Forget the shell, which ends or has ended with its sandbox."""
        live, self._live = self._live, None
        self._carried = None
        self._end_job()
        if live is not None:
            live.stream.close()

    def _current(self) -> _Job:
        if self._job is None:
            raise ValueError("no command is running in the shell")
        return self._job

    def _end_job(self) -> None:
        job, self._job = self._job, None
        if job is not None and job.whole is not None:
            job.whole.close()

    def _go_on(
        self,
        job: _Job,
        patience: _Patience,
        on_output: Callable[[str], None] | None,
        send: bytes = b"",
    ) -> ExecResult:
        """Follow ``job`` to its end or to that of our patience, and say what it gave since."""
        live = job.live
        output = CommandOutput(self._output_bytes, on_output, job.whole)
        code: int | None = None
        how = "died"
        try:
            if send:
                live.state, live.leaving = None, False
                live.stream.write(send)
            code, how = self._follow(job, output, patience)
            if how == "stop":
                self._stop(live, job.nonce, output, job.began)
        except OSError:
            pass
        except BaseException:
            # Interrupted: nothing may go on running behind the caller's back.
            self._end_job()
            self._abandon(live, job.began)
            raise
        output.finish()
        cause = ""
        if how != "running":
            self._end_job()
        if how == "died":
            cause = self._host.trouble()
            code = None if cause or live.state is None else live.stream.exit_code(live.pid)
            code = None if code == KILLED else code
            how = "died" if code is None else "left"
        if how in ("died", "left", "stop"):
            self._carried = None if how == "died" else live.state
            self._drop(live)
        return ExecResult(
            output=output.text(),
            exit_code=code,
            duration_s=time.monotonic() - job.began,
            timed_out=how == "stop",
            shell_died=how == "died",
            dropped_bytes=output.dropped,
            running=how == "running",
            saved=job.whole.path if job.whole else None,
            saved_lost=job.whole.lost if job.whole else 0,
            cause=cause,
        )

    def _ready(self) -> _Live:
        """Return the live shell with nothing left to read, or a new one if it ended meanwhile."""
        if self._live is not None:
            if _discard(self._live):
                return self._live
            self._drop(self._live)
        return self._start()

    def _start(self) -> _Live:
        token = secrets.token_hex(8)
        stream = self._host.start_shell(shell_command(token), self._slot)
        live = _Live(stream, 0, time.monotonic(), token.encode())
        try:
            output = CommandOutput(4096)
            deadline = time.monotonic() + START_TIMEOUT_S
            pid = self._until_marker(live, token, output, deadline)
            if pid is None:
                said = output.text().strip() or "nothing"
                raise SandboxGone(f"bash did not start in the sandbox; it said: {said[:200]}")
            live.pid = pid
            self._live = live
            if self._carried:
                self._restore(live, self._carried)
        except BaseException:
            self._live = None
            stream.close()
            raise
        self._carried = None
        return live

    def _restore(self, live: _Live, left: bytes) -> None:
        """Give a new shell the folder and the exported variables of the one before."""
        folder, _, exports = left.partition(b"\0")
        quoted = b"'" + folder.replace(b"'", b"'\\''") + b"'"
        nonce = secrets.token_hex(8)
        script = b"{ " + exports + b"\ncd -- " + quoted + b"; } 2>/dev/null"
        live.stream.write(command_records(script, nonce))
        self._until_marker(live, nonce, CommandOutput(0), time.monotonic() + START_TIMEOUT_S)

    def _follow(
        self, job: _Job, output: CommandOutput, patience: _Patience
    ) -> tuple[int | None, str]:
        """Read until the command ``ended`` or ``died``, is to ``stop``, or is left ``running``."""
        live = job.live
        asked = checked = time.monotonic()
        while True:
            now = time.monotonic()
            if patience.stop is not None and now - asked >= POLL_S:
                asked = now
                if patience.stop.is_set():
                    return None, "stop"
            left = patience.deadline - now
            turn = _LEAVING_S if live.leaving else POLL_S
            data = live.stream.read(min(turn, max(left, 0.0)))
            if data == b"":
                self._flush(live, output)
                return None, "died"
            if data:
                job.heard = now
                if (code := self._take(live, job.nonce, output, data)) is not None:
                    return code, "ended"
            elif live.leaving or now - checked >= ALIVE_EVERY_S:
                checked = now
                if not self._host.shell_lives(live.pid):
                    # Its last words may still be on the way.
                    wait = _LEAVING_S if live.leaving else POLL_S
                    code = self._until_marker(live, job.nonce, output, now + wait)
                    return code, "ended" if code is not None else "died"
            if left <= 0:
                return None, "stop" if patience.kills else "running"
            if patience.silence_s is not None and now - job.heard >= patience.silence_s:
                return None, "running"

    def _until_marker(
        self, live: _Live, nonce: str, output: CommandOutput, deadline: float
    ) -> int | None:
        """Return the number in the marker of ``nonce``, or None if it does not come in time."""
        while (left := deadline - time.monotonic()) > 0:
            data = live.stream.read(min(POLL_S, left))
            if data == b"":
                break
            if data and (code := self._take(live, nonce, output, data)) is not None:
                return code
        self._flush(live, output)
        return None

    def _take(self, live: _Live, nonce: str, output: CommandOutput, data: bytes) -> int | None:
        """Pass on output up to the marker; keep what may be the start of one for the next time."""
        start = b"\036" + nonce.encode() + b":"
        live.pending += data
        at = live.pending.find(start)
        if at >= 0:
            found = _MARKER.match(live.pending, at)
            if found is None:
                return None  # it cannot be anything else: no command knows the nonce
            rest = live.pending[found.end() :]
            live.pending = live.pending[:at]
            self._flush(live, output)
            live.pending = rest
            return int(found[1])
        self._take_states(live, output)
        keep = len(live.pending)
        if not live.pending.startswith(b"\036" + live.token + b":"):
            keep = max(_possible_start(live.pending, s) for s in (start, b"\036" + live.token))
        elif len(live.pending) > _STATE_BYTES:
            keep = 0
        output.add(live.pending[: len(live.pending) - keep])
        live.pending = live.pending[len(live.pending) - keep :]
        return None

    def _take_states(self, live: _Live, output: CommandOutput) -> None:
        """Take what the shell says of itself out of ``live.pending``, with all before it.

        A command can print the like: that misleads the shell that comes after its own.
        """
        start = b"\036" + live.token + b":"
        while (at := live.pending.find(start)) >= 0:
            output.add(live.pending[:at])
            live.pending = live.pending[at:]
            if live.pending.startswith(start + b"x\036"):
                live.leaving = True
                live.pending = live.pending[len(start) + 2 :]
                continue
            left, ended, rest = live.pending.partition(start + b"end\036")
            if not ended:
                return
            live.state, live.pending = left[len(start) :], rest

    def _flush(self, live: _Live, output: CommandOutput) -> None:
        """Take all that is pending: what is no state is output."""
        self._take_states(live, output)
        output.add(live.pending)
        live.pending = b""

    def _stop(self, live: _Live, nonce: str, output: CommandOutput, began: float) -> None:
        """Kill what the command started and make the shell end."""
        deadline = time.monotonic() + GRACE_S
        while time.monotonic() < deadline and not live.leaving:
            self._host.stop_command(live.pid, time.monotonic() - began)
            turn = min(deadline, time.monotonic() + POLL_S)
            self._until_leaving(live, nonce, output, turn)

    def _until_leaving(
        self, live: _Live, nonce: str, output: CommandOutput, deadline: float
    ) -> None:
        while (left := deadline - time.monotonic()) > 0 and not live.leaving:
            data = live.stream.read(min(POLL_S, left))
            if data == b"":
                live.leaving = True
            elif data:
                self._take(live, nonce, output, data)

    def _abandon(self, live: _Live, began: float) -> None:
        try:
            self._host.stop_command(live.pid, time.monotonic() - began)
            self._drop(live)
        except SandboxGone:
            self.let_go()

    def _drop(self, live: _Live) -> None:
        """Let go of a shell that ended or is to end."""
        self._live = None
        try:
            self._host.kill_shell(live.pid)
        finally:
            live.stream.close()


def _possible_start(text: bytes, start: bytes) -> int:
    """Return how many bytes at the end of ``text`` may be the first ones of ``start``."""
    at = text.rfind(b"\036", max(0, len(text) - len(start) + 1))
    return len(text) - at if at >= 0 and start.startswith(text[at:]) else 0


def _discard(live: _Live) -> bool:
    """Forget what background processes printed since the last command ended. False at the end."""
    live.pending = b""
    for _ in range(1000):
        data = live.stream.read(0)
        if not data:
            return data is None
    return True
