"""Checkpoints with eyes: a tower of the real architecture with few random weights, and pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder

from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.checkpoint.config import ModelConfig
from model.vision.eyes import Eyes
from model.vision.tower import open_tower
from model.vision.tower_config import VisionConfig, vision_shapes
from tests.support.make_tiny_checkpoint import make

VISION_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>")

PREPROCESSOR = {
    "size": {"longest_edge": 96 * 1024, "shortest_edge": 16 * 1024},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_processor_type": "Qwen2VLImageProcessorFast",
}
"""From 16 to 96 tokens a picture."""


def vision_config(hidden_size: int) -> dict[str, Any]:
    """A tower for a model of ``hidden_size``."""
    return {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "out_hidden_size": hidden_size,
        "num_position_embeddings": 64,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "hidden_act": "gelu_pytorch_tanh",
        "deepstack_visual_indexes": [],
    }


def tower_tensors(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors by their names without ``model.visual.``."""
    made = VisionConfig.of({"vision_config": config}, config["out_hidden_size"])
    assert made is not None
    random = torch.Generator().manual_seed(seed)
    return {n: torch.randn(s, generator=random) * 0.1 for n, s in vision_shapes(made).items()}


def give_eyes(directory: Path, seed: int = 0) -> Path:
    """Add a tower to the checkpoint of text in ``directory`` (see ``make_tiny_checkpoint``)."""
    text = json.loads((directory / "config.json").read_text())
    vision = vision_config(text["hidden_size"])
    whole = {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "text_config": {**text, "model_type": "qwen3_5_text"},
        "vision_config": vision,
    }
    (directory / "config.json").write_text(json.dumps(whole))
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    tensors = load_file(directory / "model.safetensors")
    named = {
        name.replace("model.", "model.language_model.", 1): tensor
        for name, tensor in tensors.items()
    }
    named |= {f"model.visual.{n}": t for n, t in tower_tensors(vision, seed).items()}
    save_file(named, directory / "model.safetensors")
    return directory


def png(height: int, width: int, seed: int = 0) -> bytes:
    """A picture with edges, gradients and noise, as a file."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    plain = np.stack([rows * 3 % 256, columns * 5 % 256, (rows // 8 + columns // 8) % 2 * 255], -1)
    image = Image.fromarray((plain * 0.8 + random.integers(0, 51, plain.shape)).astype(np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def sighted_format(folder: Path) -> tuple[ChatFormat, Tokenizer, Eyes, Path]:
    """The official Qwen3.6 template over a small tokenizer that knows the tokens of pictures."""
    make(folder)
    path = folder / "tokenizer.json"
    encoder = Encoder.from_file(str(path))
    encoder.add_tokens([AddedToken(text, special=True) for text in VISION_TOKENS])
    encoder.save(str(path))
    tokenizer = Tokenizer.load(folder)
    give_eyes(folder)
    tower = open_tower(folder, ModelConfig.load(folder))
    assert tower is not None
    eyes = Eyes(tower, torch.float32, torch.device("cpu"))
    return ChatFormat.load(folder, tokenizer).seeing(eyes), tokenizer, eyes, folder
