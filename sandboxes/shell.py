"""One bash kept open, driven over a byte stream: the same protocol for every sandbox.

The host sends a random nonce and a command, each ended by NUL. Bash evals the command with its
stdin at /dev/null and both outputs on the stream, then prints the nonce and the exit code between
two control characters. The nonce is new for each command, so no output can end one by accident.
Both go through one pipe, so the marker comes after all that the command itself wrote.

``exit``, ``set -e`` and a time-out end the bash. Its last act is then to print its folder and its
exported variables, with which the next one starts.
"""

from __future__ import annotations

import codecs
import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sandboxes.base import ExecResult
from sandboxes.errors import SandboxGone

POLL_S = 0.1
ALIVE_EVERY_S = 0.2
GRACE_S = 1.0
START_TIMEOUT_S = 30.0
_STATE_BYTES = 1 << 20
_MARKER = re.compile(rb"\036[0-9a-f]+:(\d+):(x?)\036")
# More than any marker has: two control characters, a nonce, a pid or code, two colons, an x.
_MARKER_BYTES = 64

# fd 60 brings the commands and is closed for them; fd 61 is the stream that they write to.
# A signal that is trapped while a command runs is handled before the next command of its list
# starts, so after USR1 and the death of what runs nothing more of the list is done.
_SETUP = r"""
exec 60<&0 61>&1 2>&1 </dev/null
__tenuto_nonce=$2
__tenuto_end() {
  local code=$?
  trap - EXIT USR1
  {
    builtin printf '\036%s:%s:x\036%s\0' "$__tenuto_nonce" "$code" "$PWD"
    builtin declare -px
    builtin printf '\036%s:end\036' "$__tenuto_nonce"
  } >&61 2>/dev/null
}
trap __tenuto_end EXIT
trap 'exit 143' USR1
builtin printf '\036%s:%s:\036' "$2" "$BASHPID"
"""
# All on one line, so that bash counts the lines of a command from 1 in its messages.
_LOOP = (
    'builtin eval "$1"; set --; '
    "while IFS= builtin read -r -d '' -u 60 __tenuto_nonce && "
    "IFS= builtin read -r -d '' -u 60 __tenuto_command; do "
    'builtin eval "$__tenuto_command" </dev/null 1>&61 2>&1 60<&-; '
    'builtin printf \'\\036%s:%s:\\036\' "$__tenuto_nonce" "$?" >&61; done; trap - EXIT'
)


def shell_command(nonce: str) -> list[str]:
    """The command line that starts a shell; it greets with ``nonce``, the last argument."""
    return ["bash", "--noprofile", "--norc", "-c", _LOOP, "bash", _SETUP, nonce]


class Stream(Protocol):
    """The two directions of a started shell."""

    def read(self, timeout_s: float) -> bytes | None:
        """What has come, waiting at most ``timeout_s``; None if nothing has, b"" at the end."""
        ...

    def write(self, data: bytes) -> None:
        """Send all of ``data``. Raises ``OSError`` if the shell does not take it."""
        ...

    def close(self) -> None:
        """Let go of it. Never raises."""
        ...


class ShellHost(Protocol):
    """What a sandbox does for its shell. ``pid`` is the shell's own idea of its process id."""

    def start_shell(self, command: list[str]) -> Stream:
        """Start ``command`` in the workspace root. Raises ``SandboxGone``."""
        ...

    def shell_lives(self, pid: int) -> bool:
        """Whether the shell is there. Raises ``SandboxGone`` if the sandbox is not."""
        ...

    def stop_command(self, pid: int, since_s: float) -> None:
        """Signal USR1 to the shell, then kill all that was started in the last ``since_s``.

        What a process from before that time started is spared. Raises ``SandboxGone``.
        """
        ...

    def kill_shell(self, pid: int) -> None:
        """Kill the shell. Raises ``SandboxGone``."""
        ...


@dataclass
class _Live:
    stream: Stream
    pid: int
    started: float
    pending: bytes = b""


@dataclass(frozen=True)
class _End:
    """How a command ended: its code, and what its shell left if it ended too."""

    code: int
    left: bytes | None = None


