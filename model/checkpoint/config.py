"""The configuration of a network, read from ``config.json`` and checked.

Both forms are read: the multimodal one, with the language model under ``text_config``, and the
text-only one. A checkpoint either runs as its makers meant or is refused with one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from kernels.rope import Yarn
from model.checkpoint.files import read_json
from model.checkpoint.rope_settings import ignored_block, read_rope
from model.errors import CheckpointError
from model.sampling import SamplingParams

MOST_LAYERS = 1024
"""More layers than any member of the family has; more are refused before anything is built."""
MOST_WIDTH = 1 << 24
"""The largest size of any kind that is believed."""
MOST_EXPERTS = 4096
"""More experts a layer than any member of the family has."""

LayerType = Literal["linear_attention", "full_attention"]

_DENSE = ("qwen3_5", "qwen3_5_text")
_EXPERTS = ("qwen3_5_moe", "qwen3_5_moe_text")
_SUPPORTED = "supported are Qwen3.5/3.6/3.8 checkpoints (model_type qwen3_5 or qwen3_5_moe)"
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class ExpertsConfig:
    """The routed experts of a mixture-of-experts layer: ``count`` of them (``num_experts``), of
    which each token runs ``chosen`` (``num_experts_per_tok``), each ``intermediate_size`` wide
    (``moe_intermediate_size``).
    """

    count: int
    chosen: int
    intermediate_size: int


@dataclass(frozen=True)
class ModelConfig:
    """The dimensions of one network of the family, under Hugging Face's names where it has them.

    ``rotary_dim`` is the number of dimensions of a head that turn with the position,
    ``context_length`` the most tokens of a sequence, ``dtype`` that of the stored weights. With
    ``experts``, ``intermediate_size`` is the width of the shared expert. ``note`` is a line
    that the user should read.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layer_types: tuple[LayerType, ...]
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    linear_num_key_heads: int
    linear_num_value_heads: int
    linear_key_head_dim: int
    linear_value_head_dim: int
    linear_conv_kernel_dim: int
    rope_theta: float
    rotary_dim: int
    mrope_section: tuple[int, ...]
    rms_norm_eps: float
    tie_word_embeddings: bool
    mtp_num_hidden_layers: int
    context_length: int
    dtype: torch.dtype
    # Left out of the text that fingerprints cover, so that those of dense models stay as they were.
    experts: ExpertsConfig | None = field(default=None, repr=False)
    yarn: Yarn | None = field(default=None, repr=False)
    note: str = field(default="", repr=False, compare=False)

    @property
    def num_hidden_layers(self) -> int:
        """The number of layers, without the MTP layers."""
        return len(self.layer_types)

    @property
    def rope_magnitude(self) -> float:
        """The factor of cosines and sines."""
        return 1.0 if self.yarn is None else self.yarn.magnitude

    @property
    def linear_key_dim(self) -> int:
        """The width of all DeltaNet keys together."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def linear_value_dim(self) -> int:
        """The width of all DeltaNet values together."""
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def conv_dim(self) -> int:
        """The width of the short convolution's inputs: queries, keys and values."""
        return 2 * self.linear_key_dim + self.linear_value_dim

    @classmethod
    def load(cls, directory: Path) -> ModelConfig:
        """Read ``directory/config.json``. Raises ``CheckpointError``."""
        path = directory / "config.json"
        if not path.exists():
            raise CheckpointError(f"{path} is missing; is {directory} a checkpoint?")
        try:
            return cls.from_dict(read_json(path))
        except CheckpointError as error:
            if str(path) in str(error):
                raise
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> ModelConfig:
        """Read a parsed ``config.json``. Raises ``CheckpointError``."""
        if not isinstance(given, Mapping):
            raise CheckpointError("the configuration is not a JSON object")
        if given.get("model_type") not in _DENSE + _EXPERTS:
            names = given.get("architectures") or [given.get("model_type")]
            raise CheckpointError(f"architecture {names[0]} is not supported; {_SUPPORTED}")
        text = given.get("text_config", given)
        try:
            experts = _experts(text) if given["model_type"] in _EXPERTS else None
            rope = read_rope(text)
            width = "intermediate_size" if experts is None else "shared_expert_intermediate_size"
            config = cls(
                vocab_size=int(text["vocab_size"]),
                hidden_size=int(text["hidden_size"]),
                intermediate_size=int(text[width]),
                layer_types=_layer_types(text),
                num_attention_heads=int(text["num_attention_heads"]),
                num_key_value_heads=int(text["num_key_value_heads"]),
                head_dim=int(text["head_dim"]),
                linear_num_key_heads=int(text["linear_num_key_heads"]),
                linear_num_value_heads=int(text["linear_num_value_heads"]),
                linear_key_head_dim=int(text["linear_key_head_dim"]),
                linear_value_head_dim=int(text["linear_value_head_dim"]),
                linear_conv_kernel_dim=int(text["linear_conv_kernel_dim"]),
                rope_theta=rope.theta,
                rotary_dim=rope.rotary_dim,
                mrope_section=rope.section,
                rms_norm_eps=float(text.get("rms_norm_eps", 1e-6)),
                tie_word_embeddings=bool(
                    text.get("tie_word_embeddings", given.get("tie_word_embeddings", False))
                ),
                mtp_num_hidden_layers=int(text.get("mtp_num_hidden_layers") or 0),
                context_length=rope.context_length,
                dtype=_dtype(text, given),
                experts=experts,
                yarn=rope.yarn,
                note=ignored_block(given) or "",
            )
        except KeyError as error:
            raise CheckpointError(f"the configuration lacks {error}; {_SUPPORTED}") from error
        except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise CheckpointError(f"the configuration has a wrong value: {error}") from error
        _check(config, text)
        return config

    @classmethod
    def tiny(cls, *, vocab_size: int, context_length: int) -> ModelConfig:
        """Return the smallest member of the family, for networks without weights and for tests."""
        return cls(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=48,
            layer_types=("linear_attention",) * 3 + ("full_attention",),
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            linear_conv_kernel_dim=4,
            rope_theta=10000.0,
            rotary_dim=4,
            mrope_section=(1, 1, 0),
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            mtp_num_hidden_layers=1,
            context_length=context_length,
            dtype=torch.float32,
        )


