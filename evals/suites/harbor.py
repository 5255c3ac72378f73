"""Read a task folder in Harbor's format: every key of ``task.toml`` is honoured or refused by name.

The format is that of the ``harbor`` package; ``docs/evals.md`` lists the keys.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.errors import DatasetError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B?", re.IGNORECASE)
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
KNOWN: dict[str, frozenset[str]] = {
    "": frozenset(
        [
            "version",
            "schema_version",
            "metadata",
            "task",
            "source",
            "agent",
            "verifier",
            "environment",
            "solution",
        ]
    ),
    "agent": frozenset(("timeout_sec", "network_mode", "user")),
    "verifier": frozenset(("timeout_sec", "env", "network_mode", "user", "environment_mode")),
    "solution": frozenset(("env",)),
    "environment": frozenset(
        [
            "build_timeout_sec",
            "docker_image",
            "cpus",
            "memory_mb",
            "memory",
            "storage_mb",
            "storage",
            "allow_internet",
            "network_mode",
            "allowed_hosts",
            "env",
            "workdir",
            "os",
            "gpus",
            "gpu_types",
        ]
    ),
}
"""The keys that are honoured, by table. Any other one that says something refuses the task."""
_ROOT = (None, "", "root", 0, "0")


class RefusedTask(DatasetError):
    """One task cannot be run here; the message names what it needs."""


@dataclass(frozen=True)
class HarborTask:
    """The settings of one task. Sizes are in MB, times in seconds; None: not given."""

    image: str | None = None
    workdir: str | None = None
    online: bool = True
    memory_mb: int | None = None
    storage_mb: int | None = None
    cpus: float | None = None
    agent_timeout_s: float | None = None
    verifier_timeout_s: float = 600.0
    build_timeout_s: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    verifier_environment: Mapping[str, str] = field(default_factory=dict)
    solution_environment: Mapping[str, str] = field(default_factory=dict)


def read_config(folder: Path) -> dict[str, Any]:
    """Return what ``task.toml`` says. Raises ``RefusedTask`` if it is no TOML."""
    try:
        return tomllib.loads((folder / "task.toml").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedTask(f"the task {folder} cannot be read: {error}") from error


def check_files(folder: Path, image: str | None) -> None:
    """Check that a task folder has what a run needs. Raises ``RefusedTask``."""
    if (folder / "environment" / "docker-compose.yaml").is_file():
        raise _needs(folder.name, "several containers")
    if not image and not (folder / "environment" / "Dockerfile").is_file():
        raise RefusedTask(f"the task {folder.name} has neither an image nor a Dockerfile")
    if not (folder / "tests" / "test.sh").is_file():
        raise RefusedTask(f"the task {folder.name} has no tests/test.sh, which grading needs")


def read_task(name: str, config: Mapping[str, Any]) -> HarborTask:
    """Return the settings in ``config``. Raises ``RefusedTask`` for a key that is not honoured."""
    _refuse_unknown(name, config)
    environment = _table(name, config, "environment")
    agent, verifier = _table(name, config, "agent"), _table(name, config, "verifier")
    if environment.get("os") not in (None, "", "linux"):
        raise _needs(name, f"the system {environment['os']!r}")
    if environment.get("gpus"):
        raise _needs(name, "a GPU (environment.gpus)")
    for part, table in (("agent", agent), ("verifier", verifier)):
        if table.get("user") not in _ROOT:
            raise _needs(name, f"the user {table['user']!r} ({part}.user)")
    if verifier.get("environment_mode") not in (None, "", "shared"):
        raise _needs(name, "a container for its tests alone (verifier.environment_mode)")
    return HarborTask(
        image=environment.get("docker_image") or None,
        workdir=environment.get("workdir") or None,
        online=_online(name, environment, agent, verifier),
        memory_mb=_megabytes(name, environment, "memory"),
        storage_mb=_megabytes(name, environment, "storage"),
        cpus=_positive(name, environment, "environment", "cpus"),
        agent_timeout_s=_positive(name, agent, "agent", "timeout_sec"),
        verifier_timeout_s=_positive(name, verifier, "verifier", "timeout_sec") or 600.0,
        build_timeout_s=_positive(name, environment, "environment", "build_timeout_sec"),
        environment=_variables(name, environment, "environment"),
        verifier_environment=_variables(name, verifier, "verifier"),
        solution_environment=_variables(name, _table(name, config, "solution"), "solution"),
    )


def _needs(name: str, what: str) -> RefusedTask:
    return RefusedTask(f"the task {name} needs {what}, which is not supported")


def _wrong(name: str, key: str, value: object, wanted: str) -> RefusedTask:
    return RefusedTask(f"the task {name}: {key} is {value!r} and must be {wanted}")


def _table(name: str, config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key, {})
    if not isinstance(value, dict):
        raise _wrong(name, key, value, "a table")
    return value


def _refuse_unknown(name: str, config: Mapping[str, Any]) -> None:
    if config.get("steps"):
        raise _needs(name, "several steps")
    for part, known in KNOWN.items():
        table = _table(name, config, part) if part else config
        for key, value in table.items():
            if key not in known and value not in (None, "", 0, False, [], {}):
                raise _needs(name, f"{part}.{key}" if part else key)


def _online(
    name: str,
    environment: Mapping[str, Any],
    agent: Mapping[str, Any],
    verifier: Mapping[str, Any],
) -> bool:
    """Tell whether the task has the network; ``network_mode`` stands above ``allow_internet``."""
    allowed = environment.get("allow_internet")
    if allowed is not None and not isinstance(allowed, bool):
        raise _wrong(name, "environment.allow_internet", allowed, "true or false")
    mode = environment.get("network_mode") or ("no-network" if allowed is False else "public")
    if mode == "allowlist" or environment.get("allowed_hosts"):
        raise _needs(name, "a network of certain hosts alone (environment.allowed_hosts)")
    if mode not in ("public", "no-network"):
        raise _wrong(name, "environment.network_mode", mode, "public, no-network or allowlist")
    for part, table in (("agent", agent), ("verifier", verifier)):
        if table.get("network_mode") not in (None, "", mode):
            raise _needs(name, f"another network for a part of it ({part}.network_mode)")
    return bool(mode == "public")


def _megabytes(name: str, table: Mapping[str, Any], key: str) -> int | None:
    """Read a size: ``KEY_mb`` as a number, else ``KEY`` as text such as ``2G``."""
    if (number := _positive(name, table, "environment", f"{key}_mb")) is not None:
        return math.ceil(number)
    value = table.get(key)
    if value in (None, ""):
        return None
    found = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or not float(found[1]):
        raise _wrong(name, f"environment.{key}", value, "a size like 2G or 512M")
    return math.ceil(float(found[1]) * _UNITS[found[2].upper()])


def _positive(name: str, table: Mapping[str, Any], part: str, key: str) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise _wrong(name, f"{part}.{key}", value, "a number above 0")
    return float(value)


def _variables(name: str, table: Mapping[str, Any], part: str) -> dict[str, str]:
    """Return the variables of a table, with ``${NAME}`` and ``${NAME:-default}`` from the host."""
    values = table.get("env", {})
    if not isinstance(values, dict):
        raise _wrong(name, f"{part}.env", values, "a table")

    def expand(found: re.Match[str]) -> str:
        value = os.environ.get(found[1], found[2])
        if value is None:
            raise RefusedTask(
                f"the task {name} needs the variable {found[1]} ({part}.env), which is not set"
            )
        return value

    return {key: _VARIABLE.sub(expand, str(value)) for key, value in values.items()}
