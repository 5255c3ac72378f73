"""A vision tower in a GGUF file of its own, as llama.cpp's converter writes it (``mmproj``).

The kernel of the patch embedding is stored as one matrix a frame; all other tensors are as in
safetensors, under shorter names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model.checkpoint.gguf.blocks import BLOCKS
from model.checkpoint.gguf.header import GgufFile
from model.checkpoint.stored import StoredTensor
from model.errors import CheckpointError
from model.vision.eyes import Tower
from model.vision.preparing import Preparing
from model.vision.tower_config import VisionConfig, vision_shapes

_PROJECTOR = "qwen3vl_merger"
_BLOCK = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv": "attn_qkv",
    "attn.proj": "attn_out",
    "mlp.linear_fc1": "ffn_up",
    "mlp.linear_fc2": "ffn_down",
}
_TOP = {
    "patch_embed.proj.bias": "v.patch_embd.bias",
    "pos_embed.weight": "v.position_embd.weight",
    "merger.norm": "v.post_ln",
    "merger.linear_fc1": "mm.0",
    "merger.linear_fc2": "mm.2",
}
_PATCHES = "patch_embed.proj.weight"


def open_mmproj(path: Path, hidden_size: int) -> Tower:
    """Open the tower in the file ``path`` for a model of ``hidden_size``.

    Raises ``CheckpointError`` if it is another tower, or belongs to a model of another size.
    """
    file = GgufFile.open(path)
    try:
        config, preparing = _settings(file.metadata, hidden_size)
        config.check(hidden_size)
    except (CheckpointError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; use the mmproj file of this model") from error
    tensors = {
        name: _patches(file, shape) if name == _PATCHES else _plain(file, name, shape)
        for name, shape in vision_shapes(config).items()
    }
    return Tower(config, preparing, tensors)


def _settings(given: dict[str, Any], hidden_size: int) -> tuple[VisionConfig, Preparing]:
    """Read the tower's dimensions from a file's metadata. Raises ``CheckpointError``."""
    kind = given.get("clip.projector_type") or given.get("clip.vision.projector_type")
    if given.get("general.architecture") != "clip" or kind != _PROJECTOR:
        raise CheckpointError(f"its projector is {kind!r:.40}, not {_PROJECTOR}")

    def number(key: str) -> int:
        if f"clip.vision.{key}" not in given:
            raise CheckpointError(f"it lacks clip.vision.{key}")
        return int(given[f"clip.vision.{key}"])

    if any(given.get("clip.vision.is_deepstack_layers") or ()):
        raise CheckpointError("deepstack layers are not supported")
    patch = number("patch_size")
    merge = int(given.get("clip.vision.spatial_merge_size", 2))
    config = VisionConfig(
        depth=number("block_count"),
        hidden_size=number("embedding_length"),
        intermediate_size=number("feed_forward_length"),
        num_heads=number("attention.head_count"),
        out_hidden_size=int(given.get("clip.vision.projection_dim", hidden_size)),
        num_position_embeddings=(number("image_size") // max(1, patch)) ** 2,
        patch_size=patch,
        spatial_merge_size=merge,
    )
    preparing = Preparing(
        patch=patch,
        merge=merge,
        mean=_three(given, "image_mean"),
        std=_three(given, "image_std"),
    )
    return config, preparing


def _three(given: dict[str, Any], key: str) -> tuple[float, ...]:
    found = given.get(f"clip.vision.{key}", (0.5, 0.5, 0.5))
    values = tuple(float(x) for x in found)
    if len(values) != 3 or (key == "image_std" and not all(values)):
        raise CheckpointError(f"clip.vision.{key} must be three numbers")
    return values


def _plain(file: GgufFile, name: str, shape: tuple[int, ...]) -> StoredTensor:
    module, _, ending = name.rpartition(".")
    if name in _TOP:
        stored = _TOP[name]
    elif module in _TOP:
        stored = f"{_TOP[module]}.{ending}"
    else:
        _, index, part = module.split(".", 2)
        stored = f"v.blk.{index}.{_BLOCK[part]}.{ending}"
    return _read(file, name, stored, shape)


def _patches(file: GgufFile, shape: tuple[int, ...]) -> StoredTensor:
    """Join the two frames of the patch embedding's kernel."""
    flat = (shape[0], shape[1], *shape[3:])
    frames = [
        _read(file, _PATCHES, stored, flat)
        for stored in ("v.patch_embd.weight", "v.patch_embd.weight.1")
    ]
    joined = torch.stack([frame.read().float() for frame in frames], dim=2)
    parts = {str(n): frame.parts[""] for n, frame in enumerate(frames)}
    return StoredTensor(_PATCHES, frames[0].form, shape, parts, joined)


def _read(file: GgufFile, name: str, stored: str, shape: tuple[int, ...]) -> StoredTensor:
    found = file.tensors.get(stored)
    if found is None:
        raise CheckpointError(f"{file.path} lacks the tensor {stored}; fetch it again")
    if found.shape != shape:
        raise CheckpointError(
            f"{stored} in {file.path} has shape {list(found.shape)}; by the file's own keys it"
            f" must be {list(shape)}"
        )
    block, raw = BLOCKS[found.kind], file.raw(stored)
    if block.read is None:
        return StoredTensor(name, block.name, shape, {"": raw}, raw.view(block.dtype).view(shape))
    return StoredTensor(
        name,
        block.name,
        shape,
        {"": raw},
        coded=lambda first, last: block.coded(raw[first:last]),
        code=block.code,
    )
