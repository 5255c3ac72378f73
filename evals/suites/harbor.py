"""Read a task folder in Harbor's format: every key of ``task.toml`` is honoured or refused by name.

The format is that of the ``harbor`` package; ``docs/evals.md`` lists the keys.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evals.errors import DatasetError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B?", re.IGNORECASE)
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_RESOURCES = ("build_timeout_sec", "docker_image", "cpus", "memory_mb", "memory", "env", "workdir")
_ROOM = ("storage_mb", "storage", "allow_internet", "network_mode", "allowed_hosts", "os", "gpus")
_ENVIRONMENT = frozenset((*_RESOURCES, *_ROOM, "gpu_types"))
_TIMES = frozenset(("timeout_sec", "user", "network_mode"))
KNOWN: dict[str, frozenset[str]] = {
    "": frozenset(
        (
            *("version", "schema_version", "metadata", "task", "source", "agent", "verifier"),
            *("environment", "solution", "artifacts"),
        )
    ),
    "agent": _TIMES,
    "verifier": _TIMES | {"env", "environment_mode", "environment", "collect"},
    "solution": frozenset(("env",)),
    # Not of the format, but written beside a Dockerfile, which stands above it.
    "environment": _ENVIRONMENT | {"healthcheck", "skills_dir", "image"},
}
"""The keys that are honoured, by table. Any other one that says something refuses the task."""


class RefusedTask(DatasetError):
    """One task cannot be run here; the message names what it needs."""


@dataclass(frozen=True)
class Readiness:
    """A command that must end with 0 before the agent begins. Times in seconds."""

    command: str
    interval_s: float = 5.0
    timeout_s: float = 30.0
    start_period_s: float = 0.0
    start_interval_s: float = 5.0
    retries: int = 3


@dataclass(frozen=True)
class Artifact:
    """A path of the agent's container that a separate verifier sees at the same place."""

    source: str
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class CollectHook:
    """A command that runs in the agent's container before artefacts are taken from it."""

    command: str
    timeout_s: float = 60.0
    user: str = ""


@dataclass(frozen=True)
class HarborTask:
    """The settings of one task. Sizes are in MB, times in seconds; None: not given.

    ``user`` and ``verifier_user`` are accounts of the image, "" its own. ``verifier`` is the
    environment of a separate verifier; None: the tests run in the agent's container.
    """

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
    user: str = ""
    verifier_user: str = ""
    health: Readiness | None = None
    skills_dir: str | None = None
    verifier: HarborTask | None = None
    artifacts: tuple[Artifact, ...] = ()
    collect: tuple[CollectHook, ...] = ()


