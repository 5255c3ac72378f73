"""The Docker engine: connecting to it, and saying in one line why that does not work."""

from __future__ import annotations

import errno
import os
import shutil

import docker
import docker.errors
import docker.types

from sandboxes.errors import SandboxError, SandboxGone, SandboxUnavailable

REQUEST_TIMEOUT_S = 120


def connect(*, timeout: float = REQUEST_TIMEOUT_S) -> docker.DockerClient:
    """Return a client of the engine that ``DOCKER_HOST`` names, or of the local one.

    Raises ``SandboxUnavailable`` if none answers.
    """
    client = None
    try:
        client = docker.from_env(timeout=timeout)
        client.ping()
    except Exception as error:  # the SDK lets errors of requests, urllib3 and socket through
        if client is not None:
            client.close()
        raise _unreachable(error) from error
    return client


def engine_trouble(error: BaseException) -> SandboxError:
    """Return what an error of the SDK means for the user, as one line with the remedy."""
    text = _one_line(getattr(error, "explanation", None) or error)
    low = text.lower()
    if "no space left on device" in low:
        return SandboxUnavailable(
            "Docker has no disk space left; free some (docker system prune) and try again"
        )
    if isinstance(error, docker.errors.NotFound) and "container" in low:
        return SandboxGone("the container is no more; start the run again")
    if isinstance(error, docker.errors.APIError):
        return SandboxUnavailable(f"Docker refused: {text}")
    return _unreachable(error)


def _unreachable(error: BaseException) -> SandboxUnavailable:
    causes = list(_causes(error))
    codes = {cause.errno for cause in causes if isinstance(cause, OSError)}
    text = _one_line(error)
    host = os.environ.get("DOCKER_HOST", "")
    elsewhere = SandboxUnavailable(
        f"the Docker engine that DOCKER_HOST names ({host}) does not run or is none: {text[-200:]}"
        "; correct or unset the variable, or use --sandbox bubblewrap"
    )
    if host and not host.startswith("unix:"):
        return elsewhere
    if errno.EACCES in codes or "permission denied" in text.lower():
        return SandboxUnavailable(
            "this user may not use Docker; join the docker group (sudo usermod -aG docker $USER, "
            "then log in again) or use --sandbox bubblewrap"
        )
    if shutil.which("docker") is None and shutil.which("dockerd") is None:
        return SandboxUnavailable(
            "Docker is not installed; install it (Debian: apt-get install docker.io) "
            "or use --sandbox bubblewrap"
        )
    if codes & {errno.ENOENT, errno.ECONNREFUSED} or "connection refused" in text.lower():
        if host:
            return elsewhere
        return SandboxUnavailable(
            "Docker is installed but its engine does not run; start it (systemctl start docker, "
            "or as root: dockerd) or use --sandbox bubblewrap"
        )
    return SandboxUnavailable(f"the Docker engine does not answer ({text}); see docker info")


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return ``error`` and all exceptions it came from; the SDK hides the OSError three deep."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        item = waiting.pop()
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            waiting += [item.__cause__, item.__context__, getattr(item, "reason", None)]
            waiting += list(item.args)
    return found


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]


SESSION_LABEL = "tenuto.session"


OWNER_LABEL = "tenuto.owner"
