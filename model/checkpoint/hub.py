"""Turn a model's name into the folder or file of its checkpoint, and list what is here.

A name is ``embedded`` (the small checkpoint inside the package), a folder, a GGUF file,
``owner/name`` on the Hugging Face hub, or ``owner/name:QUANT`` for one of its GGUF files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import scan_cache_dir
from huggingface_hub.errors import CacheNotFound

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.config import ModelConfig
from model.checkpoint.gguf.header import open_files
from model.checkpoint.gguf.metadata import is_gguf, read_config
from model.checkpoint.remote import INSTEAD, choose_gguf, fetch, label_of, main_files
from model.errors import CheckpointError, ModelNotFound

EMBEDDED = "embedded"


@dataclass(frozen=True)
class LocalModel:
    """A checkpoint on this machine that this engine can run; ``size`` in bytes on disk.

    ``form`` is the stored form of most of its weights.
    """

    name: str
    path: Path
    size: int
    form: str = ""


def resolve(name: str) -> Path:
    """Return the folder or GGUF file of the checkpoint called ``name``; fetch it if need be.

    Progress goes to stderr if that is a terminal. Raises ``ModelNotFound`` if there is no such
    model or it cannot be fetched, ``CheckpointError`` if it is no checkpoint; each in one line.
    """
    if name == EMBEDDED:
        return _embedded()
    if not name:
        raise ModelNotFound(f"the model's name is empty; {INSTEAD}, or OWNER/NAME of the hub")
    place = Path(name).expanduser()
    if place.is_dir():
        return _in_folder(place)
    if place.exists() and is_gguf(place):
        return place
    if place.exists():
        raise ModelNotFound(f"{name} is a file, and no GGUF file; {INSTEAD}")
    repository, _, quant = name.partition(":")
    folder = Path(repository).expanduser()
    if quant and folder.is_dir():
        return folder / choose_gguf(repository, [p.name for p in folder.glob("*.gguf")], quant)[0]
    owner, slash, rest = repository.partition("/")
    if not (owner and slash and rest) or "/" in rest or owner in (".", "..", "~") or is_gguf(place):
        raise ModelNotFound(
            f"there is no model directory {name}; {INSTEAD}, or OWNER/NAME of the hub"
        )
    return fetch(repository, quant)


def list_models(folders: Sequence[Path] = ()) -> list[LocalModel]:
    """List the embedded model, if it is there, and the usable checkpoints of the hub's cache.

    Those in ``folders`` follow: checkpoints in their folders, and GGUF files, one level deep.
    """
    found: list[LocalModel] = []
    directory = _embedded_directory()
    if (directory / "model.safetensors").is_file():
        found += _described(EMBEDDED, directory)
    found += sorted(_cached(), key=lambda model: model.name)
    for folder in folders:
        found += sorted(_beside(folder.expanduser()), key=lambda model: model.name)
    return found


def _embedded_directory() -> Path:
    return Path(__file__).resolve().parents[1] / "embedded"


def _embedded() -> Path:
    directory = _embedded_directory()
    if not (directory / "model.safetensors").is_file():
        raise ModelNotFound(
            f"the embedded model's weights are not in {directory}; install the package again, or"
            " point --model at a checkpoint directory"
        )
    return directory


def _in_folder(directory: Path) -> Path:
    """Return the checkpoint in a folder: the folder itself, or the one GGUF model in it."""
    if (directory / "config.json").is_file():
        return directory
    files = main_files(path.name for path in directory.glob("*.gguf"))
    if files:
        return directory / choose_gguf(str(directory), files, "")[0]
    raise CheckpointError(
        f"{directory} holds no config.json and no GGUF file, so it is no checkpoint; {INSTEAD}"
    )


def _cached() -> Iterator[LocalModel]:
    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return
    for repository in repositories:
        if repository.repo_type != "model" or not repository.revisions:
            continue
        latest = max(repository.revisions, key=lambda revision: revision.last_modified)
        yield from _described(repository.repo_id, latest.snapshot_path)


def _beside(folder: Path) -> Iterator[LocalModel]:
    if not folder.is_dir():
        return
    for place in [folder, *(p for p in sorted(folder.iterdir()) if p.is_dir())]:
        yield from _described(str(place), place)


def _described(name: str, folder: Path) -> Iterator[LocalModel]:
    """Yield the usable checkpoints in one folder."""
    if any(folder.glob("*.safetensors")):
        try:
            ModelConfig.load(folder)
        except CheckpointError:
            pass
        else:
            size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
            yield LocalModel(name, folder, size, _main_form(folder))
    for file in main_files(_gguf_names(folder)):
        if "-of-" in file and "-00001-of-" not in file:
            continue
        path = folder / file
        try:
            opened = open_files(path)
            read_config(opened)
        except CheckpointError:
            continue
        size = sum(part.path.stat().st_size for part in opened)
        own = str(path) if name == str(folder) else f"{name}:{label_of(file) or path.stem}"
        yield LocalModel(own, path, size, _main_form(path))


def _main_form(path: Path) -> str:
    try:
        return next(iter(Checkpoint.open(path).forms()))
    except CheckpointError:
        return "damaged"


def _gguf_names(folder: Path) -> list[str]:
    """Return the GGUF files in ``folder`` and in its folders, as far as it can be read."""
    found: list[str] = []
    with suppress(OSError):
        for pattern in ("*.gguf", "*/*.gguf", "*/*/*.gguf"):
            found += [str(path.relative_to(folder)) for path in folder.glob(pattern)]
    return found
