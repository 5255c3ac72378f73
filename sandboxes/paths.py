"""Places of what Tenuto makes on this machine, and the owners of it.

Every folder and container carries the stamp of the process that made it, so that what a killed
process left behind can be told from what a living one still uses.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs


def state_dir() -> Path:
    """Return ``$XDG_STATE_HOME/tenuto``, or ``~/.local/state/tenuto``. It may not exist."""
    return platformdirs.user_state_path("tenuto", appauthor=False)


def cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/tenuto``, or ``~/.cache/tenuto``. It may not exist."""
    return platformdirs.user_cache_path("tenuto", appauthor=False)


def config_dir() -> Path:
    """Return ``$XDG_CONFIG_HOME/tenuto``, or ``~/.config/tenuto``. It may not exist."""
    return platformdirs.user_config_path("tenuto", appauthor=False)


def workspaces_dir() -> Path:
    """Return where workspaces lie unless the caller names another place."""
    return state_dir() / "workspaces"


def private_dir(path: Path) -> Path:
    """Make ``path`` and its missing parents, mode 0700 whatever the umask is. Returns it.

    The state and the cache folder themselves become private too if others can look into them.
    """
    missing = [place for place in (path, *path.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(exist_ok=True)
        place.chmod(0o700)
    path.mkdir(exist_ok=True)  # raises if it is a file
    for root in (state_dir(), cache_dir()):
        if path.is_relative_to(root) and root.stat().st_mode & 0o077:
            with suppress(OSError):  # another user's
                root.chmod(0o700)
    return path


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a draft beside ``path`` to write; it becomes ``path`` once it is on disk.

    If the block raises, the draft is removed and ``path`` is as it was. Raises ``OSError``.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        yield draft
        sync(draft)
        draft.replace(path)
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        """Return the stamp of the running process."""
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
    """Return when ``pid`` started, or None without such a process (a zombie counts as none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])
