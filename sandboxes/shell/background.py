"""Processes that a session leaves running: started in its shell, watched from the second one.

Each has a folder in the sandbox with its input (a pipe that stays open), its output, and at the end
its exit code, kept by a small bash that waits for it. All of that is the model's to change, so
nothing read from there is trusted with more than being shown.
"""

from __future__ import annotations

import secrets
import shlex
import time
from dataclasses import dataclass, field

from sandboxes.base import ExecResult, Sandbox
from sandboxes.errors import SandboxError
from sandboxes.stop import Stop

QUIET_S = 0.3
STOP_WITHIN_S = 3.0
_ASK_TIMEOUT_S = 20.0
_LOOK_EVERY_S = 0.1
MARK = "TENUTO_PROCESS"

# Arguments: the folder and the command. Job control gives the command a process group of its own
# and leaves it SIGINT, which bash otherwise has background commands ignore. The exit code is noted
# inside it: what wait says of a child that ends while a trap runs cannot be relied on.
_WATCHER = r"""
set -m
exec 8<>"$1/in"
trap 'exec 8>&-' USR2
trap : HUP INT
(
  trap : HUP INT TERM
  bash -c "$2" <"$1/in" >"$1/out" 2>&1
  echo "$?" >"$1/code"
) 8>&- &
child=$!
trap 'kill -TERM -- "-$child"' TERM
while :; do
  wait "$child"
  code=$?
  kill -0 "$child" 2>/dev/null || break
done
[[ -s $1/code ]] || echo "$code" >"$1/code"
"""
_START = r"""
folder=$(mktemp -d "${TMPDIR:-/tmp}/background.XXXXXX") && mkfifo "$folder/in" || exit
: >"$folder/out" || exit
set -m
PYTHONUNBUFFERED=1 %(mark)s=%(name)s bash -c %(watcher)s bash "$folder" %(command)s \
  </dev/null >/dev/null 2>&1 &
printf '%%s %%s' "$!" "$folder"
"""
# Prints one letter, the exit code and the size of the output.
_STATE = r"""
code= size=0
kill -0 %(pid)s 2>/dev/null && state=r || state=k
[[ -f %(folder)s/code ]] && IFS= read -r code <%(folder)s/code
[[ $code == +([0-9]) ]] && state=e
[[ -f %(folder)s/out ]] && size=$(stat -c %%s %(folder)s/out 2>/dev/null || wc -c <%(folder)s/out)
printf '%%s:%%s:%%s' "$state" "$code" "$size"
"""
# Whoever inherited the mark, or the process group, but not the watcher, which notes the exit code.
_SIGNAL = r"""
for entry in /proc/[0-9]*; do
  pid=${entry#/proc/}
  [[ $pid == %(pid)s ]] && continue
  { mapfile -d '' -t variables <"$entry/environ"; } 2>/dev/null || continue
  for variable in "${variables[@]}"; do
    if [[ $variable == %(mark)s=%(name)s ]]; then kill -%(signal)s "$pid" && echo "$pid"; break; fi
  done
done 2>/dev/null
"""


@dataclass(frozen=True)
class ProcessState:
    """State of a process: ``running``, or ended with ``exit_code``, None if it was killed.

    ``size`` is how many bytes it has printed.
    """

    running: bool
    exit_code: int | None
    size: int


@dataclass
class BackgroundProcess:
    """One process that was left running. ``id`` is a pid inside, ``log`` a path inside."""

    id: int
    command: str
    folder: str
    name: str
    began: float
    read: int = 0
    seen: ProcessState | None = None

    @property
    def log(self) -> str:
        """The file with all it printed."""
        return f"{self.folder}/out"


