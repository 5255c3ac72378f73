"""Find a checkpoint's vision tower: in its safetensors files, or in a GGUF file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model.checkpoint.config import ModelConfig
from model.checkpoint.files import read_json
from model.checkpoint.gguf.metadata import is_gguf
from model.checkpoint.safetensors_source import SafetensorsSource
from model.errors import CheckpointError
from model.vision.eyes import Tower
from model.vision.mmproj import open_mmproj
from model.vision.preparing import Preparing
from model.vision.tower_config import VisionConfig, vision_shapes

_PREFIXES = ("model.visual.", "visual.")


def open_tower(path: Path, config: ModelConfig, mmproj: Path | None = None) -> Tower | None:
    """Return the vision tower of the checkpoint at ``path``; None if it has none.

    ``mmproj`` is a GGUF file with a tower; for a GGUF checkpoint one beside it is found. Raises
    ``CheckpointError`` if there is a tower and it cannot be used.
    """
    given = mmproj or (_beside(path) if is_gguf(path) else None)
    if given is not None:
        return open_mmproj(given, config.hidden_size)
    if is_gguf(path):
        return None
    stated = read_json(path / "config.json")
    try:
        vision = VisionConfig.of(stated if isinstance(stated, Mapping) else {}, config.hidden_size)
    except CheckpointError as error:
        raise CheckpointError(f"{path / 'config.json'}: {error}") from error
    if vision is None:
        return None
    source = SafetensorsSource(path, {})
    first = next(iter(vision_shapes(vision)))
    prefix = next((p for p in _PREFIXES if source.has(p + first)), None)
    if prefix is None:
        return None  # exports of the language model alone keep the configuration of both
    preparing = Preparing.load(path)
    sizes = (preparing.patch, preparing.frames, preparing.merge)
    if sizes != (vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size):
        raise CheckpointError(
            f"{path}: preprocessor_config.json and config.json disagree on the size of patches;"
            " fetch it again"
        )
    shapes = vision_shapes(vision)
    return Tower(
        vision, preparing, {name: source.whole(prefix + name, shapes[name]) for name in shapes}
    )


def _beside(path: Path) -> Path | None:
    """Return the one mmproj file beside a GGUF checkpoint, the most exact if there are several."""
    found = sorted(path.parent.glob("*mmproj*.gguf"))
    for kind in ("F32", "BF16", "F16"):
        for file in found:
            if kind in file.name.upper().replace("-", "_").split(".")[0].split("_"):
                return file
    return found[0] if found else None
