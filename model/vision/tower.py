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
from model.vision.peek import FIRST, PREFIXES, beside
from model.vision.preparing import Preparing
from model.vision.tower_config import VisionConfig, vision_shapes


def open_tower(path: Path, config: ModelConfig, mmproj: Path | None = None) -> Tower | None:
    """Return the vision tower of the checkpoint at ``path``; None if it has none.

    ``mmproj`` is a GGUF file with a tower; for a GGUF checkpoint one beside it is found. Raises
    ``CheckpointError`` if there is a tower and it cannot be used.
    """
    given = mmproj or (beside(path) if is_gguf(path) else None)
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
    prefix = next((p for p in PREFIXES if source.has(p + FIRST)), None)
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
