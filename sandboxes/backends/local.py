"""Commands on this machine with no isolation. Must be asked for by name.

The environment is clean and HOME is an empty folder, so that no credentials are picked up by
accident; nothing stops a command from reading the user's files on purpose, or from leaving a
process behind that has wiped its environment and left its parent.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from sandboxes.backends.common import CommonSandbox
from sandboxes.backends.environment import sandbox_environment
from sandboxes.base import Limits
from sandboxes.errors import SandboxGone, SandboxUnavailable
from sandboxes.paths import Owner
from sandboxes.shell.process_table import (
    SLACK_TICKS,
    TICKS_PER_S,
    PipeStream,
    Process,
    kill_until_none,
    now_ticks,
    process_table,
    read_process,
    send,
    started_since,
)
from sandboxes.shell.shell import Stream
from sandboxes.workspace.safe_tree import SafeTree, remove_tree
from sandboxes.workspace.workspace import Workspace

# Every process of a sandbox inherits these, also one that left its session and its parent.
SESSION_VARIABLE = "TENUTO_SESSION"
OWNER_VARIABLE = "TENUTO_OWNER"


class LocalSandbox(CommonSandbox):
    """The ``Sandbox`` without isolation (see ``base.py``)."""

    kind = "local"

    def __init__(
        self,
        workspace: Workspace,
        *,
        limits: Limits | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Raises ``SandboxUnavailable`` if there is no bash."""
        super().__init__(workspace, limits, SafeTree(workspace.path, root=str(workspace.path)))
        self._environment = dict(environment or {})
        self._mark = secrets.token_hex(8)
        self._home = workspace.path.with_name("home")
        self._scratch = workspace.path.with_name("scratch")
        self._make_home()
        self._ready(str(workspace.outputs))

    def start_shell(self, command: list[str], slot: int) -> Stream:
        if self._closed:
            raise SandboxGone("the sandbox is closed")
        environment = sandbox_environment(str(self._home)) | {
            "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
            "TMPDIR": str(self._scratch),
            **self._environment,
            SESSION_VARIABLE: self._mark,
            OWNER_VARIABLE: str(Owner.of_this_process()),
        }
        return start_piped(limited(command, self._limits), environment, self.workspace.path)

    def shell_lives(self, pid: int) -> bool:
        found = read_process(pid)
        return found is not None and not found.zombie and not found.stopped

    def kill_shell(self, pid: int) -> None:
        if pid in self._members(process_table(), pid):
            send([pid], signal.SIGKILL)

    def _stop_command(self, pid: int, since_s: float, spared: list[int]) -> None:
        send([pid], signal.SIGUSR1)
        kill_until_none(self._finder(pid, since_s, spared))

    def _interrupt_command(self, pid: int, since_s: float, spared: list[int]) -> None:
        send(self._finder(pid, since_s, spared)(), signal.SIGINT)

    def _finder(self, pid: int, since_s: float, spared: list[int]) -> Callable[[], list[int]]:
        ticks = now_ticks() - int(since_s * TICKS_PER_S) - SLACK_TICKS

        def find() -> list[int]:
            table = process_table()
            return started_since(table, self._members(table, pid), ticks, pid, spared)

        return find

    def _kill_all(self) -> None:
        kill_until_none(self._living)

    def _stop_all(self) -> None:
        self._kill_all()
        self._remove_home()

    def _begin(self) -> None:
        self._make_home()

    def _end(self) -> None:
        # Killed first: then closing the shell need not wait for it.
        with suppress(OSError):
            self._kill_all()
        self._remove_home()

    def _remove_home(self) -> None:
        for folder in (self._home, self._scratch):
            remove_tree(folder)

    def _make_home(self) -> None:
        for folder in (self._home, self._scratch):
            folder.mkdir(mode=0o700, exist_ok=True)

    def _living(self) -> list[int]:
        table = process_table()
        return [pid for pid in self._members(table, None) if not table[pid].zombie]

    def _members(self, table: dict[int, Process], shell: int | None) -> set[int]:
        """Return the sandbox's processes: marked, in the shell's group, or started by these."""
        mark = f"{SESSION_VARIABLE}={self._mark}".encode()
        found = {pid for pid in table if mark in environment_of(pid)}
        if shell is not None:
            found |= {p.pid for p in table.values() if p.group == shell or p.session == shell}
        grew = True
        while grew:
            inner = {p.pid for p in table.values() if p.parent in found} - found
            found |= inner
            grew = bool(inner)
        return found


def environment_of(pid: int) -> list[bytes]:
    """Return the environment a process was started with, as far as we may see it."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def limited(command: list[str], limits: Limits) -> list[str]:
    """Return ``command`` put under the limits that the kernel keeps for one process."""
    return [
        "prlimit",
        f"--fsize={limits.disk_mb * 1024**2}",
        "--core=0",
        "--",
        *command,
    ]


def start_piped(command: list[str], environment: dict[str, str], folder: Path) -> PipeStream:
    """Start ``command`` with pipes, as the leader of a new session."""
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SandboxUnavailable(f"{command[0]} is not installed; install it") from error
    except OSError as error:
        raise SandboxGone(f"the shell did not start: {error.strerror}") from error
    return PipeStream(process)


def leftover_processes() -> dict[int, str]:
    """Processes of sandboxes whose owner is gone, with the owner's stamp."""
    found = {}
    prefix = f"{OWNER_VARIABLE}=".encode()
    for pid in process_table():
        for entry in environment_of(pid):
            if entry.startswith(prefix):
                owner = Owner.parse(entry.removeprefix(prefix).decode("utf-8", "replace"))
                if owner is not None and owner.is_gone():
                    found[pid] = str(owner)
    return found