def _experts(text: Mapping[str, Any]) -> ExpertsConfig:
    """Read the sizes of the routed experts. Raises ``CheckpointError`` if they cannot be."""
    made = ExpertsConfig(
        int(text["num_experts"]),
        int(text["num_experts_per_tok"]),
        int(text["moe_intermediate_size"]),
    )
    if not 1 <= made.count <= MOST_EXPERTS:
        raise CheckpointError(
            f"num_experts must be from 1 to {MOST_EXPERTS:,}, not {made.count}; {_SUPPORTED}"
        )
    if not 1 <= made.chosen <= made.count:
        raise CheckpointError(
            f"num_experts_per_tok must be from 1 to num_experts ({made.count}), not {made.chosen};"
            " fetch the configuration again"
        )
    if not 1 <= made.intermediate_size <= MOST_WIDTH:
        raise CheckpointError(
            f"moe_intermediate_size must be from 1 to {MOST_WIDTH:,}; {_SUPPORTED}"
        )
    return made


def _layer_types(text: Mapping[str, Any]) -> tuple[LayerType, ...]:
    count = int(text["num_hidden_layers"])
    if not 0 < count <= MOST_LAYERS:
        raise CheckpointError(
            f"num_hidden_layers must be from 1 to {MOST_LAYERS}, not {count}; {_SUPPORTED}"
        )
    kinds = text.get("layer_types")
    if kinds is None:
        every = int(text.get("full_attention_interval", 4))
        return tuple(
            "linear_attention" if (i + 1) % every else "full_attention" for i in range(count)
        )
    if len(kinds) != count:
        raise CheckpointError(f"layer_types has {len(kinds)} entries for {count} layers")
    unknown = set(kinds) - {"linear_attention", "full_attention"}
    if unknown:
        raise CheckpointError(f"layer type {sorted(unknown)[0]!r} is not supported; {_SUPPORTED}")
    return tuple(kinds)


def _dtype(text: Mapping[str, Any], given: Mapping[str, Any]) -> torch.dtype:
    for source in (text, given):
        name = source.get("dtype") or source.get("torch_dtype")
        if name is not None:
            if name not in _DTYPES:
                raise CheckpointError(f"dtype {name!r} is not supported; use bf16, fp16 or fp32")
            return _DTYPES[name]
    return torch.bfloat16


def _check(config: ModelConfig, text: Mapping[str, Any]) -> None:
    """Refuse what the forward pass would silently compute wrongly."""
    for name, size in vars(config).items():
        if type(size) is int and size < 1 and name != "mtp_num_hidden_layers":
            raise CheckpointError(f"{name} must be 1 or more; {_SUPPORTED}")
        if type(size) is int and size > MOST_WIDTH:
            raise CheckpointError(f"{name} must be at most {MOST_WIDTH:,}; {_SUPPORTED}")
    rules = {
        "attention_bias is not supported": not text.get("attention_bias"),
        "attn_output_gate must be true": text.get("attn_output_gate", True),
        "hidden_act must be silu": text.get("hidden_act", "silu") == "silu",
        "mtp_use_dedicated_embeddings is not supported": not text.get(
            "mtp_use_dedicated_embeddings"
        ),
        "num_experts needs a model_type of qwen3_5_moe": (
            config.experts is not None or not text.get("num_experts")
        ),
        "there must be at least one layer": config.num_hidden_layers > 0,
        "mtp_num_hidden_layers must be 0 or 1": config.mtp_num_hidden_layers in (0, 1),
        "rotary_dim must be even and within the head": config.rotary_dim % 2 == 0
        and 0 < config.rotary_dim <= config.head_dim,
        "mrope_section must be three numbers": len(config.mrope_section) == 3,
        "num_attention_heads must be a multiple of num_key_value_heads": (
            config.num_attention_heads % config.num_key_value_heads == 0
        ),
        "linear_num_value_heads must be a multiple of linear_num_key_heads": (
            config.linear_num_value_heads % config.linear_num_key_heads == 0
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            raise CheckpointError(f"{rule}; {_SUPPORTED}")


def head_name(config: ModelConfig) -> str:
    """Return the name of the tensor that the logits come from."""
    return "embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"


def read_generation_config(directory: Path) -> SamplingParams:
    """Read the sampling in ``generation_config.json``; use defaults where it is silent.

    Raises ``CheckpointError`` if the file is there but cannot be used.
    """
    path = directory / "generation_config.json"
    if not path.exists():
        return SamplingParams()
    given = read_json(path)
    try:
        stated = {key: value for key, value in given.items() if value is not None}
        plain = SamplingParams()
        temperature = float(stated.get("temperature", plain.temperature))
        return SamplingParams(
            temperature=0.0 if stated.get("do_sample") is False else temperature,
            top_k=int(stated.get("top_k", plain.top_k)),
            top_p=float(stated.get("top_p", plain.top_p)),
            min_p=float(stated.get("min_p", plain.min_p)),
            presence_penalty=float(stated.get("presence_penalty", plain.presence_penalty)),
        )
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise CheckpointError(f"{path} is not a usable generation config: {error}") from error
