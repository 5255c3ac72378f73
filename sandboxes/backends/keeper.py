"""The first process of a container, and our end of the line to it.

It is a bash loop of builtins: one request a line, one answer a line. The only process it ever
starts is a shell, where that is asked of it; all else works when no process can be started.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from sandboxes.errors import SandboxGone
from sandboxes.shell.shell import Stream

ANSWER_TIMEOUT_S = 10.0
KILL_WITHIN_S = 3.0
TICKS_PER_S = 100  # what Linux shows to programs, whatever the kernel counts in
SLACK_TICKS = 2
ANSWER_BYTES = 4096
ENDED = "the sandbox ended (killed, or its engine stopped); resume the session to go on"

# Arguments: the command line of a shell less its last argument, for `shell`; its commands come from
# fd 5 and its output goes to fd 6, or 7 and 8 in the second slot.
# find SHELL TICKS SPARED... sets `found` to the processes that started in the last TICKS, less what
# an older process other than the shell started, and less the spared ones and what they started;
# dead ones that nobody has collected do not count.
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
  local shell=$1 up since pid above spared=" ${*:3} "
  IFS=' ' read -r up _ </proc/uptime
  since=$((10#${up/./} - $2))
  table
  found=()
  for pid in "${!start[@]}"; do
    if ((pid == 1 || pid == shell || start[$pid] < since)) || [[ ${state[$pid]} == [ZX] ]]; then
      continue
    fi
    [[ $spared == *" $pid "* ]] && continue
    above=${parent[$pid]}
    while [[ -n ${start[$above]} ]] && ((above != 1 && above != shell)); do
      if ((start[$above] < since)) || [[ $spared == *" $above "* ]]; then continue 2; fi
      above=${parent[$above]}
    done
    found+=("$pid")
  done
}
while IFS=' ' read -r verb one two more; do
  case $verb in
    lives)
      line=
      IFS= read -r -d '' line <"/proc/$one/stat"
      line=${line##*) }
      if [[ -z $line || $line == [ZXTt]* ]]; then echo 0; else echo 1; fi ;;
    code)
      line=
      IFS= read -r -d '' line <"/proc/$one/stat"
      line=${line##*) }
      if [[ -z $line || $line == [ZX]* ]]; then wait "$one"; echo "$?"; else echo -1; fi ;;
    usr1) kill -USR1 "$one"; echo 1 ;;
    kill) kill -KILL "$one"; echo 1 ;;
    STOP | KILL | INT)
      find "$one" "$two" $more
      if ((${#found[@]})); then kill "-$verb" "${found[@]}"; fi
      echo "${#found[@]}" ;;
    shell)
      # Without job control bash has what it starts with & ignore SIGINT.
      set -m
      if [[ $two == 0 ]]; then
        "$@" "$one" <&5 >&6 5<&- 6>&- 7<&- 8>&- &
      else
        "$@" "$one" <&7 >&8 5<&- 6>&- 7<&- 8>&- &
      fi
      set +m
      echo "$!" ;;
    all) kill -KILL -1; echo 1 ;;
    *) echo "?" ;;
  esac
done
"""


class Keeper:
    """Asks the keeper. Every method but ``close`` raises ``SandboxGone`` if it does not answer."""

    def __init__(self, line: Stream) -> None:
        self._line = line
        self._one_at_a_time = threading.Lock()

    def lives(self, pid: int) -> bool:
        """Tell whether ``pid`` of the container is there and not dead."""
        return self._ask(f"lives {pid}") == 1

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of the shell ``pid`` that ended, or None if it is not known."""
        code = self._ask(f"code {pid}")
        return code if 0 <= code < 256 else None

    def kill(self, pid: int) -> None:
        """Kill one process."""
        self._ask(f"kill {pid}")

    def start_shell(self, nonce: str, slot: int) -> int:
        """Start a shell on fds 5 and 6, or 7 and 8 in slot 1. Returns its pid."""
        return self._ask(f"shell {nonce} {slot}")

    def interrupt_command(self, shell: int, since_s: float, spared: Sequence[int] = ()) -> None:
        """SIGINT to all that ``stop_command`` would kill."""
        ticks = int(since_s * TICKS_PER_S) + SLACK_TICKS
        self._ask(_finding("INT", shell, ticks, spared))

    def stop_command(self, shell: int, since_s: float, spared: Sequence[int] = ()) -> None:
        """USR1 to the shell, then kill all that started in the last ``since_s`` seconds.

        What is ``spared``, and what that started, is left alone. Stopped first and then killed, as
        long as new ones appear; at last, everything but the keeper is killed at once, the shell
        too.
        """
        began = time.monotonic()
        self._ask(f"usr1 {shell}")
        while (spent := time.monotonic() - began) < KILL_WITHIN_S:
            ticks = int((since_s + spent) * TICKS_PER_S) + SLACK_TICKS
            if self._ask(_finding("STOP", shell, ticks, spared)) == 0:
                return
            self._ask(_finding("KILL", shell, ticks, spared))
        self.kill_all()

    def kill_all(self) -> None:
        """Kill everything but the keeper."""
        self._ask("all")

    def close(self) -> None:
        """Let go; the container ends by that."""
        self._line.close()

    def _ask(self, request: str) -> int:
        with self._one_at_a_time:
            answer = self._answer(request.encode() + b"\n")
        try:
            return int(answer)
        except ValueError:
            said = " ".join(answer.decode("utf-8", "replace").split())[:200]
            raise SandboxGone(f"the sandbox does not work: {said}") from None

    def _answer(self, request: bytes) -> bytes:
        """One line. The bash is the image's own, so a long one is cut."""
        answer = b""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        try:
            self._line.write(request)
            while not answer.endswith(b"\n") and len(answer) < ANSWER_BYTES:
                data = self._line.read(max(0.0, deadline - time.monotonic()))
                if data is None:
                    raise SandboxGone("the sandbox does not answer; resume the session to go on")
                if data == b"":
                    raise SandboxGone(ENDED)
                answer += data
        except OSError as error:
            raise SandboxGone(ENDED) from error
        return answer


def _finding(verb: str, shell: int, ticks: int, spared: Sequence[int]) -> str:
    return " ".join(str(part) for part in (verb, shell, ticks, *spared))
