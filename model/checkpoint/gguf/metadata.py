"""The configuration and the sampling that a GGUF file's keys give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.checkpoint.config import MOST_LAYERS, ModelConfig
from model.checkpoint.gguf.blocks import BLOCKS
from model.checkpoint.gguf.header import GgufFile
from model.errors import CheckpointError
from model.sampling import SamplingParams

ARCHITECTURES = ("qwen35", "qwen35moe")


def read_config(opened: list[GgufFile]) -> ModelConfig:
    """Return the configuration that the keys of a file describe. Raises ``CheckpointError``."""
    file = opened[0]
    try:
        return ModelConfig.from_dict(_as_config(file.metadata, opened))
    except CheckpointError as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(
            f"{file.path} lacks the key {error}, or it has a wrong value; fetch it again"
        ) from error


def read_sampling(file: GgufFile) -> SamplingParams:
    """Return the sampling that the keys ``general.sampling.*`` ask for; the family's without."""
    plain = SamplingParams()
    given = {
        name: file.metadata.get(f"general.sampling.{key}")
        for name, key in (("temperature", "temp"), ("top_k", "top_k"), ("top_p", "top_p"))
    }
    try:
        return SamplingParams(
            temperature=float(_or(given["temperature"], plain.temperature)),
            top_k=int(_or(given["top_k"], plain.top_k)),
            top_p=float(_or(given["top_p"], plain.top_p)),
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file.path} has a wrong sampling key: {error}") from error


def _or(value: Any, default: float) -> Any:
    return default if value is None else value


def _as_config(metadata: Mapping[str, Any], opened: list[GgufFile]) -> dict[str, Any]:
    """Return the keys under the names of ``config.json``."""
    kind = metadata.get("general.architecture")
    if kind not in ARCHITECTURES:
        raise CheckpointError(
            f"architecture {str(kind)[:80]} is not supported; supported are Qwen3.5/3.6/3.8 models"
            " (qwen35, qwen35moe)"
        )

    def key(name: str) -> Any:
        return metadata[f"{kind}.{name}"]

    nextn = int(metadata.get(f"{kind}.nextn_predict_layers", 0))
    layers = int(key("block_count")) - nextn
    heads, head_dim = int(key("attention.head_count")), int(key("attention.key_length"))
    value_heads = int(key("ssm.time_step_rank"))
    tensors = {name: found for file in opened for name, found in file.tensors.items()}
    if "token_embd.weight" not in tensors:
        raise CheckpointError("it lacks the tensor token_embd.weight; use the model's main file")
    plain = {BLOCKS[t.kind].name for n, t in tensors.items() if n.endswith(".weight")}
    made: dict[str, Any] = {
        "model_type": "qwen3_5_moe_text" if kind == "qwen35moe" else "qwen3_5_text",
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "hidden_size": int(key("embedding_length")),
        "intermediate_size": int(metadata.get(f"{kind}.feed_forward_length", 0) or 1),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": int(key("attention.head_count_kv")),
        "head_dim": head_dim,
        "linear_num_key_heads": int(key("ssm.group_count")),
        "linear_num_value_heads": value_heads,
        "linear_key_head_dim": int(key("ssm.state_size")),
        "linear_value_head_dim": int(key("ssm.inner_size")) // value_heads,
        "linear_conv_kernel_dim": int(key("ssm.conv_kernel")),
        "rms_norm_eps": float(key("attention.layer_norm_rms_epsilon")),
        "tie_word_embeddings": "output.weight" not in tensors,
        "mtp_num_hidden_layers": nextn,
        "max_position_embeddings": int(key("context_length")),
        "dtype": "float32" if plain == {"F32"} else "bfloat16",
        "rope_parameters": {
            "rope_theta": float(key("rope.freq_base")),
            "partial_rotary_factor": int(key("rope.dimension_count")) / head_dim,
            "mrope_section": [int(n) for n in key("rope.dimension_sections")[:3]],
            **_scaling(metadata, f"{kind}.rope.scaling."),
        },
    }
    if kind == "qwen35moe":
        made["num_experts"] = int(key("expert_count"))
        made["num_experts_per_tok"] = int(key("expert_used_count"))
        made["moe_intermediate_size"] = int(key("expert_feed_forward_length"))
        made["shared_expert_intermediate_size"] = int(key("expert_shared_feed_forward_length"))
    recurrent = metadata.get(f"{kind}.attention.recurrent_layers")
    if isinstance(recurrent, list) and 0 < layers <= MOST_LAYERS:
        made["layer_types"] = [
            "linear_attention" if flag else "full_attention" for flag in recurrent[:layers]
        ]
    else:
        made["full_attention_interval"] = int(metadata.get(f"{kind}.full_attention_interval", 4))
    return made


def is_gguf(path: Path) -> bool:
    """Tell whether a path names a GGUF file."""
    return path.suffix == ".gguf"


def _scaling(metadata: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the keys of a YaRN block under a configuration's names; plain rotation without one."""
    kind = metadata.get(f"{prefix}type") or "none"
    if kind == "none":
        return {"rope_type": "default"}
    made = {"rope_type": kind, "factor": metadata.get(f"{prefix}factor")}
    names = {
        "original_context_length": "original_max_position_embeddings",
        "attn_factor": "attention_factor",
        "yarn_beta_fast": "beta_fast",
        "yarn_beta_slow": "beta_slow",
    }
    return made | {
        name: metadata[prefix + key] for key, name in names.items() if prefix + key in metadata
    }
