"""The image of one repository: its Dockerfile or devcontainer, and set-up commands run once.

What comes out is tagged by a hash of all that went in (the parent image's id, the Dockerfile, the
commands, the named files), so that the same again is found and not made. Building runs what the
repository says as root in a container of the engine: without the user's credentials or variables,
without the network unless the user asked for it, and with no file of the host but those that were
named. It is done only when the user asks for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import docker
import docker.errors
import docker.types
import requests.exceptions
from docker.auth import AuthConfig

from sandboxes.base import Limits
from sandboxes.errors import ImageMissing
from sandboxes.images.base_image import (
    BUILD_TIMEOUT_S,
    Progress,
    ensure_base_image,
    has_image,
)
from sandboxes.images.dockerfile import refuse_fetching
from sandboxes.images.engine import OWNER_LABEL, connect, engine_trouble
from sandboxes.images.image_tags import BASE_TAG
from sandboxes.paths import Owner, private_dir, state_dir
from sandboxes.workspace.host_git import names_git
from sandboxes.workspace.safe_folders import Folders

LAYER_REPOSITORY = "tenuto/layer"
LAYER_LABEL = "tenuto.layer"
SETUP_FOLDER = "/setup"
SETUP_TIMEOUT_S = 1800.0
MAX_FILES_BYTES = 64 * 1024**2
# What installing packages takes; nothing that reaches out of the container.
_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID"]
_LOOK_EVERY_S = 1.0
MAX_LOG_BYTES = 16 << 20


@dataclass(frozen=True)
class ImageRecipe:
    """The parts that a repository's image is made of.

    At most one of ``image``, ``dockerfile`` and ``devcontainer`` is given; with none it is our base
    image. ``setup`` are bash commands, run in ``SETUP_FOLDER`` where the ``files`` lie; a
    Dockerfile sees the same files. Paths are relative to ``repo``.
    """

    repo: Path
    image: str | None = None
    dockerfile: str | None = None
    devcontainer: str | None = None
    setup: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """True for an image that is used as it is."""
        return not (self.dockerfile or self.devcontainer or self.setup)


def image_of(
    recipe: ImageRecipe, *, build: bool, limits: Limits, on_progress: Progress | None = None
) -> str:
    """Return the tag of the recipe's image, from the cache or, with ``build``, made now.

    Raises ``SandboxUnavailable`` (no engine) and ``ImageMissing``: it is not there and may not be
    built, or the build failed.
    """
    tell = on_progress or (lambda line: None)
    if recipe.image is None and not recipe.dockerfile and not recipe.devcontainer:
        ensure_base_image(tell)
    if recipe.is_plain:
        return recipe.image or BASE_TAG
    files = _read_files(recipe)
    try:
        with _engine() as client:
            parent = _parent(client, recipe, files, build=build, limits=limits, tell=tell)
            if not recipe.setup:
                return parent
            return _set_up(client, recipe, files, parent, build=build, limits=limits, tell=tell)
    except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as error:
        raise engine_trouble(error) from error


def layers() -> list[tuple[str, int]]:
    """Return the tags of all images that were made here, and the bytes each adds up to."""
    with _engine() as client:
        found = client.api.images(filters={"label": LAYER_LABEL})
        return sorted((tag, int(i["Size"])) for i in found for tag in i.get("RepoTags") or ())


def remove_layers() -> list[str]:
    """Remove the images that were made here and that no container uses. Returns their tags."""
    removed = []
    with _engine() as client:
        for tag, _ in layers():
            try:
                client.api.remove_image(tag)
            except docker.errors.APIError:
                continue
            removed.append(tag)
    return removed


@contextmanager
def _engine() -> Iterator[docker.DockerClient]:
    client = connect(timeout=BUILD_TIMEOUT_S)
    # A repository says what is pulled and built: with nobody's credentials.
    client.api._auth_configs = AuthConfig({})
    try:
        yield client
    finally:
        client.close()


def _parent(
    client: docker.DockerClient,
    recipe: ImageRecipe,
    files: dict[str, tuple[int, bytes]],
    *,
    build: bool,
    limits: Limits,
    tell: Progress,
) -> str:
    """Return the image that the set-up begins from."""
    dockerfile, image = recipe.dockerfile, recipe.image
    if recipe.devcontainer is not None:
        dockerfile, image = _devcontainer(files[recipe.devcontainer][1], recipe.devcontainer)
        if dockerfile is not None and dockerfile not in files:
            files |= _read_files(ImageRecipe(recipe.repo, dockerfile=dockerfile))
    if dockerfile is None:
        tag = image or BASE_TAG
        if not has_image(client, tag):
            raise ImageMissing(f"the image {tag} is not on this machine; docker pull {tag}")
        return tag
    context = {name: content for name, content in files.items() if name != recipe.devcontainer}
    tag = _tag("dockerfile", dockerfile, limits.network, context)
    if has_image(client, tag):
        return tag
    if not build:
        raise _not_built(recipe, f"the image of {dockerfile}")
    if not limits.network:
        text = context[dockerfile][1].decode("utf-8", "replace")
        refuse_fetching(text, dockerfile, lambda image: has_image(client, image))
    tell(f"building {tag} from {dockerfile}, with {len(context) - 1} more files")
    memory = limits.memory_mb << 20
    events = client.api.build(
        fileobj=_tar(context),
        custom_context=True,
        dockerfile=dockerfile,
        tag=tag,
        rm=True,
        forcerm=True,
        decode=True,
        network_mode="bridge" if limits.network else "none",
        container_limits={"memory": memory, "memswap": memory},
        labels={LAYER_LABEL: tag.partition(":")[2]},
    )
    said: list[bytes] = []
    for event in events:
        said.append(str(event.get("stream", "")).encode("utf-8", "replace"))
        if "error" in event:
            with _log_kept(tag, lambda: said):
                raise ImageMissing(f"building {dockerfile} failed: {_one_line(event['error'])}")
        if (line := str(event.get("stream", "")).strip()).startswith("Step "):
            tell(_one_line(line))
    return tag


def _set_up(
    client: docker.DockerClient,
    recipe: ImageRecipe,
    files: dict[str, tuple[int, bytes]],
    parent: str,
    *,
    build: bool,
    limits: Limits,
    tell: Progress,
) -> str:
    """Return the layer in which the set-up commands have run."""
    base = client.api.inspect_image(parent)["Id"]
    named = {name: files[name] for name in sorted(files) if name not in _own_files(recipe)}
    tag = _tag("setup", base, limits.network, recipe.setup, named)
    if has_image(client, tag):
        return tag
    if not build:
        raise _not_built(recipe, "its set-up")
    tell(f"running the set-up of {recipe.repo} once, in {parent}")
    api = client.api
    container = _create(client, recipe, parent, limits)
    try:
        api.put_archive(container, "/", _tar(named, below=SETUP_FOLDER.strip("/")))
        api.start(container)
        with _log_kept(tag, lambda: api.logs(container, stream=True)):
            code = _follow(api, container, limits.disk_mb << 20, tell)
            if code != 0:
                last = api.logs(container, tail=5).decode("utf-8", "replace")
                raise ImageMissing(f"the set-up failed with exit code {code}: {_one_line(last)}")
        # The container's label would have the image's own containers pruned with this process.
        changes = [f'LABEL {OWNER_LABEL}=""', f"LABEL {LAYER_LABEL}={tag.partition(':')[2]}"]
        repository, _, name = tag.partition(":")
        api.commit(
            container,
            repository=repository,
            tag=name,
            changes="\n".join([*changes, "ENTRYPOINT []", 'CMD ["bash"]']),
        )
    except docker.errors.APIError as error:
        if '"bash"' in str(error.explanation) and "not found" in str(error.explanation):
            raise ImageMissing(f"the image {parent} has no bash; use one that has") from error
        raise
    finally:
        api.remove_container(container, force=True, v=True)
    return tag


def _create(client: docker.DockerClient, recipe: ImageRecipe, parent: str, limits: Limits) -> str:
    """Create the container that runs the set-up commands, within ``limits``; return its id."""
    memory = f"{limits.memory_mb}m"
    made = client.api.create_container(
        parent,
        entrypoint=["bash", "--noprofile", "--norc", "-euxo", "pipefail", "-c"],
        command=["\n".join(recipe.setup)],
        user="0:0",
        working_dir=SETUP_FOLDER,
        labels={OWNER_LABEL: str(Owner.of_this_process())},
        use_config_proxy=limits.network,
        healthcheck={"test": ["NONE"]},
        host_config=client.api.create_host_config(
            network_mode="bridge" if limits.network else "none",
            cap_drop=["ALL"],
            cap_add=_CAPABILITIES,
            security_opt=["no-new-privileges"],
            mem_limit=memory,
            memswap_limit=memory,
            pids_limit=limits.pids,
            nano_cpus=int(min(limits.cpus, int(client.info().get("NCPU", 1))) * 1e9),
            ulimits=[docker.types.Ulimit(name="core", soft=0, hard=0)],
            init=True,
        ),
    )
    return str(made["Id"])


@contextmanager
def _log_kept(tag: str, log: Callable[[], Iterable[bytes]]) -> Iterator[None]:
    """Keep the end of ``log`` in a file if the block raises ``ImageMissing``, and name the file."""
    try:
        yield
    except ImageMissing as error:
        kept = bytearray()
        for piece in log():
            kept += piece
            if len(kept) > 2 * MAX_LOG_BYTES:
                del kept[:-MAX_LOG_BYTES]
        path = private_dir(state_dir() / "logs") / f"image-{tag.partition(':')[2]}.log"
        path.write_bytes(kept)
        raise ImageMissing(f"{error} (the whole log: {path})") from error


def _follow(api: Any, container: str, disk_bytes: int, tell: Progress) -> int:
    """Return the exit code of the set-up.

    Raises ``ImageMissing`` if it takes too long or too much.
    """
    deadline = time.monotonic() + SETUP_TIMEOUT_S
    while True:
        time.sleep(_LOOK_EVERY_S)
        state = api.inspect_container(container)["State"]
        if not state["Running"]:
            return int(state["ExitCode"])
        found = api.containers(filters={"id": container}, size=True)
        if found and int(found[0].get("SizeRw") or 0) > disk_bytes:
            raise ImageMissing(f"the set-up wrote more than {disk_bytes >> 20} MB and was stopped")
        if time.monotonic() > deadline:
            raise ImageMissing(f"the set-up did not end within {SETUP_TIMEOUT_S:.0f} s")


def _own_files(recipe: ImageRecipe) -> set[str]:
    return {name for name in (recipe.dockerfile, recipe.devcontainer) if name} - set(recipe.files)


def _not_built(recipe: ImageRecipe, what: str) -> ImageMissing:
    return ImageMissing(
        f"{what}, which {recipe.repo} asks for, is not built yet; building runs what it says "
        f"as root in a container: to allow that, agent sandbox build --repo {recipe.repo}, or "
        "--build"
    )


def _read_files(recipe: ImageRecipe) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of each file the recipe names; of a folder, all that are in it.

    No link is followed, also not on the way. Raises ``ImageMissing``.
    """
    names = [*recipe.files, *(name for name in (recipe.dockerfile, recipe.devcontainer) if name)]
    found: dict[str, tuple[int, bytes]] = {}
    size = 0
    with Folders(recipe.repo.resolve()) as folders:
        for name in names:
            for path in _below(recipe.repo, name):
                try:
                    info = folders.stat(path)
                    if info is None:
                        raise FileNotFoundError
                    with folders.open(path) as file:
                        content = file.read(MAX_FILES_BYTES - size + 1)
                except OSError:
                    raise ImageMissing(
                        f"{path}, which the repository names for its image, is no plain file in "
                        f"{recipe.repo}"
                    ) from None
                size += len(content)
                if size > MAX_FILES_BYTES:
                    raise ImageMissing(
                        f"the files for the image are over {MAX_FILES_BYTES >> 20} MB; name fewer"
                    )
                found[path] = (stat.S_IMODE(info.st_mode) & 0o755, content)
    return found


