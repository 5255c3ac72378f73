"""Copy a folder of an image as the engine itself copies it: owners, modes, links, and all else.

The engine fills an empty named volume from the image when a container over it is made. Here the
volume is a folder of this machine, so what comes out lies where commands and file tools work on it,
and nothing of the image runs on the way. Only root can look into what other accounts own.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import docker
import docker.errors
import docker.types
import requests.exceptions

from sandboxes.errors import ImageMissing
from sandboxes.images.engine import OWNER_LABEL, connect, engine_trouble
from sandboxes.paths import Owner

FILL_TIMEOUT_S = 3600
_SDK_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)


def keeps_owners() -> bool:
    """Tell whether this process may read and write what belongs to other accounts."""
    return os.geteuid() == 0


def fill_from_image(image: str, place: str, target: Path) -> None:
    """Fill the empty folder ``target`` with the folder ``place`` of ``image``.

    It stays empty if the image has no such folder. Raises ``ImageMissing`` and
    ``SandboxUnavailable``.
    """
    client = connect(timeout=FILL_TIMEOUT_S)
    name = f"tenuto-{secrets.token_hex(8)}"
    labels = {OWNER_LABEL: str(Owner.of_this_process())}
    container = ""
    try:
        client.api.create_volume(
            name,
            driver="local",
            driver_opts={"type": "none", "o": "bind", "device": str(target)},
            labels=labels,
        )
        host = client.api.create_host_config(
            mounts=[docker.types.Mount(place, name, type="volume")], network_mode="none"
        )
        made = client.api.create_container(
            image, command=["true"], labels=labels, host_config=host, entrypoint=[""]
        )
        container = made["Id"]
    except docker.errors.ImageNotFound as error:
        raise ImageMissing(f"the image {image} is not on this machine") from error
    except _SDK_ERRORS as error:
        raise engine_trouble(error) from error
    finally:
        if container:
            with suppress(*_SDK_ERRORS):
                client.api.remove_container(container, force=True)
        with suppress(*_SDK_ERRORS):
            client.api.remove_volume(name, force=True)
        client.close()
