"""Random blocks of GGUF's types, whose scales are numbers."""

from __future__ import annotations

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor

HALVES = {"Q8_0": (0,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
"""Where each block has its scales in float16."""


def random_blocks(kind: str, rows: int, inputs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random rows of blocks, uint8 ``[rows, bytes]``, and their values by gguf's reader."""
    number = GGMLQuantizationType[kind]
    size, nbytes = gguf.GGML_QUANT_SIZES[number]
    random = np.random.default_rng(seed)
    raw = random.integers(0, 256, (rows * inputs // size, nbytes)).astype(np.uint8)
    for at in HALVES[kind]:
        scales = random.uniform(1e-4, 4e-4, len(raw)) * (4 if kind == "Q8_0" else 1)
        raw[:, at : at + 2] = scales.astype(np.float16).reshape(-1, 1).view(np.uint8)
    raw = raw.reshape(rows, -1)
    return torch.from_numpy(raw), torch.from_numpy(quants.dequantize(raw, number))
