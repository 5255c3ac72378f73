"""From a training checkpoint to a model directory that ``--model`` takes, and back."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evals.training.trainable import TrainableNetwork
from sandboxes.paths import write_whole

KEPT_IN_FP32 = ("A_log", "linear_attn.norm.weight")


def export(network: TrainableNetwork, directory: Path) -> int:
    """Write ``model.safetensors`` under the family's tensor names, in bf16; returns its size.

    ``A_log`` and the gated norms stay in float32, as in the published checkpoints.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in network.state_dict().items():
        wide = name.endswith(KEPT_IN_FP32)
        full = name if name.startswith("mtp.") else f"model.{name}"
        tensors[full] = value.to(torch.float32 if wide else torch.bfloat16).contiguous()
    path = directory / "model.safetensors"
    with write_whole(path) as draft:
        save_file(tensors, draft, metadata={"format": "pt"})
    return path.stat().st_size


def load_weights(network: TrainableNetwork, directory: Path) -> None:
    """Give ``network`` the weights that ``export`` wrote, to train on from there."""
    tensors = load_file(directory / "model.safetensors")
    network.load_state_dict(
        {name.removeprefix("model."): value.float() for name, value in tensors.items()}
    )
