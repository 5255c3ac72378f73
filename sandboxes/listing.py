"""List of the sandboxes on this machine: containers, working copies, images of repositories."""

from __future__ import annotations

import time

import docker.errors
import requests.exceptions

from sandboxes.errors import SandboxUnavailable
from sandboxes.images.engine import OWNER_LABEL, SESSION_LABEL, connect
from sandboxes.images.repository_image import layers
from sandboxes.paths import Owner, workspaces_dir
from sandboxes.workspace.workspace import read_stamp


def listing() -> list[tuple[str, str, str]]:
    """Kind, name and a few words for each. Without a Docker engine the rest is still listed."""
    found = []
    try:
        found += _containers()
        found += [("image", tag, f"{size / 1e6:.0f} MB") for tag, size in layers()]
    except (SandboxUnavailable, docker.errors.DockerException, OSError):
        pass
    except requests.exceptions.RequestException:
        pass
    return found + _workspaces()


def _containers() -> list[tuple[str, str, str]]:
    client = connect(timeout=10)
    try:
        found = client.api.containers(all=True, filters={"label": OWNER_LABEL})
    finally:
        client.close()
    return [
        (
            "container",
            item["Id"][:12],
            f"{item['Image']}, session {item['Labels'].get(SESSION_LABEL) or 'none'}, "
            f"{item['Status']}, {_told(Owner.parse(item['Labels'].get(OWNER_LABEL, '')))}",
        )
        for item in found
    ]


def _workspaces() -> list[tuple[str, str, str]]:
    found = []
    folder = workspaces_dir()
    for stamp in sorted(folder.glob("*.owner")) if folder.is_dir() else []:
        try:
            owner, made = read_stamp(stamp)
        except OSError:
            continue
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(made))
        found.append(("copy", stamp.stem, f"since {since}, {_told(owner)}"))
    return found


def _told(owner: Owner | None) -> str:
    if owner is None:
        return "of nobody known"
    return f"process {owner.pid} is gone: prune" if owner.is_gone() else f"of process {owner.pid}"