def read_config(folder: Path) -> dict[str, Any]:
    """Return what ``task.toml`` says. Raises ``RefusedTask`` if it is no TOML."""
    try:
        return tomllib.loads((folder / "task.toml").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedTask(f"the task {folder} cannot be read: {error}") from error


def check_files(folder: Path, task: HarborTask) -> None:
    """Check that a task folder has what a run needs. Raises ``RefusedTask``."""
    if not task.image and not (folder / "environment" / "Dockerfile").is_file():
        raise RefusedTask(f"the task {folder.name} has neither an image nor a Dockerfile")
    if task.verifier is not None and (folder / "tests" / "Dockerfile").is_file():
        return  # the tests are in the verifier's own image
    if not (folder / "tests" / "test.sh").is_file():
        raise RefusedTask(f"the task {folder.name} has no tests/test.sh, which grading needs")


def read_task(name: str, config: Mapping[str, Any]) -> HarborTask:
    """Return the settings in ``config``. Raises ``RefusedTask`` for a key that is not honoured."""
    _refuse_unknown(name, config)
    environment = _table(name, config, "environment")
    agent, verifier = _table(name, config, "agent"), _table(name, config, "verifier")
    separate = is_separate(name, verifier)
    task = _environment(name, environment, "environment")
    _same_network(name, task, agent, "agent")
    if not separate:
        _same_network(name, task, verifier, "verifier")
    return replace(
        task,
        agent_timeout_s=_positive(name, agent, "agent", "timeout_sec"),
        verifier_timeout_s=_positive(name, verifier, "verifier", "timeout_sec") or 600.0,
        verifier_environment=_variables(name, verifier, "verifier"),
        solution_environment=_variables(name, _table(name, config, "solution"), "solution"),
        user=_account(name, agent, "agent.user"),
        verifier_user=_account(name, verifier, "verifier.user"),
        health=_health(name, environment),
        skills_dir=environment.get("skills_dir") or None,
        verifier=_verifier(name, task, verifier) if separate else None,
        artifacts=_artifacts(name, config.get("artifacts", [])),
        collect=_hooks(name, verifier.get("collect", [])),
    )


def with_longer_limits(task: HarborTask, factor: float) -> HarborTask:
    """Return the task with the time limits of agent, tests and build times ``factor``."""
    agent, build = task.agent_timeout_s, task.build_timeout_s
    return replace(
        task,
        agent_timeout_s=None if agent is None else agent * factor,
        build_timeout_s=None if build is None else build * factor,
        verifier_timeout_s=task.verifier_timeout_s * factor,
    )


def is_separate(name: str, verifier: Mapping[str, Any]) -> bool:
    """Tell whether the tests have a container of their own. Raises ``RefusedTask``."""
    mode = verifier.get("environment_mode") or ("separate" if "environment" in verifier else "")
    if mode not in ("", "shared", "separate"):
        raise _wrong(name, "verifier.environment_mode", mode, "shared or separate")
    if mode == "shared" and "environment" in verifier:
        raise _wrong(name, "verifier.environment_mode", mode, "separate beside an environment")
    return bool(mode == "separate")


def _environment(name: str, table: Mapping[str, Any], part: str) -> HarborTask:
    """Return the settings of one container: the agent's, or that of a separate verifier."""
    system = str(table.get("os") or "linux").lower()
    if system != "linux":
        raise _needs(name, f"the system {system!r}")
    if table.get("gpus"):
        raise _needs(name, f"a GPU ({part}.gpus)")
    return HarborTask(
        image=table.get("docker_image") or None,
        workdir=table.get("workdir") or None,
        online=_online(name, table, part),
        memory_mb=_megabytes(name, table, "memory"),
        storage_mb=_megabytes(name, table, "storage"),
        cpus=_positive(name, table, part, "cpus"),
        build_timeout_s=_positive(name, table, part, "build_timeout_sec"),
        environment=_variables(name, table, part),
    )


def _verifier(name: str, task: HarborTask, verifier: Mapping[str, Any]) -> HarborTask:
    """Return the environment of a separate verifier; the agent's anew if it has none itself."""
    own = task
    if "environment" in verifier:
        table = _table(name, verifier, "environment")
        if unknown := sorted(key for key in table if key not in _ENVIRONMENT and table[key]):
            raise _needs(name, f"verifier.environment.{unknown[0]}")
        own = _environment(name, table, "verifier.environment")
    mode = verifier.get("network_mode")
    if mode in ("public", "no-network"):
        return replace(own, online=mode == "public")
    _same_network(name, own, verifier, "verifier")
    return own


def _same_network(name: str, task: HarborTask, table: Mapping[str, Any], part: str) -> None:
    if table.get("network_mode") not in (None, "", "public" if task.online else "no-network"):
        raise _needs(name, f"another network for a part of it ({part}.network_mode)")


def _account(name: str, table: Mapping[str, Any], key: str) -> str:
    value = table.get("user")
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise _wrong(name, key, value, "the name or number of an account")
    return "" if value is None else str(value)


def _health(name: str, environment: Mapping[str, Any]) -> Readiness | None:
    table = _table(name, environment, "healthcheck")
    if not table:
        return None
    part, command = "environment.healthcheck", table.get("command")
    if not isinstance(command, str) or not command.strip():
        raise _wrong(name, f"{part}.command", command, "a command")
    times = {}
    for key in ("interval", "timeout", "start_period", "start_interval"):
        value = table.get(f"{key}_sec")
        if value is not None and value != 0:
            times[f"{key}_s"] = _positive(name, table, part, f"{key}_sec") or 0.0
    retries = table.get("retries", 3)
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 1:
        raise _wrong(name, f"{part}.retries", retries, "a number above 0")
    return Readiness(command, **times, retries=retries)


def _artifacts(name: str, entries: object) -> tuple[Artifact, ...]:
    if not isinstance(entries, list):
        raise _wrong(name, "artifacts", entries, "a list")
    found = []
    for entry in entries:
        table = {"source": entry} if isinstance(entry, str) else entry
        source = table.get("source") if isinstance(table, dict) else None
        if not isinstance(source, str) or not source or ".." in source.split("/"):
            raise _wrong(name, "artifacts", entry, "paths without ..")
        if table.get("service") not in (None, "", "main"):
            raise _needs(name, "artefacts of another service (artifacts.service)")
        found.append(Artifact(source, tuple(map(str, table.get("exclude", ())))))
    return tuple(found)


def _hooks(name: str, entries: object) -> tuple[CollectHook, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _wrong(name, "verifier.collect", entries, "a list of tables")
    found = []
    for entry in entries:
        if entry.get("service") not in (None, "", "main"):
            raise _needs(name, "a command in another service (verifier.collect.service)")
        if not isinstance(entry.get("command"), str):
            raise _wrong(name, "verifier.collect.command", entry.get("command"), "a command")
        limit = _positive(name, entry, "verifier.collect", "timeout_sec") or 60.0
        user = _account(name, entry, "verifier.collect.user")
        found.append(CollectHook(entry["command"], limit, user))
    return tuple(found)


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


def _online(name: str, environment: Mapping[str, Any], part: str) -> bool:
    """Tell whether the task has the network; ``network_mode`` stands above ``allow_internet``."""
    allowed = environment.get("allow_internet")
    if allowed is not None and not isinstance(allowed, bool):
        raise _wrong(name, f"{part}.allow_internet", allowed, "true or false")
    mode = environment.get("network_mode") or ("no-network" if allowed is False else "public")
    if mode == "allowlist" or environment.get("allowed_hosts"):
        raise _needs(name, f"a network of certain hosts alone ({part}.allowed_hosts)")
    if mode not in ("public", "no-network"):
        raise _wrong(name, f"{part}.network_mode", mode, "public, no-network or allowlist")
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

    return {key: expanded(name, str(value), f"{part}.env") for key, value in values.items()}


def expanded(name: str, text: str, key: str) -> str:
    """Put this machine's variables in place of ``${NAME}`` and ``${NAME:-default}``.

    Raises ``RefusedTask`` for one that is not set and has no default.
    """

    def expand(found: re.Match[str]) -> str:
        value = os.environ.get(found[1], found[2])
        if value is None:
            raise RefusedTask(
                f"the task {name} needs the variable {found[1]} ({key}), which is not set"
            )
        return value

    return _VARIABLE.sub(expand, text)