def _below(repo: Path, name: str) -> list[str]:
    path = PurePosixPath(name)
    if names_git(name):
        raise ImageMissing(f"{name!r} lies in git's own folder, which goes into no image")
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ImageMissing(
            f"{name!r}, which the repository names for its image, is no path inside it"
        )
    place = repo / path
    if place.is_symlink() or not place.is_dir():
        return [str(path)]
    files = (p for p in place.rglob("*") if p.is_file() and not p.is_symlink())
    return sorted(p.relative_to(repo).as_posix() for p in files if not names_git(p.as_posix()))


def _devcontainer(content: bytes, name: str) -> tuple[str | None, str | None]:
    """Return the Dockerfile (from the root) or the image that a devcontainer.json names."""
    text = content.decode("utf-8", "replace")
    # JSON with comments and trailing commas; strings come first so that nothing in them counts.
    token = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|,(?=\s*[}\]])', re.DOTALL)
    plain = token.sub(lambda m: m[0] if m[0].startswith('"') else "", text)
    plain = token.sub(lambda m: m[0] if m[0].startswith('"') else "", plain)
    try:
        data = json.loads(plain)
        build = data.get("build") or {}
        dockerfile = build.get("dockerfile") or data.get("dockerFile")
        image = data.get("image")
    except (ValueError, AttributeError, RecursionError):
        raise ImageMissing(f"{name} is not a devcontainer.json that can be read") from None
    if isinstance(dockerfile, str):
        return str(PurePosixPath(name).parent / dockerfile), None
    if isinstance(image, str) and image:
        return None, image
    raise ImageMissing(f"{name} names no image and no Dockerfile")


def _tar(files: dict[str, tuple[int, bytes]], below: str = "") -> io.BytesIO:
    """Pack files with neither times nor owners, so that equal files make an equal archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        if below:
            folder = tarfile.TarInfo(below)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name, (mode, content) in sorted(files.items()):
            entry = tarfile.TarInfo(f"{below}/{name}" if below else name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    out.seek(0)
    return out


def _tag(*parts: object) -> str:
    """Return the tag of what is made from ``parts``."""
    digest = hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{LAYER_REPOSITORY}:{digest[:32]}"


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in line)[-300:]
