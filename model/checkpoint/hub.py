"""Turn a model's name into the folder of its checkpoint.

A name is ``embedded`` (the small checkpoint inside the package), a folder, or ``owner/name`` on
the Hugging Face hub. Only the files that this engine reads are fetched, into the hub's own cache.
The cache is used when the hub cannot be reached.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.errors import (
    CacheNotFound,
    GatedRepoError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from model.checkpoint.config import ModelConfig
from model.errors import CheckpointError, ModelNotFound

EMBEDDED = "embedded"
_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja")
_INSTEAD = f'give a checkpoint directory, or "{EMBEDDED}"'
_CONNECT_S = 10.0


@dataclass(frozen=True)
class LocalModel:
    """A checkpoint on this machine that this engine can run; ``size`` in bytes on disk."""

    name: str
    path: Path
    size: int


def resolve(name: str) -> Path:
    """Return the folder of the checkpoint called ``name``; fetch it first if need be.

    Progress goes to stderr if that is a terminal. Raises ``ModelNotFound`` if there is no such
    model or it cannot be fetched, ``CheckpointError`` if it is no checkpoint; each in one line.
    """
    if name == EMBEDDED:
        return _embedded()
    if not name:
        raise ModelNotFound(f"the model's name is empty; {_INSTEAD}, or OWNER/NAME of the hub")
    directory = Path(name).expanduser()
    if directory.is_dir():
        return _checked(directory)
    if directory.exists():
        raise ModelNotFound(f"{name} is a file; {_INSTEAD}")
    owner, slash, rest = name.partition("/")
    if not (owner and slash and rest) or "/" in rest or owner in (".", "..", "~"):
        raise ModelNotFound(
            f"there is no model directory {name}; {_INSTEAD}, or OWNER/NAME of the hub"
        )
    return _checked(_fetch(name))


def list_models() -> list[LocalModel]:
    """List the embedded model, if it is there, and the usable checkpoints of the hub's cache."""
    found = []
    directory = _embedded_directory()
    if (directory / "model.safetensors").is_file():
        size = sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
        found.append(LocalModel(EMBEDDED, directory, size))
    return found + sorted(_cached(), key=lambda model: model.name)


def _embedded_directory() -> Path:
    return Path(__file__).resolve().parents[1] / "embedded"


def _embedded() -> Path:
    directory = _embedded_directory()
    if not (directory / "model.safetensors").is_file():
        raise ModelNotFound(
            f"the embedded model's weights are not in {directory}; install the package again, or"
            " point --model at a checkpoint directory"
        )
    return _checked(directory)


def _checked(directory: Path) -> Path:
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"{directory} holds no config.json, so it is no checkpoint; {_INSTEAD}"
        )
    return directory


def _fetch(name: str) -> Path:
    try:
        return Path(
            snapshot_download(
                name, allow_patterns=list(_FILES), etag_timeout=_CONNECT_S, tqdm_class=_Progress
            )
        )
    except GatedRepoError as error:
        raise ModelNotFound(
            f"{name} is gated; accept its terms on its hub page and run `hf auth login`,"
            f" or {_INSTEAD}"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"the hub has no model {name} (or it is private); check the name, or {_INSTEAD}"
        ) from error
    except HFValidationError as error:
        raise ModelNotFound(
            f"{name} is no directory and no valid hub name; check the name, or {_INSTEAD}"
        ) from error
    except (LocalEntryNotFoundError, IncompleteSnapshotError) as error:
        raise ModelNotFound(
            f"{name} is not (or not all) on this machine and the hub cannot be reached;"
            f" go online, or {_INSTEAD}"
        ) from error
    except Exception as error:  # any failure of network or disk, from several libraries
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelNotFound(
            f"{name} could not be fetched ({reason}); try again, or {_INSTEAD}"
        ) from error


def _cached() -> Iterator[LocalModel]:
    try:
        repositories = scan_cache_dir().repos
    except (CacheNotFound, OSError, ValueError):
        return
    for repository in repositories:
        if repository.repo_type != "model" or not repository.revisions:
            continue
        latest = max(repository.revisions, key=lambda revision: revision.last_modified)
        try:
            ModelConfig.load(latest.snapshot_path)
        except CheckpointError:
            continue
        if not any(latest.snapshot_path.glob("*.safetensors")):  # a tokenizer alone, say
            continue
        yield LocalModel(repository.repo_id, latest.snapshot_path, latest.size_on_disk)


class _Progress(tqdm):
    """The hub's progress bar, silent where nobody watches."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["disable"] = bool(options.get("disable")) or not sys.stderr.isatty()
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
