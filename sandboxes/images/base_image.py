"""The base image of the Docker sandbox: Debian with Python, pytest, git and ripgrep.

Where a registry answers it is built from a Dockerfile. Where none does, but this is a Debian host
and we are root, debootstrap makes the same system from Debian's packages and it is imported.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import docker.errors
import requests.exceptions

from sandboxes.errors import ImageMissing, SandboxUnavailable
from sandboxes.images.engine import connect, engine_trouble
from sandboxes.images.image_tags import BASE_TAG, BROWSER_TAG, build_command
from sandboxes.paths import private_dir, state_dir

PACKAGES = (
    "ca-certificates",
    "git",
    "patch",
    "procps",
    "python-is-python3",
    "python3",
    "python3-pip",
    "python3-pytest",
    "python3-venv",
    "ripgrep",
)
BROWSER_PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core", "fonts-liberation")
SUITE = "bookworm"
PARENT_IMAGE = "debian:bookworm-slim"
REGISTRY_TIMEOUT_S = 20
BUILD_TIMEOUT_S = 1800
NEEDED_BYTES = 2 * 1024**3

# One passwd entry, so that programs that ask for the user's name or home get an answer.
_SETTLE = (
    "echo 'agent:x:1000:1000::/home/agent:/bin/bash' >> /etc/passwd"
    " && echo 'agent:x:1000:' >> /etc/group"
    " && mkdir -p /home/agent /workspace && chown 1000:1000 /home/agent /workspace"
    " && rm -f /usr/lib/python3*/EXTERNALLY-MANAGED"
    " && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb"
    " /usr/share/doc/* /usr/share/man/* /var/log/*"
)
_CHANGES = (
    "ENV PATH=/usr/local/bin:/usr/bin:/bin",
    "ENV LANG=C.UTF-8",
    "LABEL tenuto.base=1",
    "WORKDIR /workspace",
    'CMD ["bash"]',
)

Progress = Callable[[str], None]


def ensure_base_image(on_progress: Progress | None = None) -> str:
    """Return the tag of the base image, which is built now if it is not on this machine.

    ``on_progress`` gets one line for each stage. Raises ``SandboxUnavailable`` (no engine, no disk
    space) and ``ImageMissing`` (it can be neither built from a registry nor by debootstrap).
    """
    client = connect()
    try:
        if not has_image(client, BASE_TAG):
            build_base_image(on_progress)
    finally:
        client.close()
    return BASE_TAG


def has_image(client: docker.DockerClient, tag: str) -> bool:
    """Tell whether the engine has ``tag``."""
    try:
        client.images.get(tag)
    except docker.errors.ImageNotFound:
        return False
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise engine_trouble(error) from error
    return True


def require_image(tag: str) -> None:
    """Raise ``ImageMissing`` unless the engine has ``tag``, ``SandboxUnavailable`` without one."""
    client = connect()
    try:
        if not has_image(client, tag):
            how = build_command(tag) or f"docker pull {tag}"
            raise ImageMissing(f"the image {tag} is not on this machine; {how}")
    finally:
        client.close()


def build_base_image(
    on_progress: Progress | None = None, *, rebuild: bool = False, browser: bool = False
) -> str:
    """Build the base image and return its tag; with ``browser`` the one that has Chromium too.

    Builders wait for each other; the one that waited uses what the other built, unless
    ``rebuild``. Raises like ``ensure_base_image``.
    """
    tell = on_progress or (lambda line: None)
    tag = BROWSER_TAG if browser else BASE_TAG
    client = connect(timeout=BUILD_TIMEOUT_S)
    try:
        with _only_builder(tell) as scratch:
            if has_image(client, tag) and not rebuild:
                return tag
            _check_disk(scratch, tag)
            if _registry_answers():
                tell(f"building {tag} from {PARENT_IMAGE}")
                _build_from_registry(client, tag, tell)
            else:
                _build_by_debootstrap(client, scratch / "root", tag, tell)
            if not has_image(client, tag):
                raise ImageMissing(f"the build ended but {tag} is not there; try again")
            tell(f"{tag} is ready")
    except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
        raise engine_trouble(error) from error
    except OSError as error:
        raise SandboxUnavailable(f"building {tag} failed: {error.strerror or error}") from error
    finally:
        client.close()
    return tag


def dockerfile(tag: str = BASE_TAG) -> str:
    """Return the Dockerfile of an image of ours, used where a registry answers."""
    packages = " ".join(packages_of(tag))
    install = f"apt-get update && apt-get install -y --no-install-recommends {packages}"
    return "\n".join((f"FROM {PARENT_IMAGE}", f"RUN {install} && {_SETTLE}", *_CHANGES, ""))


def packages_of(tag: str) -> tuple[str, ...]:
    """Return the Debian packages of an image of ours."""
    return (*PACKAGES, *BROWSER_PACKAGES) if tag == BROWSER_TAG else PACKAGES


def clear_scratch() -> list[str]:
    """Remove what a killed build left, unless one runs. Returns what was removed."""
    folder = state_dir() / "image-build"
    if not folder.is_dir():
        return []
    with _lock(folder / "lock", wait=False) as held:
        return _clear(folder) if held else []


@contextmanager
def _only_builder(tell: Progress) -> Iterator[Path]:
    """Yield the build folder, empty and ours alone; empty it again at the end."""
    folder = private_dir(state_dir() / "image-build")
    with _lock(folder / "lock", wait=False) as held:
        if held:
            yield from _emptied(folder)
            return
    tell("waiting for another build to end")
    with _lock(folder / "lock", wait=True):
        yield from _emptied(folder)


def _emptied(folder: Path) -> Iterator[Path]:
    _clear(folder)
    try:
        yield folder
    finally:
        _clear(folder)


@contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[bool]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _clear(folder: Path) -> list[str]:
    removed = []
    for entry in folder.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry, ignore_errors=True)
            removed.append(str(entry))
    return removed


def _check_disk(folder: Path, tag: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise SandboxUnavailable(
            f"building {tag} needs 2 GB in {folder}, {free // 1024**2} MB are free; "
            "free some disk space"
        )


def _registry_answers() -> bool:
    """Tell whether the engine can reach the registry of the parent image within a short limit."""
    client = connect(timeout=REGISTRY_TIMEOUT_S)
    try:
        if has_image(client, PARENT_IMAGE):
            return True
        client.api.inspect_distribution(PARENT_IMAGE)
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError):
        return False
    finally:
        client.close()
    return True


def _build_from_registry(client: docker.DockerClient, tag: str, tell: Progress) -> None:
    for event in client.api.build(
        fileobj=io.BytesIO(dockerfile(tag).encode()), tag=tag, rm=True, forcerm=True, decode=True
    ):
        if "error" in event:
            raise ImageMissing(f"building {tag} failed: {_one_line(event['error'])}")
        line = str(event.get("stream", "")).strip()
        if line.startswith("Step "):
            tell(line)


def _build_by_debootstrap(
    client: docker.DockerClient, root: Path, tag: str, tell: Progress
) -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise ImageMissing(
            f"{tag} cannot be built: no image registry answers, and debootstrap needs root on "
            "Debian; reach a registry, or as root: apt-get install debootstrap"
        )
    tell(f"no image registry answers; building {tag} from Debian packages")
    _run(
        [
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(packages_of(tag))}",
            SUITE,
            str(root),
        ],
        _Stages(tell),
    )
    tell("cleaning up")
    _run(["chroot", str(root), "/bin/sh", "-c", _SETTLE], lambda line: None)
    tell("importing into Docker")
    repository, version = tag.split(":")
    tar = subprocess.Popen(
        ["tar", "--numeric-owner", "-C", str(root), "-c", "."],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        answer = client.api.import_image(
            src=tar.stdout,
            repository=repository,
            tag=version,
            changes=list(_CHANGES),
            stream_src=True,
        )
        if '"error"' in answer:
            raise ImageMissing(f"importing {tag} failed: {_one_line(answer)}")
        if tar.wait() != 0:
            raise ImageMissing(f"packing {tag} failed; see that {root.parent} has disk space")
    finally:
        tar.kill()
        tar.wait()


class _Stages:
    """Turns debootstrap's many lines into a few."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._stage = ""
        self._count = 0

    def __call__(self, line: str) -> None:
        stages: Mapping[str, str] = {
            "I: Retrieving": "downloading packages",
            "I: Extracting": "extracting packages",
            "I: Unpacking": "unpacking packages",
            "I: Configuring": "configuring packages",
        }
        stage = next((text for start, text in stages.items() if line.startswith(start)), None)
        if stage is None:
            return
        self._count = self._count + 1 if stage == self._stage else 0
        self._stage = stage
        if self._count == 0:
            self._tell(stage)
        elif self._count % 50 == 0:
            self._tell(f"{stage} ({self._count})")


def _run(command: list[str], on_line: Callable[[str], None]) -> None:
    """Run ``command`` as root so that neither it nor a mount of it can outlast us.

    Its own mount namespace keeps debootstrap's /proc out of the host's tree, and a pid namespace
    that dies with its first process takes every child along when we are killed.
    """
    wrapped = [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"),
        "--mount-proc",
        *command,
    ]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}
    environment |= {k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")}
    process = subprocess.Popen(
        wrapped,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    last = ""
    try:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.strip()
            last = line or last
            on_line(line)
        code = process.wait()
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code != 0:
        raise ImageMissing(f"building the image failed: {command[0]} said: {_one_line(last)}")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
