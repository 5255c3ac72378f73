"""A container of the makers' checkout: it runs a task's services, or its grader.

The checkout is mounted read-only and the container has no network, no capabilities and a read-only
root, since what it runs is code of the data set. Each attempt has a container of its own, so every
service keeps the port that its task names.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import docker.errors
import docker.types
import requests.exceptions

from evals.suites.claw.task_files import WEB_KEY
from evals.suites.images import PULL_TIMEOUT_S
from evals.suites.suite import Machine
from sandboxes.errors import ImageMissing, SandboxUnavailable
from sandboxes.images.base_image import has_image
from sandboxes.images.engine import OWNER_LABEL, connect, engine_trouble
from sandboxes.paths import Owner

IMAGE = "tenuto/claw-eval:1"
HOME = "/claw"
PACKAGES = ("pydantic>=2", "pyyaml>=6", "openai>=1", "httpx>=0.27", "fastapi>=0.115")
MORE_PACKAGES = ("uvicorn>=0.30", "pypdf>=4", "requests>=2.28", "trafilatura>=1.8")
MAX_OUTPUT = 8_000_000
MAX_SPEC = 100_000
"""The most characters of one variable that a program is started with; the kernel has a bound."""
_DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)


def find_image(machine: Machine, instance: str) -> str:
    """Return the image that services and graders run in, built now if it is not there.

    ``--image-map`` may name another one for ``IMAGE``. Raises ``ImageMissing``.
    """
    tag = machine.images.resolve(instance, IMAGE)
    client = connect(timeout=PULL_TIMEOUT_S)
    try:
        if has_image(client, tag):
            return tag
        if tag != IMAGE:
            raise ImageMissing(f"the image {tag} of --image-map is not on this machine")
        base = machine.settings.image
        packages = " ".join(f"'{name}'" for name in (*PACKAGES, *MORE_PACKAGES))
        text = f"FROM {base}\nRUN pip install --no-cache-dir {packages}\n"
        machine.tell(f"building {tag}")
        client.images.build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True, forcerm=True)
    except (*_DOCKER_ERRORS, TypeError) as error:
        told = " ".join(str(error).split())[:200]
        raise ImageMissing(
            f"the image {tag} for services and graders cannot be built: {told}; build one with "
            f"{', '.join((*PACKAGES, *MORE_PACKAGES))} and give it that name"
        ) from error
    finally:
        client.close()
    return tag


@dataclass(frozen=True)
class Box:
    """A running container of the checkout."""

    container: Any
    client: Any

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        spec: Mapping[str, Any] | None = None,
        *,
        timeout_s: float,
    ) -> Any:
        """Run one of our scripts inside and return the JSON that it prints.

        Raises ``SandboxUnavailable``.
        """
        text = json.dumps(spec or {}, ensure_ascii=False)
        if len(text.encode()) > MAX_SPEC:
            raise SandboxUnavailable("the arguments of the call are too long")
        source = resources.files("evals.suites.claw").joinpath(script).read_text("utf-8")
        command = ["timeout", "-k", "5", f"{timeout_s:g}", "python", "-c", source, *arguments]
        try:
            done = self.container.exec_run(
                command, environment={"TENUTO_SPEC": text}, workdir=HOME, demux=True
            )
        except _DOCKER_ERRORS as error:
            raise engine_trouble(error) from error
        out, err = (part or b"" for part in done.output)
        if done.exit_code == 124:
            raise SandboxUnavailable(f"it ran over {timeout_s:g} s")
        try:
            # Task code prints what it likes before; ours is the last line.
            return json.loads(out[-MAX_OUTPUT:].strip().rpartition(b"\n")[2])
        except ValueError as error:
            told = " ".join((err or out)[-2000:].decode("utf-8", "replace").split())[-300:]
            raise SandboxUnavailable(f"exit code {done.exit_code}: {told}") from error


@contextmanager
def open_box(
    image: str,
    checkout: Path,
    machine: Machine,
    extra: Mapping[Path, str] | None = None,
    *,
    web: bool = False,
) -> Iterator[Box]:
    """Yield a container with ``checkout`` at ``HOME`` and ``extra`` (host path: place), read-only.

    With ``web`` it has the network and the key of the search. Raises ``SandboxUnavailable``.
    """
    mounts = [
        docker.types.Mount(place, str(source), type="bind", read_only=True)
        for source, place in {checkout: HOME, **(extra or {})}.items()
    ]
    settings = machine.settings
    client = connect(timeout=int(settings.check_timeout) + 120)
    container: Any = None
    try:
        container = client.containers.create(
            image,
            ["-c", "sleep infinity"],
            entrypoint="sh",
            init=True,
            user="65534:65534",
            labels={OWNER_LABEL: str(Owner.of_this_process())},
            network_mode="bridge" if web else "none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            mounts=mounts,
            tmpfs={"/tmp": "size=512m,mode=1777"},
            mem_limit=f"{settings.memory_mb}m",
            nano_cpus=int(settings.cpus * 1e9),
            pids_limit=512,
            environment={
                "HOME": "/tmp",
                "PYTHONDONTWRITEBYTECODE": "1",
                "PYTHONPATH": f"{HOME}/src:{HOME}",
                **({WEB_KEY: os.environ.get(WEB_KEY, "")} if web else {}),
            },
        )
        container.start()
        yield Box(container, client)
    except docker.errors.APIError as error:
        told = " ".join(str(error).split())[:200]
        raise SandboxUnavailable(f"the services cannot run in {image}: {told}") from error
    except _DOCKER_ERRORS as error:
        raise engine_trouble(error) from error
    finally:
        if container is not None:
            with suppress(*_DOCKER_ERRORS):
                container.remove(force=True, v=True)
        client.close()
