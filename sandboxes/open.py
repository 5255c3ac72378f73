"""Opening a sandbox by the name of its kind."""

from __future__ import annotations

from typing import Literal, get_args

from sandboxes.base import Limits, Sandbox
from sandboxes.bubblewrap import BubblewrapSandbox
from sandboxes.docker import DockerSandbox
from sandboxes.errors import SandboxUnavailable
from sandboxes.local import LocalSandbox
from sandboxes.workspace import Workspace

Kind = Literal["docker", "bubblewrap", "local"]
KINDS: tuple[str, ...] = get_args(Kind)


def open_sandbox(
    kind: str,
    workspace: Workspace,
    *,
    image: str | None = None,
    limits: Limits | None = None,
    name: str = "",
) -> Sandbox:
    """A sandbox of ``kind`` over ``workspace``, which it owns from here on.

    ``image`` is for Docker alone; None means the base image. ``name`` is the session's, for labels.
    Raises ``SandboxUnavailable`` and ``ImageMissing``; the workspace is closed then.
    """
    limits = limits or Limits()
    try:
        if kind == "docker":
            return DockerSandbox(workspace, image=image, limits=limits, name=name)
        if kind == "bubblewrap":
            return BubblewrapSandbox(workspace, limits=limits)
        if kind == "local":
            return LocalSandbox(workspace, limits=limits)
        raise SandboxUnavailable(f"there is no sandbox {kind!r}; use one of {', '.join(KINDS)}")
    except BaseException:
        workspace.close()
        raise
