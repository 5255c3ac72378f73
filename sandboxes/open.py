"""Opening a sandbox by the name of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from sandboxes.backends.bubblewrap import BubblewrapSandbox
from sandboxes.backends.docker import ROOT, DockerSandbox
from sandboxes.backends.local import LocalSandbox
from sandboxes.base import Limits, Sandbox
from sandboxes.errors import SandboxUnavailable
from sandboxes.mounts import Mount
from sandboxes.workspace.workspace import Workspace

Kind = Literal["docker", "bubblewrap", "local"]
KINDS: tuple[str, ...] = get_args(Kind)


def open_sandbox(
    kind: str,
    workspace: Workspace,
    *,
    image: str | None = None,
    limits: Limits | None = None,
    name: str = "",
    root: str | None = None,
    search_path: str | None = None,
    mounts: Sequence[Mount] = (),
    environment: Mapping[str, str] | None = None,
    account: str | None = None,
) -> Sandbox:
    """Open a sandbox of ``kind`` over ``workspace``, which it owns from here on.

    ``image`` is for Docker alone; None means the base image. So are ``root``, where the workspace
    lies in the container, ``search_path``, what goes before the image's ``PATH``, and ``account``,
    whom commands run as if it is writable. ``name`` is the session's, for labels. ``mounts`` and
    ``environment`` are what commands get of the host's folders and variables beside the usual.
    Raises ``SandboxUnavailable`` and ``ImageMissing``; the workspace is closed then.
    """
    limits = limits or Limits()
    try:
        if kind == "docker":
            return DockerSandbox(
                workspace,
                image=image,
                limits=limits,
                name=name,
                root=root or ROOT,
                search_path=search_path,
                mounts=mounts,
                environment=environment,
                account=account,
            )
        if root or search_path or limits.writable:
            raise SandboxUnavailable(
                f"the sandbox {kind!r} has its own root and PATH; use docker for another one"
            )
        if kind == "bubblewrap":
            return BubblewrapSandbox(
                workspace, limits=limits, mounts=mounts, environment=environment
            )
        if kind == "local":
            if mounts:
                raise SandboxUnavailable(
                    "the local sandbox sees all that you see and has no mounts; leave them out"
                )
            return LocalSandbox(workspace, limits=limits, environment=environment)
        raise SandboxUnavailable(f"there is no sandbox {kind!r}; use one of {', '.join(KINDS)}")
    except BaseException:
        workspace.close()
        raise