class BashShell:
    """The ``Shell`` of every sandbox (see ``base.py``), over a ``ShellHost``."""

    def __init__(self, host: ShellHost, *, output_bytes: int) -> None:
        self._host = host
        self._output_bytes = output_bytes
        self._live: _Live | None = None
        self._carried: bytes | None = None

    def run(
        self,
        command: str,
        *,
        timeout_s: float,
        on_output: Callable[[str], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> ExecResult:
        """See ``base.Shell.run``."""
        live = self._ready()
        output = _Output(self._output_bytes, on_output)
        nonce = secrets.token_hex(8)
        began = time.monotonic()
        end: _End | None = None
        died = stopped = False
        try:
            text = command.replace("\0", "").encode("utf-8", "surrogateescape")
            live.stream.write(nonce.encode() + b"\0" + text + b"\0")
            end, stopped = self._follow(live, nonce, output, began + timeout_s, should_stop)
            if stopped:
                end = self._stop(live, nonce, output, began)
            died = end is None
        except OSError:
            died = True
        except BaseException:
            # Interrupted: nothing may go on running behind the caller's back.
            self._abandon(live, began)
            raise
        if stopped or died or (end is not None and end.left is not None):
            self._carried = end.left if end else None
            self._drop(live)
        output.finish()
        return ExecResult(
            output=output.text(),
            exit_code=None if stopped or end is None else end.code,
            duration_s=time.monotonic() - began,
            timed_out=stopped,
            shell_died=died and not stopped,
            dropped_bytes=output.dropped,
        )

    def close(self) -> None:
        """See ``base.Shell.close``. A later ``run`` starts a new shell, if the sandbox is open."""
        live = self._live
        self._carried = None
        if live is not None:
            with suppress(SandboxGone, OSError):
                self._host.stop_command(live.pid, time.monotonic() - live.started)
            with suppress(SandboxGone, OSError):
                self._drop(live)

    def let_go(self) -> None:
        """Forget the shell, which ends or has ended with its sandbox."""
        live, self._live = self._live, None
        if live is not None:
            live.stream.close()

    def _ready(self) -> _Live:
        """The live shell with nothing left to read, or a new one if it ended meanwhile."""
        if self._live is not None:
            if _discard(self._live):
                return self._live
            self._drop(self._live)
        return self._start()

    def _start(self) -> _Live:
        nonce = secrets.token_hex(8)
        stream = self._host.start_shell(shell_command(nonce))
        live = _Live(stream, 0, time.monotonic())
        try:
            output = _Output(4096, None)
            deadline = time.monotonic() + START_TIMEOUT_S
            end = self._until_marker(live, nonce, output, deadline)
            if end is None:
                said = output.text().strip() or "nothing"
                raise SandboxGone(f"bash did not start in the sandbox; it said: {said[:200]}")
            live.pid = end.code
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
        live.stream.write(nonce.encode() + b"\0" + script + b"\0")
        self._until_marker(live, nonce, _Output(0, None), time.monotonic() + START_TIMEOUT_S)

    def _follow(
        self,
        live: _Live,
        nonce: str,
        output: _Output,
        deadline: float,
        should_stop: Callable[[], bool] | None,
    ) -> tuple[_End | None, bool]:
        """Read until the command ends, the shell is gone (None), or it is to stop (True)."""
        asked = checked = time.monotonic()
        while True:
            now = time.monotonic()
            if should_stop is not None and now - asked >= POLL_S:
                asked = now
                if should_stop():
                    return None, True
            if now >= deadline:
                return None, True
            data = live.stream.read(min(POLL_S, deadline - now))
            if data == b"":
                output.add(live.pending)
                return None, False
            if data:
                if (end := self._take(live, nonce, output, data)) is not None:
                    return end, False
            elif now - checked >= ALIVE_EVERY_S:
                checked = now
                if not self._host.shell_lives(live.pid):
                    # Its last words may still be on the way.
                    return self._until_marker(live, nonce, output, now + POLL_S), False

    def _until_marker(
        self, live: _Live, nonce: str, output: _Output, deadline: float
    ) -> _End | None:
        while (left := deadline - time.monotonic()) > 0:
            data = live.stream.read(min(POLL_S, left))
            if data == b"":
                break
            if data and (end := self._take(live, nonce, output, data)) is not None:
                return end
        output.add(live.pending)
        live.pending = b""
        return None

    def _take(self, live: _Live, nonce: str, output: _Output, data: bytes) -> _End | None:
        """Pass on output up to the marker; keep what may be the start of one for the next time."""
        start = b"\036" + nonce.encode() + b":"
        live.pending += data
        while True:
            at = live.pending.find(start)
            if at < 0:
                keep = _possible_start(live.pending, start)
                at = len(live.pending) - keep
            output.add(live.pending[:at])
            live.pending = live.pending[at:]
            found = _MARKER.match(live.pending)
            if found is not None:
                break
            if len(live.pending) < _MARKER_BYTES:
                return None
            # A command that printed its own nonce; the rest of it is output like any other.
            output.add(live.pending[:1])
            live.pending = live.pending[1:]
        rest = live.pending[found.end() :]
        if found[2] == b"":
            live.pending = rest
            return _End(int(found[1]))
        left, ended, _ = rest.partition(start + b"end\036")
        if not ended and len(rest) < _STATE_BYTES:
            return None
        return _End(int(found[1]), left if ended else b"")

    def _stop(self, live: _Live, nonce: str, output: _Output, began: float) -> _End | None:
        """Kill what the command started and make the shell end."""
        deadline = time.monotonic() + GRACE_S
        end: _End | None = None
        while time.monotonic() < deadline and (end is None or end.left is None):
            self._host.stop_command(live.pid, time.monotonic() - began)
            turn = min(deadline, time.monotonic() + POLL_S)
            end = self._until_marker(live, nonce, output, turn) or end
        return end

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


class _Output:
    """The first and the last half of what came, the rest counted."""

    def __init__(self, limit: int, on_output: Callable[[str], None] | None) -> None:
        self._head_limit = limit // 2
        self._tail_limit = limit - self._head_limit
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._on_output = on_output
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.dropped = 0

    def add(self, data: bytes) -> None:
        if not data:
            return
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
        if self._on_output is not None and (text := self._decoder.decode(b"", True)):
            self._on_output(text)

    def text(self) -> str:
        head, tail = bytes(self._head), b"".join(self._tail)
        if not self.dropped:
            return (head + tail).decode("utf-8", "replace")
        note = f"\n[... {self.dropped} bytes left out ...]\n"
        return head.decode("utf-8", "replace") + note + tail.decode("utf-8", "replace")


def _possible_start(text: bytes, start: bytes) -> int:
    """How many bytes at the end of ``text`` may be the first ones of ``start``."""
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
