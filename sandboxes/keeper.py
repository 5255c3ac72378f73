"""The first process of a container, and our end of the line to it.

It is a bash loop of builtins: one request a line, one answer a line. The only process it ever
starts is a shell, where that is asked of it; all else works when no process can be started.
"""

from __future__ import annotations

import time
from typing import Protocol

from sandboxes.errors import SandboxGone

ANSWER_TIMEOUT_S = 10.0
KILL_WITHIN_S = 3.0
TICKS_PER_S = 100  # what Linux shows to programs, whatever the kernel counts in
SLACK_TICKS = 2

# Arguments: the command line of a shell less its last argument, for `shell`; its commands come from
# fd 5 and its output goes to fd 6.
# find SHELL TICKS sets `found` to the processes that started in the last TICKS, less what an older
# process other than the shell started; dead ones that nobody has collected do not count.
KEEPER = r"""
exec 2>/dev/null
trap 'exit 0' TERM INT HUP
declare -A state parent start
table() {
  local entry pid line fields
  state=() parent=() start=()
  for entry in /proc/[0-9]*; do
    line=
    IFS= read -r -d '' line <"$entry/stat"
    [[ $line == *')'* ]] || continue
    fields=(${line##*)})
    pid=${entry#/proc/}
    state[$pid]=${fields[0]} parent[$pid]=${fields[1]} start[$pid]=${fields[19]}
  done
}
find() {
  local shell=$1 up since pid above
  IFS=' ' read -r up _ </proc/uptime
  since=$((10#${up/./} - $2))
  table
  found=()
  for pid in "${!start[@]}"; do
    if ((pid == 1 || pid == shell || start[$pid] < since)) || [[ ${state[$pid]} == [ZX] ]]; then
      continue
    fi
    above=${parent[$pid]}
    while [[ -n ${start[$above]} ]] && ((above != 1 && above != shell)); do
      ((start[$above] < since)) && continue 2
      above=${parent[$above]}
    done
    found+=("$pid")
  done
}
while IFS=' ' read -r verb one two; do
  case $verb in
    lives)
      line=
      IFS= read -r -d '' line <"/proc/$one/stat"
      line=${line##*) }
      if [[ -z $line || $line == [ZX]* ]]; then echo 0; else echo 1; fi ;;
    usr1) kill -USR1 "$one"; echo 1 ;;
    kill) kill -KILL "$one"; echo 1 ;;
    stop | end)
      find "$one" "$two"
      if ((${#found[@]})); then
        if [[ $verb == stop ]]; then kill -STOP "${found[@]}"; else kill -KILL "${found[@]}"; fi
      fi
      echo "${#found[@]}" ;;
    shell) "$@" "$one" <&5 >&6 5<&- 6>&- & echo "$!" ;;
    all) kill -KILL -1; echo 1 ;;
    *) echo "?" ;;
  esac
done
"""


class Line(Protocol):
    """The stream to the keeper."""

    def read(self, timeout_s: float) -> bytes | None: ...

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class Keeper:
    """Asks the keeper. Every method but ``close`` raises ``SandboxGone`` if it does not answer."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def lives(self, pid: int) -> bool:
        """Whether ``pid`` of the container is there and not dead."""
        return self._ask(f"lives {pid}") == 1

    def kill(self, pid: int) -> None:
        """Kill one process."""
        self._ask(f"kill {pid}")

    def start_shell(self, nonce: str) -> int:
        """Start a shell on fds 5 and 6. Returns its pid."""
        return self._ask(f"shell {nonce}")

    def stop_command(self, shell: int, since_s: float) -> None:
        """USR1 to the shell, then kill all that started in the last ``since_s`` seconds.

        Stopped first and then killed, as long as new ones appear; at last, everything but the
        keeper is killed at once, the shell too.
        """
        began = time.monotonic()
        self._ask(f"usr1 {shell}")
        while (spent := time.monotonic() - began) < KILL_WITHIN_S:
            ticks = int((since_s + spent) * TICKS_PER_S) + SLACK_TICKS
            if self._ask(f"stop {shell} {ticks}") == 0:
                return
            self._ask(f"end {shell} {ticks}")
        self._ask("all")

    def close(self) -> None:
        """Let go; the container ends by that."""
        self._line.close()

    def _ask(self, request: str) -> int:
        answer = b""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            self._line.write(request.encode() + b"\n")
            while not answer.endswith(b"\n"):
                data = self._line.read(max(0.0, deadline - time.monotonic()))
                if data is None:
                    raise SandboxGone("the sandbox does not answer; start the run again")
                if data == b"":
                    raise SandboxGone(
                        "the sandbox ended (killed, or its engine stopped); start the run again"
                    )
                answer += data
        except OSError as error:
            raise SandboxGone(
                "the sandbox ended (killed, or its engine stopped); start the run again"
            ) from error
        try:
            return int(answer)
        except ValueError:
            said = " ".join(answer.decode("utf-8", "replace").split())[:200]
            raise SandboxGone(f"the sandbox does not work: {said}") from None