@dataclass
class Background:
    """The processes of one session. Every method may raise ``SandboxGone``."""

    sandbox: Sandbox
    _processes: dict[int, BackgroundProcess] = field(default_factory=dict)

    def start(self, command: str, enter: str = "") -> BackgroundProcess | ExecResult:
        """Start ``command`` with the folder and environment of the session's shell.

        ``enter`` is what is run before in the same subshell. Returns what the shell said where that
        did not work. Raises ``ShellBusy`` while the shell runs a command.
        """
        name = secrets.token_hex(8)
        script = _START % {
            "mark": MARK,
            "name": name,
            "watcher": shlex.quote(_WATCHER),
            "command": shlex.quote(command),
        }
        result = self.sandbox.shell().run(f"( {enter}{script} )", timeout_s=_ASK_TIMEOUT_S)
        pid, _, folder = result.output.strip().partition(" ")
        if result.exit_code != 0 or not pid.isdecimal() or "\n" in folder:
            return result
        process = BackgroundProcess(int(pid), command, folder, name, time.monotonic())
        self._processes[process.id] = process
        return process

    def all(self) -> list[BackgroundProcess]:
        """Return the processes started in this session, ended ones too, oldest first."""
        return list(self._processes.values())

    def get(self, pid: int) -> BackgroundProcess | None:
        """Return the process whose id is ``pid``, or None if there is none."""
        return self._processes.get(pid)

    def state(self, process: BackgroundProcess) -> ProcessState:
        """Return the state that ``process`` is in now."""
        if process.seen is not None and not process.seen.running:
            return process.seen
        words = {"folder": shlex.quote(process.folder), "pid": process.id}
        said = self._ask(f"shopt -s extglob\n{_STATE % words}").output.split(":")
        if len(said) != 3 or said[0] not in ("e", "r", "k"):
            return ProcessState(False, None, process.read)
        code = int(said[1]) if said[1].isdecimal() and len(said[1]) < 4 else None
        size = int(said[2]) if said[2].isdecimal() else 0
        process.seen = ProcessState(said[0] == "r", code, size)
        return process.seen

    def output(self, process: BackgroundProcess) -> ExecResult:
        """Return what it printed since the last time, its middle left out if that is a lot."""
        log = shlex.quote(process.log)
        state = self.state(process)
        if state.size <= process.read:
            return ExecResult("", 0, 0.0)
        count = state.size - process.read
        result = self._ask(f"tail -c +{process.read + 1} {log} | head -c {count}")
        process.read = state.size
        return result

    def wait(
        self,
        process: BackgroundProcess,
        timeout_s: float,
        *,
        for_answer: bool = False,
        stop: Stop | None = None,
    ) -> ProcessState:
        """Wait until it ends, at most ``timeout_s``; with ``for_answer``, until it is quiet again.

        An answer is output beyond what was read, with nothing new for a moment. Ends early once
        ``stop`` is set.
        """
        deadline = time.monotonic() + timeout_s
        size, heard = -1, time.monotonic()
        while True:
            state = self.state(process)
            now = time.monotonic()
            if state.size != size:
                size, heard = state.size, now
            answered = for_answer and size > process.read and now - heard >= QUIET_S
            stopped = stop is not None and stop.is_set()
            if not state.running or answered or stopped or now >= deadline:
                return state
            time.sleep(_LOOK_EVERY_S)

    def write(self, process: BackgroundProcess, text: str, *, end: bool = False) -> bool:
        """Give it ``text``, and with ``end`` the end of its input. False if it takes none."""
        pipe = shlex.quote(f"{process.folder}/in")
        if text:
            script = f"[[ -p {pipe} ]] && printf %s {shlex.quote(text)} 1<>{pipe}"
            if self._ask(script).exit_code != 0:
                return False
        if end:
            self._ask(f"kill -USR2 {process.id}")
        return True

    def interrupt(self, process: BackgroundProcess) -> None:
        """SIGINT to all of it, as Ctrl-C in a terminal gives."""
        self._signal(process, "INT")

    def stop(self, process: BackgroundProcess) -> ProcessState:
        """SIGTERM to all of it, and SIGKILL to what is still there a few seconds later."""
        self._signal(process, "TERM")
        state = self.wait(process, STOP_WITHIN_S)
        for _ in range(10):
            if not self._signal(process, "KILL"):
                break
        return state if not state.running else self.wait(process, STOP_WITHIN_S)

    def _signal(self, process: BackgroundProcess, signal: str) -> bool:
        """Send ``signal`` and tell whether there was anything to send it to."""
        words = {"pid": process.id, "mark": MARK, "name": process.name, "signal": signal}
        return bool(self._ask(_SIGNAL % words).output.strip())

    def _ask(self, script: str) -> ExecResult:
        result = self.sandbox.second_shell().run(script, timeout_s=_ASK_TIMEOUT_S)
        if result.exit_code is None and result.cause:
            raise SandboxError(result.cause)
        return result
