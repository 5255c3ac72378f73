"""A control group for a sandbox that no engine makes one for, where this process may make it.

Root may on most machines. Others get limits per process only (see ``bubblewrap.py``).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandboxes.base import Limits
from sandboxes.paths import Owner

ROOT = Path("/sys/fs/cgroup")
PREFIX = "tenuto-"
EMPTY_WITHIN_S = 2.0


@dataclass(frozen=True)
class Cgroup:
    """Folders of the control group file system that a process joins by writing its id there."""

    folders: tuple[Path, ...]

    @classmethod
    def create(cls, limits: Limits, *, root: Path = ROOT) -> Cgroup:
        """Make a new group with ``limits``, with as many of them as can be had; perhaps none."""
        owner = Owner.of_this_process()
        name = f"{PREFIX}{owner.pid}-{owner.start}-{os.urandom(4).hex()}"
        memory, pids = str(limits.memory_mb << 20), str(limits.pids)
        quota = str(int(limits.cpus * 100_000))
        if (root / "cgroup.controllers").exists():
            wanted = {
                root / name: {
                    "memory.max": memory,
                    "memory.swap.max": "0",
                    "pids.max": pids,
                    "cpu.max": f"{quota} 100000",
                }
            }
        else:
            wanted = {
                root / "memory" / name: {
                    "memory.limit_in_bytes": memory,
                    "memory.memsw.limit_in_bytes": memory,
                },
                root / "pids" / name: {"pids.max": pids},
                root / "cpu" / name: {"cpu.cfs_quota_us": quota},
            }
        return cls(tuple(folder for folder, files in wanted.items() if _make(folder, files)))

    def entering(self, command: list[str]) -> list[str]:
        """Return ``command`` as run by a process that has joined the group first."""
        if not self.folders:
            return command
        script = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 125; shift; '
        script += 'n=$((n-1)); done; exec "$@"'
        files = [str(folder / "cgroup.procs") for folder in self.folders]
        return ["sh", "-c", script, "sh", str(len(files)), *files, *command]

    def remove(self) -> None:
        """Remove the group as soon as what was killed in it is gone. Never raises."""
        deadline = time.monotonic() + EMPTY_WITHIN_S
        for folder in self.folders:
            while not _removed(folder) and time.monotonic() < deadline:
                time.sleep(0.01)


def leftover_cgroups(*, root: Path = ROOT) -> list[Path]:
    """Groups whose owner is gone."""
    here = Owner.of_this_process()
    found = []
    for pattern in (f"{PREFIX}*", f"*/{PREFIX}*"):
        for folder in root.glob(pattern):
            pid, _, rest = folder.name.removeprefix(PREFIX).partition("-")
            start = rest.partition("-")[0]
            if pid.isdecimal() and start.isdecimal():
                owner = Owner(here.host, here.boot, here.namespace, int(pid), int(start))
                if owner.is_gone():
                    found.append(folder)
    return found


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _make(folder: Path, files: dict[str, str]) -> bool:
    try:
        folder.mkdir()
    except OSError:
        return False
    for name, value in files.items():
        # A controller may be off here; the others still count.
        with suppress(OSError):
            (folder / name).write_text(value)
    return True
