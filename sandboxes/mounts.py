"""Folders of the host that commands may see: checked before any sandbox is given them."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandboxes.paths import state_dir

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The system's own, and what else would hand the host over.
_REFUSED = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys"),
    *("/var/run", "/var/lib/docker", "/var/lib/containerd"),
)
_REFUSED_AT_HOME = (
    *(".aws", ".azure", ".config", ".docker", ".gnupg", ".kube", ".netrc", ".npmrc", ".pypirc"),
    *(".ssh", ".git-credentials", ".local/state", ".local/share/keyrings"),
)
# Where the sandbox has its own things.
_TAKEN = ("/proc", "/sys", "/dev", "/workspace", "/outputs", "/tmp", "/home/agent", "/etc", "/usr")


@dataclass(frozen=True)
class Mount:
    """The host's ``source`` under the path ``target`` inside, read-only unless ``writable``."""

    source: Path
    target: str
    writable: bool = False


def parse_mount(text: str) -> Mount:
    """Return ``HOST[:INSIDE][:rw]`` as a mount. Without INSIDE it has the same path there.

    Raises ``ValueError`` for what is not there, is no plain file or folder, or is refused: the
    root, the system's folders, sockets and devices (so Docker's too), the home folder itself and
    its credentials, our own state, and whatever holds one of these.
    """
    parts = text.split(":")
    writable = parts[-1] in ("rw", "ro") and len(parts) > 1 and parts.pop() == "rw"
    if not 1 <= len(parts) <= 2 or not all(part.startswith("/") for part in parts):
        raise ValueError(f"{text!r} is not HOST[:INSIDE][:rw] with absolute paths")
    source = Path(parts[0])
    try:
        real = source.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError, ValueError):
        raise ValueError(f"{source} is not there") from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise ValueError(f"{source} is neither a folder nor a plain file")
    if (why := _why_refused(real)) is not None:
        raise ValueError(f"{source} may not be mounted: it {why}; mount a folder of its own")
    target = os.path.normpath(parts[-1])
    if target == "/" or any(_touches(target, taken) for taken in _TAKEN):
        raise ValueError(f"{target} inside is the sandbox's own; give another place")
    return Mount(real, target, writable)


def environment_of(entries: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that ``NAME=VALUE`` sets and ``NAME`` takes from ``own``, if there.

    Raises ``ValueError`` for what is no name.
    """
    made: dict[str, str] = {}
    for entry in entries:
        name, given, value = entry.partition("=")
        if _NAME.fullmatch(name) is None or "\0" in value:
            raise ValueError(f"{name!r} is not the name of a variable")
        if given:
            made[name] = value
        elif name in own:
            made[name] = own[name]
    return made


def _why_refused(path: Path) -> str | None:
    home = Path.home().resolve()
    if path == Path("/"):
        return "is the whole machine"
    if home == path or home.is_relative_to(path):
        return "holds the home folder"
    secret = [home / name for name in _REFUSED_AT_HOME] + [state_dir().resolve()]
    for refused in (*map(Path, _REFUSED), *secret):
        if path.is_relative_to(refused):
            return f"lies in {refused}"
        if refused.is_relative_to(path) and refused.exists():
            return f"holds {refused}"
    return None


def _touches(target: str, taken: str) -> bool:
    return target == taken or target.startswith(f"{taken}/") or taken.startswith(f"{target}/")
