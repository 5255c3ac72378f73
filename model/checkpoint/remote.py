"""Fetch from the Hugging Face hub exactly the files of one checkpoint, judged before they come."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub import try_to_load_from_cache as cached_file
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from model.checkpoint.config import ModelConfig
from model.checkpoint.files import read_json
from model.checkpoint.gguf.metadata import ARCHITECTURES
from model.checkpoint.safetensors_source import INDEX
from model.errors import CheckpointError, ModelNotFound

INSTEAD = 'give a checkpoint directory, or "embedded"'
_CONNECT_S = 10.0
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_LABEL = re.compile(
    r"(?:^|[-_./])((?:UD-)?(?:I?Q\d\w*|TQ\d_\d|BF16|F16|F32|FP16|MXFP4\w*|NVFP4\w*))$", re.I
)
_SMALL = ("*.json", "*.jinja")


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository; ``size`` and ``sha256`` where the hub tells them."""

    name: str
    size: int | None = None
    sha256: str | None = None


def fetch(name: str, quant: str = "") -> Path:
    """Fetch the checkpoint of the repository ``name`` and return its folder or GGUF file.

    The configuration is judged first, and the room on the disk. Files in the cache are not fetched
    again; one that was broken off when the process ended begins anew. New files are checked by size
    and hash. Without the hub the cache serves. Raises ``ModelNotFound`` or ``CheckpointError`` in
    one line.
    """
    try:
        info = HfApi().model_info(name, revision="main", files_metadata=True, timeout=_CONNECT_S)
        files = [_remote_file(sibling) for sibling in info.siblings or []]
        chosen = _choose(name, info, files, quant)
        missing = [f for f in chosen if not isinstance(cached_file(name, f.name), str)]
        _require_room(name, missing)
        folder = _download(name, [f.name for f in chosen])
        for file in missing:
            _verify(folder / file.name, file)
        return _entry(name, folder, [f.name for f in chosen], quant)
    except CheckpointError:
        raise
    except (LocalEntryNotFoundError, IncompleteSnapshotError) as error:
        raise _unreachable(name) from error
    except GatedRepoError as error:
        raise ModelNotFound(
            f"{name} is gated; accept its terms on its hub page and run `hf auth login`,"
            f" or {INSTEAD}"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"the hub has no model {name} (or it is private); check the name, or {INSTEAD}"
        ) from error
    except HFValidationError as error:
        raise ModelNotFound(
            f"{name} is no directory and no valid hub name; check the name, or {INSTEAD}"
        ) from error
    except OSError as error:  # no network, or none allowed: connection errors are OSErrors
        if error.errno in _FULL:
            raise ModelNotFound(
                f"the disk filled up while {name} was fetched; make room and try again: files that"
                " came whole are kept"
            ) from error
        return _from_cache(name, quant, error)
    except Exception as error:  # any failure of several libraries
        return _from_cache(name, quant, error)


def label_of(file: str) -> str:
    """Return the quantisation that a GGUF file's name tells, "" if none."""
    stem = _PART.sub("", file.removesuffix(".gguf"))
    found = _LABEL.search(stem)
    return found[1] if found else ""


def main_files(names: Iterable[str]) -> list[str]:
    """Return the GGUF files that hold a language model, without vision and MTP files."""
    kept = []
    for name in sorted(names):
        last = name.rpartition("/")[2].lower()
        if last.endswith(".gguf") and not last.startswith(("mmproj", "mtp-", "imatrix")):
            kept.append(name)
    return kept


def choose_gguf(where: str, names: Iterable[str], quant: str) -> list[str]:
    """Return the files of one quantisation, all its parts. Raises ``ModelNotFound``."""
    models = main_files(names)
    labels = sorted({label_of(name) or Path(name).stem for name in models})
    if not quant and len(labels) != 1:
        raise ModelNotFound(
            f"{where} holds several quantisations; say which: {where}:{labels[0]}"
            f" (there are {', '.join(labels)})"
        )
    wanted = quant.lower() or labels[0].lower()
    for spelling in (wanted, f"ud-{wanted}"):
        found = [n for n in models if (label_of(n) or Path(n).stem).lower() == spelling]
        if len({_PART.sub("", name.removesuffix(".gguf")) for name in found}) == 1:
            return found
    raise ModelNotFound(f"{where} has no quantisation {quant}; there are {', '.join(labels)}")


def _remote_file(sibling: Any) -> RemoteFile:
    lfs = getattr(sibling, "lfs", None)
    return RemoteFile(sibling.rfilename, sibling.size, getattr(lfs, "sha256", None))


