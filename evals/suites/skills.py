"""Find the skills in an image, without running anything of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath

import docker.errors
import requests.exceptions

from agent.settings.extensions import MOST_TOLD, find_extensions
from evals.scratch import scratch_folder
from evals.suites.images import unpack
from sandboxes.images.engine import connect, engine_trouble

TOLD = "Skills on this machine. Before work that one is for, read its file and follow it:"
_DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)


def skills_told(image: str, places: Sequence[str]) -> str:
    """Return a line for each skill in folders of an image; "" if there are none.

    Of two skills of one name the first counts. Raises ``SandboxUnavailable``.
    """
    lines: dict[str, str] = {}
    client = connect()
    container = ""
    try:
        container = client.api.create_container(image, command=["true"], entrypoint=[""])["Id"]
        for place in places:
            with scratch_folder("skills") as scratch:
                top = scratch / ".agents" / "skills"
                try:
                    unpack(client, container, place, scratch / "got")
                except docker.errors.NotFound:
                    continue
                top.parent.mkdir()
                (scratch / "got" / PurePosixPath(place).name).rename(top)
                for skill in find_extensions(scratch, None).found.values():
                    file = f"{place}/{skill.source.relative_to(top).as_posix()}"
                    lines.setdefault(skill.name, f"- {file}: {skill.description}")
    except _DOCKER_ERRORS as error:
        raise engine_trouble(error) from error
    finally:
        if container:
            with suppress(*_DOCKER_ERRORS):
                client.api.remove_container(container, force=True, v=True)
        client.close()
    told = [line for line in lines.values() if line.isprintable()][:MOST_TOLD]
    return "\n".join([TOLD, *told]) if told else ""
