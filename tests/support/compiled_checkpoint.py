"""A small checkpoint on disk in shapes that the compiled path runs, with an MTP layer."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from model.checkpoint.config import ModelConfig
from model.checkpoint.weights import tensor_shapes

CONFIG = {
    "model_type": "qwen3_5_text",
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    "tie_word_embeddings": True,
    "mtp_num_hidden_layers": 1,
    "max_position_embeddings": 4096,
    "dtype": "float32",
}


def make(directory: Path, seed: int, **changes: object) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    g = torch.Generator().manual_seed(seed)
    shapes = tensor_shapes(ModelConfig.load(directory))
    tensors = {name: torch.randn(shape, generator=g) * 0.1 for name, shape in shapes.items()}
    named = {n if n.startswith("mtp.") else f"model.{n}": t for n, t in tensors.items()}
    save_file(named, directory / "model.safetensors")
    return directory
