"""Removing what killed runs left: containers, processes, control groups, private copies."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

import docker.errors
import requests.exceptions

from sandboxes.backends.cgroup import leftover_cgroups
from sandboxes.backends.local import leftover_processes
from sandboxes.errors import SandboxUnavailable
from sandboxes.images.base_image import clear_scratch
from sandboxes.images.engine import OWNER_LABEL, connect
from sandboxes.paths import Owner, workspaces_dir
from sandboxes.shell.process_table import send
from sandboxes.workspace.workspace import read_stamp, remove_workspace


def prune(*, parent: Path | None = None) -> list[str]:
    """Remove everything whose owner process is gone. Returns one line for each thing removed.

    What a living process uses stays, and what belongs to another machine. ``parent`` is the folder
    of the workspaces, as for ``Workspace.create``. Without a Docker engine the rest is still done.
    """
    removed = _containers() + _volumes()
    removed += _processes()
    for folder in leftover_cgroups():
        with suppress(OSError):
            folder.rmdir()
            removed.append(f"control group {folder.name}")
    removed += _workspaces(parent or workspaces_dir())
    removed += [f"folder {name}" for name in clear_scratch()]
    return removed


def _containers() -> list[str]:
    try:
        client = connect(timeout=10)
    except SandboxUnavailable:
        return []
    removed = []
    try:
        for found in client.api.containers(all=True, filters={"label": OWNER_LABEL}):
            owner = Owner.parse(found["Labels"].get(OWNER_LABEL, ""))
            if owner is not None and owner.is_gone():
                # It may be on its way out by itself.
                with suppress(docker.errors.NotFound, docker.errors.APIError):
                    client.api.remove_container(found["Id"], force=True, v=True)
                    removed.append(f"container {found['Id'][:12]}")
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError):
        return removed
    finally:
        client.close()
    return removed


def _volumes() -> list[str]:
    """Remove the names under which folders were being filled; the folders are workspaces."""
    try:
        client = connect(timeout=10)
    except SandboxUnavailable:
        return []
    removed = []
    try:
        for found in client.api.volumes(filters={"label": OWNER_LABEL})["Volumes"] or ():
            owner = Owner.parse((found["Labels"] or {}).get(OWNER_LABEL, ""))
            if owner is not None and owner.is_gone():
                with suppress(docker.errors.APIError):
                    client.api.remove_volume(found["Name"], force=True)
                    removed.append(f"volume {found['Name']}")
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError):
        return removed
    finally:
        client.close()
    return removed


def _processes() -> list[str]:
    left = leftover_processes()
    send(left, signal.SIGKILL)
    return [f"process {pid}" for pid in left]


def _workspaces(parent: Path) -> list[str]:
    removed: list[str] = []
    if not parent.is_dir():
        return removed
    for stamp in parent.glob("*.owner"):
        folder = stamp.with_suffix("")
        try:
            owner, _ = read_stamp(stamp)
        except OSError:
            continue
        if owner is not None and owner.is_gone() and remove_workspace(folder):
            removed.append(f"workspace {folder.name}")
    return removed
