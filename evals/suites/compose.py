"""Read the compose file of a task in Harbor's format: its ``main`` service and those beside it.

``main`` is the agent's container, which is made here; of its entry only variables count, and what
the format's own templates say there (build, image, logs) is known. Services beside it are started
by ``docker compose`` on a network of their own that the agent's container joins.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evals.suites.harbor import RefusedTask, expanded
from sandboxes.errors import SandboxUnavailable

FILE, MAIN = "docker-compose.yaml", "main"
MOST_BYTES = 1 << 20
_IGNORED = frozenset(
    ("build", "image", "command", "deploy", "network_mode", "depends_on", "networks", "pull_policy")
)
_LOGS = ("HOST_VERIFIER_LOGS_PATH", "HOST_AGENT_LOGS_PATH", "HOST_ARTIFACTS_PATH")


@dataclass(frozen=True)
class Compose:
    """The additions of a compose file: variables of ``main``, and services beside it."""

    environment: Mapping[str, str] = field(default_factory=dict)
    services: tuple[str, ...] = ()


def read_compose(folder: Path) -> Compose:
    """Return what the task's compose file adds; nothing without one. Raises ``RefusedTask``."""
    path, name = folder / "environment" / FILE, folder.name
    if not path.is_file():
        return Compose()
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is too large")
        data = yaml.safe_load(path.read_text("utf-8"))
        services = data.get("services") or {} if isinstance(data, dict) else {}
        if not isinstance(services, dict) or not all(
            isinstance(v, dict) for v in services.values()
        ):
            raise ValueError("services must be a table of tables")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())[:200]
        raise RefusedTask(f"the task {name}: {FILE} cannot be read: {told}") from error
    beside = tuple(sorted(key for key in services if key != MAIN))
    if beside and not command():
        raise RefusedTask(
            f"the task {name} needs several containers ({', '.join(beside)}), and docker compose "
            "is not on this machine"
        )
    main = services.get(MAIN, {})
    for key, value in main.items():
        if key == "volumes":
            _refuse_mounts(name, value)
        elif key != "environment" and key not in _IGNORED:
            raise RefusedTask(f"the task {name} needs {FILE}: {MAIN}.{key}, which is not supported")
    return Compose(_variables(name, main.get("environment") or {}), beside)


def command() -> list[str]:
    """Return how ``docker compose`` is called on this machine; nothing if it is not there."""
    if shutil.which("docker"):
        asked = ["docker", "compose", "version"]
        if subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


@contextmanager
def services_of(folder: Path, compose: Compose, project: str, timeout_s: float) -> Iterator[str]:
    """Run the services beside ``main``; yield the name of their network. "" if there are none.

    Raises ``SandboxUnavailable`` if they do not start in time.
    """
    if not compose.services:
        yield ""
        return
    place = folder / "environment"
    call = [*command(), "-p", project, "--project-directory", str(place), "-f", str(place / FILE)]
    quiet = {
        **os.environ,
        "CONTEXT_DIR": str(place),
        "MAIN_IMAGE_NAME": "tenuto-main",
        **{name: str(place) for name in _LOGS},
        **{f"ENV_{name.removeprefix('HOST_')}": "/logs" for name in _LOGS},
    }
    try:
        _run([*call, "up", "-d", "--no-deps", *compose.services], quiet, timeout_s)
        yield f"{project}_default"
    finally:
        down = [*call, "down", "--volumes", "--timeout", "1"]
        subprocess.run(down, env=quiet, capture_output=True, check=False, timeout=300)


def _run(call: list[str], variables: Mapping[str, str], timeout_s: float) -> None:
    try:
        done = subprocess.run(
            call, env=dict(variables), capture_output=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxUnavailable(f"the services did not start in {timeout_s:g} s") from error
    if done.returncode != 0:
        told = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
        raise SandboxUnavailable(f"the services did not start: {told}")


def _refuse_mounts(name: str, volumes: object) -> None:
    """Refuse volumes of ``main`` other than the folders for logs, which every task has."""
    for volume in volumes if isinstance(volumes, list) else [volumes]:
        if not isinstance(volume, str) or not any(f"${{{log}" in volume for log in _LOGS):
            told = json.dumps(volume, default=str)[:80]
            raise RefusedTask(
                f"the task {name} needs {FILE}: {MAIN}.volumes {told}, which is not supported"
            )


def _variables(name: str, entries: Any) -> dict[str, str]:
    """Return the variables of a service, given as a table or as ``NAME=VALUE``."""
    pairs: dict[str, Any] = {}
    if isinstance(entries, dict):
        pairs = entries
    elif isinstance(entries, list):
        for entry in entries:
            key, given, value = str(entry).partition("=")
            pairs[key] = value if given else f"${{{key}}}"
    else:
        raise RefusedTask(f"the task {name}: {FILE}: {MAIN}.environment must be a table or a list")
    found = {k: f"${{{k}}}" if v is None else str(v) for k, v in pairs.items()}
    return {key: expanded(name, value, FILE) for key, value in found.items()}
