"""GGUF files with a vision tower (mmproj), written by gguf's own writer under llama.cpp's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from model.checkpoint.config import ModelConfig
from tests.support.sighted import tower_tensors, vision_config

NAMES = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attn.qkv": "attn_qkv",
    "attn.proj": "attn_out",
    "mlp.linear_fc1": "ffn_up",
    "mlp.linear_fc2": "ffn_down",
}
TOP = {
    "patch_embed.proj": "v.patch_embd",
    "pos_embed": "v.position_embd",
    "merger.norm": "v.post_ln",
    "merger.linear_fc1": "mm.0",
    "merger.linear_fc2": "mm.2",
}
CONFIG = ModelConfig.tiny(vocab_size=64, context_length=64)
VISION = vision_config(CONFIG.hidden_size)
TENSORS = tower_tensors(VISION)


def write_mmproj(path: Path, **changed: Any) -> Path:
    """Write a tower to ``path``: ``changed`` are a projector, a width, or a tensor to leave out."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("clip.projector_type", changed.get("projector", "qwen3vl_merger"))
    numbers = {
        "image_size": 8 * 16,
        "patch_size": 16,
        "embedding_length": 32,
        "feed_forward_length": 48,
        "block_count": 2,
        "attention.head_count": 4,
        "spatial_merge_size": 2,
        "projection_dim": changed.get("width", 32),
    }
    for key, value in numbers.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    for name, tensor in TENSORS.items():
        module, _, ending = name.rpartition(".")
        if name == "patch_embed.proj.weight":
            writer.add_tensor("v.patch_embd.weight", tensor[:, :, 0].contiguous().numpy())
            writer.add_tensor("v.patch_embd.weight.1", tensor[:, :, 1].contiguous().numpy())
            continue
        if module in TOP:
            stored = TOP[module]
        else:
            _, index, part = module.split(".", 2)
            stored = f"v.blk.{index}.{NAMES[part]}"
        if name != changed.get("without"):
            writer.add_tensor(f"{stored}.{ending}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