def _choose(name: str, info: Any, files: list[RemoteFile], quant: str) -> list[RemoteFile]:
    """Return the files to fetch, once the configuration is judged. Raises ``CheckpointError``."""
    names = [file.name for file in files]
    tensors = [n for n in names if n.endswith(".safetensors") and "/" not in n]
    ggufs = main_files(names)
    if ggufs and (quant or not tensors):
        kind = (getattr(info, "gguf", None) or {}).get("architecture")
        if kind is not None and kind not in ARCHITECTURES:
            raise CheckpointError(
                f"{name} has the architecture {kind}, which is not supported; supported are dense"
                " Qwen3.5/3.6/3.8 models (qwen35)"
            )
        wanted = set(choose_gguf(name, ggufs, quant))
        wanted |= {n for n in names if n.rpartition("/")[2].startswith("mtp-")}
        return [file for file in files if file.name in wanted]
    if quant:
        raise ModelNotFound(f"{name} holds no GGUF files, so no {quant}; leave out :{quant}")
    if not tensors or "config.json" not in names:
        raise CheckpointError(f"{name} holds no config.json with safetensors, and no GGUF file")
    small = [n for n in names if "/" not in n and n.endswith((".json", ".jinja"))]
    ModelConfig.load(Path(hf_hub_download(name, "config.json")).parent)
    wanted = set(small) | set(_listed(name, names, tensors))
    return [file for file in files if file.name in wanted]


def _listed(name: str, names: list[str], tensors: list[str]) -> list[str]:
    """Return the safetensors files that belong together: no duplicates in other forms."""
    extra = [n for n in tensors if n.startswith(("model_extra", "mtp", "extra"))]
    if INDEX in names:
        index = read_json(Path(hf_hub_download(name, INDEX)))
        try:
            listed = {str(file) for file in index["weight_map"].values()}
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{INDEX} of {name} is not a usable index: {error}") from error
        return [*listed, *extra]
    if "model.safetensors" in tensors:
        return ["model.safetensors", *extra]
    return [n for n in tensors if not n.startswith("consolidated")]


def _require_room(name: str, files: list[RemoteFile]) -> None:
    needed = sum(file.size or 0 for file in files)
    place = Path(constants.HF_HUB_CACHE)
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ModelNotFound(
            f"{name} needs {needed / 1e9:,.1f} GB on the disk of {place}, where"
            f" {free / 1e9:,.1f} GB are free; make room, or set HF_HOME to another disk"
        )


def _download(name: str, files: list[str]) -> Path:
    return Path(
        snapshot_download(
            name,
            allow_patterns=files,
            etag_timeout=_CONNECT_S,
            tqdm_class=_Progress,
        )
    )


def _verify(path: Path, file: RemoteFile) -> None:
    """Check a new file by size and hash; remove it if it is another one."""
    if file.size is not None and path.stat().st_size != file.size:
        path.resolve().unlink()
        raise ModelNotFound(f"{file.name} came with another size; try again")
    if file.sha256 is None:
        return
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while piece := opened.read(1 << 22):
            digest.update(piece)
    if digest.hexdigest() != file.sha256:
        path.resolve().unlink()
        raise ModelNotFound(f"{file.name} came damaged (its hash is another one); try again")


def _entry(name: str, folder: Path, files: list[str], quant: str) -> Path:
    """Return what is loaded: the folder, or the first part of the GGUF file."""
    if not any(file.endswith(".safetensors") for file in files):
        found = choose_gguf(name, files, quant)
        return folder / found[0]
    return folder


def _from_cache(name: str, quant: str, error: Exception) -> Path:
    """Return what the cache has of a repository that could not be asked for."""
    held = _snapshot(name)
    names = [] if held is None else [str(p.relative_to(held)) for p in held.rglob("*.gguf")]
    if held is not None and main_files(names) and (quant or not any(held.glob("*.safetensors"))):
        return held / choose_gguf(name, names, quant)[0]
    patterns = ["*.safetensors", *_SMALL]
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
    except (LocalEntryNotFoundError, IncompleteSnapshotError, EntryNotFoundError):
        raise _unreachable(name) from error
    except Exception:  # the cache may be damaged in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelNotFound(
            f"{name} could not be fetched ({reason}); try again, or {INSTEAD}"
        ) from error
    if quant:
        raise _unreachable(name) from error
    if not (folder / "config.json").exists():
        raise _unreachable(name) from error
    return folder


def _snapshot(name: str) -> Path | None:
    """Return the folder of a repository's files in the cache, complete or not."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        found = folder / "snapshots" / (folder / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return found if found.is_dir() else None


def _unreachable(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"{name} is not (or not all) on this machine and the hub cannot be reached;"
        f" go online, or {INSTEAD}"
    )


class _Progress(tqdm):
    """The hub's progress bar, silent where nobody watches."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["disable"] = bool(options.get("disable")) or not sys.stderr.isatty()
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
