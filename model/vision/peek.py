"""Tell from its files alone whether a checkpoint has eyes: nothing is loaded, torch neither."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from model.checkpoint.files import read_json
from model.errors import CheckpointError

MARK = b"<|image_pad|>"
PREFIXES = ("model.visual.", "visual.")
FIRST = "patch_embed.proj.weight"
_MOST_TOKENIZER = 64 << 20


def has_eyes(name: str, mmproj: str | None = None) -> bool:
    """Return whether the checkpoint called ``name`` would be loaded with a vision tower.

    ``mmproj`` is a file with one. False for what is not on this machine, and for what is damaged.
    """
    try:
        path = _place(name)
        if path is None:
            return False
        if path.suffix == ".gguf":
            return mmproj is not None or beside(path) is not None
        with (path / "tokenizer.json").open("rb") as file:
            if MARK not in file.read(_MOST_TOKENIZER):
                return False
        return mmproj is not None or any(p + FIRST in set(_tensors(path)) for p in PREFIXES)
    except (CheckpointError, OSError, ValueError, AttributeError):
        return False


def beside(path: Path) -> Path | None:
    """Return the one mmproj file beside a GGUF checkpoint, the most exact if there are several."""
    found = sorted(path.parent.glob("*mmproj*.gguf"))
    for kind in ("F32", "BF16", "F16"):
        for file in found:
            if kind in file.name.upper().replace("-", "_").split(".")[0].split("_"):
                return file
    return found[0] if found else None


def _place(name: str) -> Path | None:
    """Return the folder or GGUF file of a checkpoint on this machine."""
    place = Path(name).expanduser()
    if place.exists():
        return place
    owner, slash, rest = name.partition("/")
    if not (owner and slash and rest) or "/" in rest or ":" in rest:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _tensors(path: Path) -> Iterable[str]:
    """Return the names of a checkpoint's tensors. Raises ``CheckpointError``, ``OSError``."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return list(read_json(index).get("weight_map", {}))
    from safetensors import SafetensorError, safe_open

    names: list[str] = []
    try:
        for file in sorted(path.glob("*.safetensors")):
            with safe_open(file, framework="numpy") as opened:
                names += opened.keys()
    except SafetensorError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return names
