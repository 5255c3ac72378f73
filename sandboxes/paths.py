"""Where Tenuto keeps what it makes on this machine, and who owns it.

Every folder and container carries the stamp of the process that made it, so that what a killed
process left behind can be told from what a living one still uses.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


def state_dir() -> Path:
    """``$XDG_STATE_HOME/tenuto``, or ``~/.local/state/tenuto``. Not created here."""
    base = os.environ.get("XDG_STATE_HOME", "")
    # The XDG rules say that a relative path there is to be ignored.
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return root / "tenuto"


def workspaces_dir() -> Path:
    """Where private clones live unless the caller names another place."""
    return state_dir() / "workspaces"


def private_dir(path: Path) -> Path:
    """Make ``path`` (mode 0700) and its parents. Returns it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@dataclass(frozen=True)
class Owner:
    """One process on one machine since one boot. ``start`` is in clock ticks after boot."""

    host: str
    boot: str
    namespace: str
    pid: int
    start: int

    @classmethod
    def of_this_process(cls) -> Owner:
        """The stamp of the running process."""
        return cls(
            host=socket.gethostname(),
            boot=_boot_id(),
            namespace=_pid_namespace(),
            pid=os.getpid(),
            start=_start_ticks(os.getpid()) or 0,
        )

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read what ``str(owner)`` wrote; None if it is not that."""
        parts = text.strip().rsplit("/", 4)
        if len(parts) != 5 or not (parts[3].isdecimal() and parts[4].isdecimal()):
            return None
        return cls(parts[0], parts[1], parts[2], int(parts[3]), int(parts[4]))

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.namespace}/{self.pid}/{self.start}"

    def is_gone(self) -> bool:
        """True only if the process is certainly no more.

        A process of another machine, or of another container on this one, cannot be judged from
        here and counts as living.
        """
        if self.host != socket.gethostname():
            return False
        if self.boot != _boot_id():
            return True
        if self.namespace != _pid_namespace():
            return False
        return _start_ticks(self.pid) != self.start


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink()).removeprefix("pid:[").removesuffix("]")


def _start_ticks(pid: int) -> int | None:
    """When ``pid`` started, or None if there is no such process (a zombie counts as none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
