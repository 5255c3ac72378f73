"""Engines over random, seeded weights in the shapes that the benchmarks measure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from kernels.linear import Part, quantize
from model.checkpoint.config import ModelConfig
from model.checkpoint.quantize import groups, mtp_groups
from model.checkpoint.weights import tensor_shapes
from model.engine import Engine
from model.hybrid.cpu import NativeModel, why_not
from model.hybrid.cpu_mtp import NativeMtp
from model.hybrid.model import HybridModel, HybridNetwork
from model.sampling import SamplingParams
from model.state.memory import StateMemory

CONFIGS = Path(__file__).resolve().parents[2] / "tests" / "golden" / "configs"


def shape(name: str, context_length: int = 1 << 18) -> ModelConfig:
    """Return the configuration ``small`` (5 million parameters, as the embedded model), or a
    published one of ``tests/golden/configs``, such as ``qwen3_5_0.8b``.
    """
    if name != "small":
        config = json.loads((CONFIGS / f"{name}.config.json").read_text())
        return replace(ModelConfig.from_dict(config), context_length=context_length)
    return replace(
        ModelConfig.tiny(vocab_size=4096, context_length=context_length),
        hidden_size=192,
        intermediate_size=448,
        layer_types=(("linear_attention",) * 3 + ("full_attention",)) * 2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=64,
        rotary_dim=16,
        mrope_section=(3, 3, 2),
    )


def random_tensors(
    config: ModelConfig, dtype: torch.dtype, seed: int = 0, *, mtp: bool = False
) -> dict[str, Tensor]:
    """Return weights under the checkpoint's names: rows of unit scale, moderate decays, and the MTP
    layer where ``mtp`` asks for it."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, size in tensor_shapes(config).items():
        if name.startswith("mtp.") and not mtp:
            continue
        if name.endswith("A_log"):
            tensors[name] = torch.empty(size).uniform_(0.003, 0.3, generator=generator).log()
        else:
            spread = size[-1] ** -0.5 if len(size) > 1 else 0.2
            tensor = torch.empty(size, dtype=dtype).normal_(std=spread, generator=generator)
            tensors[name] = tensor
    return tensors


def random_engine(
    name: str,
    dtype: torch.dtype = torch.bfloat16,
    *,
    context_length: int = 1 << 18,
    memory: StateMemory | None = None,
    native: bool = True,
    mtp: bool = False,
    bits: int | None = None,
) -> Engine:
    """Return an engine over random weights of ``shape(name)``, compiled if it can be, with the MTP
    layer if ``mtp`` asks for it, and rounded to ``bits`` 4 or 8 if given."""
    config = shape(name, context_length)
    with torch.inference_mode():
        tensors = random_tensors(config, dtype, mtp=mtp)
        rounded = {} if bits is None else _rounded(config, tensors, bits)
        model = HybridModel.build(config, tensors, dtype, rounded)
    compiled = NativeModel(model) if native and why_not(config, dtype) is None else None
    network = HybridNetwork(
        model,
        fingerprint=f"random-{name}-{dtype}",
        memory=memory,
        compiled=compiled,
        mtp=NativeMtp(compiled) if mtp and compiled is not None else None,
    )
    return Engine(network, config, name=name, generation=SamplingParams())


def _rounded(config: ModelConfig, tensors: dict[str, Tensor], bits: int) -> dict[str, Part]:
    """Round the matrices of ``tensors`` as ``--quantize`` does."""
    made: dict[str, Part] = {
        names[0]: quantize(torch.cat([tensors[name] for name in names]), bits)
        for names in groups(config)
    }
    for names in mtp_groups(config):
        if names[0] in tensors:
            made[names[0]] = quantize(torch.cat([tensors[name] for name in names]), 8)
    return made
