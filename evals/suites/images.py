"""The images that instances bring: named otherwise, found on this machine, or pulled.

The repository of such an instance lies in its image. It is read out of a container that was made
and never started, so nothing of the image runs on the way.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import docker.errors
import requests.exceptions

from evals.errors import DatasetError
from evals.scratch import scratch_folder
from sandboxes.errors import ImageMissing, SandboxUnavailable, WorkspaceError
from sandboxes.images.base_image import has_image
from sandboxes.images.engine import connect, engine_trouble

_DOCKER_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)
PULL_TIMEOUT_S = 3600
NO_FOLDER = "/workspace"
CONDA_ENVIRONMENT = "/opt/miniconda3/envs/testbed/bin"
"""Where the images of SWE-bench have the interpreter that the tests run with."""


def read_map(path: Path | None) -> dict[str, str]:
    """Read ``--image-map``: a JSON object from an instance's id or image to an image.

    A key that ends with ``*`` stands for all images that begin like it, and a ``*`` at the end of
    its value for the rest. Raises ``DatasetError``.
    """
    if path is None:
        return {}
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"--image-map {path} cannot be read: {error}") from error
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        raise DatasetError(f"--image-map {path} must be an object from names to images")
    return data


@dataclass
class Images:
    """Finds images. One may serve several threads; an image is pulled once."""

    names: Mapping[str, str] = field(default_factory=dict)
    pull: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def resolve(self, instance_id: str, image: str) -> str:
        """Return the name of an instance's image on this machine, by ``--image-map``."""
        for key in (instance_id, image):
            if key in self.names:
                return self.names[key]
        for key, value in self.names.items():
            if key.endswith("*") and image.startswith(key[:-1]):
                rest = image.removeprefix(key[:-1])
                return value[:-1] + rest if value.endswith("*") else value
        return image

    def ensure(self, instance_id: str, image: str) -> str:
        """Fetch the instance's image if it is missing; return its name.

        Raises ``ImageMissing`` if it is not and cannot be pulled.
        """
        tag = self.resolve(instance_id, image)
        client = connect(timeout=PULL_TIMEOUT_S)
        try:
            if has_image(client, tag):
                return tag
            if not self.pull:
                raise ImageMissing(
                    f"the image {tag} is not on this machine, and --no-pull was given"
                )
            with self._lock:
                if not has_image(client, tag):
                    client.images.pull(tag)
        except docker.errors.DockerException as error:
            told = " ".join(str(getattr(error, "explanation", None) or error).split())[:200]
            raise ImageMissing(
                f"the image {tag} is not on this machine and cannot be pulled ({told}); "
                "pull it, build it, or name another one with --image-map"
            ) from error
        except requests.exceptions.RequestException as error:
            raise engine_trouble(error) from error
        finally:
            client.close()
        return tag


def begin_repository(folder: Path) -> None:
    """Make a git repository of ``folder``, everything in it committed."""
    quiet = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    identity = ["-c", "user.name=Tenuto", "-c", "user.email=tenuto@localhost"]
    for arguments in (
        ["init", "-q"],
        ["add", "--all"],
        [*identity, "commit", "-q", "--allow-empty", "-m", "Files of the image"],
    ):
        try:
            subprocess.run(
                ["git", *arguments], cwd=folder, env=quiet, check=True, capture_output=True
            )
        except subprocess.CalledProcessError as error:
            told = " ".join(error.stderr.decode("utf-8", "replace").split())[:200]
            raise WorkspaceError(f"{folder} cannot become a repository: {told}") from error


@contextmanager
def empty_repository() -> Iterator[Path]:
    """Yield a repository without files, for a task whose files are those of its image."""
    with scratch_folder("empty") as folder:
        begin_repository(folder)
        yield folder


@contextmanager
def repository_in(image: str, folder: str) -> Iterator[tuple[Path, str | None]]:
    """Yield a copy of ``folder`` of ``image``, and a folder to search programs in first, if any.

    The copy is gone when the context ends. Raises ``ImageMissing`` if the image has no such
    folder, and ``SandboxUnavailable``.
    """
    client = connect(timeout=PULL_TIMEOUT_S)
    container = ""
    try:
        with scratch_folder("instance") as copy:
            try:
                container = client.api.create_container(image, command=["true"])["Id"]
                unpack(client, container, folder, copy)
                search = _search_path(client, container)
            except docker.errors.NotFound as error:
                if folder != NO_FOLDER:
                    raise ImageMissing(f"the image {image} has no folder {folder}") from error
                (copy / Path(folder).name).mkdir()
                search = None
            except _DOCKER_ERRORS as error:
                raise engine_trouble(error) from error
            except (OSError, tarfile.TarError) as error:
                raise SandboxUnavailable(
                    f"{folder} of {image} cannot be copied: {error}"
                ) from error
            finally:
                if container:
                    with suppress(*_DOCKER_ERRORS):
                        client.api.remove_container(container, force=True, v=True)
            repo = copy / Path(folder).name
            if not (repo / ".git").exists():
                begin_repository(repo)
            yield repo, search
    finally:
        client.close()


def working_folder(image: str) -> str:
    """Return the folder in which the image's programs start; ``/workspace`` if that is the root."""
    folder = str(_configured(image).get("WorkingDir") or "/").rstrip("/")
    return folder or NO_FOLDER


def account_of(image: str) -> str:
    """Return whom the image's programs run as; "" for root."""
    user = str(_configured(image).get("User") or "")
    return "" if user.partition(":")[0] in ("", "0", "root") else user


def _configured(image: str) -> Mapping[str, Any]:
    """Return an image's own settings. Raises ``SandboxUnavailable``."""
    client = connect()
    try:
        return client.api.inspect_image(image)["Config"] or {}
    except _DOCKER_ERRORS as error:
        raise engine_trouble(error) from error
    finally:
        client.close()


def digest_of(folder: Path) -> str:
    """Return a hash of a folder's files: their names, contents and executable bits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def build(
    context: Path, name: str, tell: Callable[[str], None], timeout_s: float = PULL_TIMEOUT_S
) -> str:
    """Build the Dockerfile in ``context`` unless that was done; return the image's tag.

    The tag carries a hash of the folder's files. The engine may be silent for ``timeout_s``. Raises
    ``ImageMissing``.
    """
    tag = f"tenuto/task-{name.lower()}:{digest_of(context)[:12]}"
    client = connect(timeout=round(timeout_s))
    try:
        if not has_image(client, tag):
            tell(f"building {tag}")
            client.images.build(path=str(context), tag=tag, rm=True, forcerm=True)
    except (*_DOCKER_ERRORS, TypeError) as error:
        told = " ".join(str(error).split())[:200]
        raise ImageMissing(f"the image of {name} cannot be built: {told}") from error
    finally:
        client.close()
    return tag


def unpack(client: Any, container: str, folder: str, target: Path) -> None:
    """Copy a folder out of a container. Links and names that lead out of it are refused."""
    chunks, _ = client.api.get_archive(container, folder)
    with tempfile.TemporaryFile() as file:
        for chunk in chunks:
            file.write(chunk)
        file.seek(0)
        _extract(file, target)


def _extract(file: IO[bytes], target: Path) -> None:
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            # What leads out of the folder is of no use to a repository either.
            with suppress(tarfile.FilterError):
                archive.extract(member, target, filter="data")


def _search_path(client: Any, container: str) -> str | None:
    try:
        chunks, _ = client.api.get_archive(container, f"{CONDA_ENVIRONMENT}/python")
        for _ in chunks:
            break
    except docker.errors.NotFound:
        return None
    return CONDA_ENVIRONMENT
