"""The tensors of a checkpoint: their names and shapes, their files, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.checkpoint.config import ModelConfig
from model.errors import CheckpointError

_PREFIXES = ("model.language_model.", "model.")
_TOP_LEVEL = ("lm_head.", "mtp.")
_SAMPLE = 4096


def tensor_shapes(config: ModelConfig, *, mtp: bool = True) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of the language model, in the checkpoint's order.

    Names are the checkpoint's without the leading ``model.language_model.`` or ``model.``, which
    ``lm_head`` and ``mtp`` never have. Tied checkpoints have no ``lm_head.weight``.
    """
    c = config
    hidden, heads = c.hidden_size, c.num_attention_heads
    attention = {
        "self_attn.q_proj.weight": (2 * heads * c.head_dim, hidden),
        "self_attn.k_proj.weight": (c.num_key_value_heads * c.head_dim, hidden),
        "self_attn.v_proj.weight": (c.num_key_value_heads * c.head_dim, hidden),
        "self_attn.o_proj.weight": (hidden, heads * c.head_dim),
        "self_attn.q_norm.weight": (c.head_dim,),
        "self_attn.k_norm.weight": (c.head_dim,),
    }
    delta_net = {
        "linear_attn.dt_bias": (c.linear_num_value_heads,),
        "linear_attn.A_log": (c.linear_num_value_heads,),
        "linear_attn.conv1d.weight": (c.conv_dim, 1, c.linear_conv_kernel_dim),
        "linear_attn.norm.weight": (c.linear_value_head_dim,),
        "linear_attn.out_proj.weight": (hidden, c.linear_value_dim),
        "linear_attn.in_proj_qkv.weight": (c.conv_dim, hidden),
        "linear_attn.in_proj_z.weight": (c.linear_value_dim, hidden),
        "linear_attn.in_proj_b.weight": (c.linear_num_value_heads, hidden),
        "linear_attn.in_proj_a.weight": (c.linear_num_value_heads, hidden),
    }
    around = {
        "mlp.gate_proj.weight": (c.intermediate_size, hidden),
        "mlp.up_proj.weight": (c.intermediate_size, hidden),
        "mlp.down_proj.weight": (hidden, c.intermediate_size),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (c.vocab_size, hidden)}
    for index, kind in enumerate(c.layer_types):
        mixer = attention if kind == "full_attention" else delta_net
        shapes |= {f"layers.{index}.{name}": shape for name, shape in (mixer | around).items()}
    shapes["norm.weight"] = (hidden,)
    if not c.tie_word_embeddings:
        shapes["lm_head.weight"] = (c.vocab_size, hidden)
    if mtp and c.mtp_num_hidden_layers:
        shapes |= {
            "mtp.fc.weight": (hidden, 2 * hidden),
            "mtp.pre_fc_norm_embedding.weight": (hidden,),
            "mtp.pre_fc_norm_hidden.weight": (hidden,),
            "mtp.norm.weight": (hidden,),
        }
        shapes |= {f"mtp.layers.0.{name}": s for name, s in (attention | around).items()}
    return shapes


def parameter_count(config: ModelConfig, *, mtp: bool = True) -> int:
    """Count the parameters of the language model."""
    return sum(math.prod(shape) for shape in tensor_shapes(config, mtp=mtp).values())


def load_tensors(directory: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Map all tensors of the language model, under the names of ``tensor_shapes``.

    Reads ``model.safetensors`` or the shards that ``model.safetensors.index.json`` lists. The
    vision tower is left out; the MTP head is taken whole if any of it is there. Raises
    ``CheckpointError`` with the file and tensor that are missing, truncated or mis-shaped.
    """
    where = _locate(directory)
    prefix = next((p for p in _PREFIXES if p + "embed_tokens.weight" in where), _PREFIXES[0])
    has_mtp = any(name.startswith("mtp.") for name in where)
    wanted: dict[Path, dict[str, tuple[int, ...]]] = {}
    short = {}
    for name, shape in tensor_shapes(config, mtp=has_mtp).items():
        full = name if name.startswith(_TOP_LEVEL) else prefix + name
        if full not in where:
            raise CheckpointError(f"{directory} lacks the tensor {full}; fetch it again")
        wanted.setdefault(where[full], {})[full] = shape
        short[full] = name
    return {
        short[full]: tensor
        for file, shapes in wanted.items()
        for full, tensor in _read(file, shapes).items()
    }


def fingerprint(config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """Hash the weights, so that a saved session is resumed with its own.

    The hash is a SHA-256 over every field of the configuration, the dtype computed in, and for each tensor its
    name, shape, dtype and its first and last 4 KiB. It does not cover the bytes in between.
    """
    digest = hashlib.sha256(repr((config, dtype)).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode())
        flat = tensor.detach().contiguous().view(-1)
        count = _SAMPLE // flat.element_size()
        for part in (flat[:count], flat[-count:]):
            digest.update(part.cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _locate(directory: Path) -> dict[str, Path]:
    """Return the file of each tensor of the checkpoint."""
    index, single = directory / "model.safetensors.index.json", directory / "model.safetensors"
    if not index.is_file():
        if not single.is_file():
            raise CheckpointError(f"{single} is missing; is {directory} a safetensors checkpoint?")
        return dict.fromkeys(_names(single), single)
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {name: directory / Path(file).name for name, file in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a usable index: {error}; fetch it again") from error
    for file in sorted(set(files.values())):
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, though {index.name} lists it; fetch it")
        present = set(_names(file))
        for name, expected in files.items():
            if expected == file and name not in present:
                raise CheckpointError(f"{file} lacks the tensor {name} that {index.name} lists")
    return files


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file} is truncated or damaged ({error}); fetch it again"
        ) from error


def _read(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read the tensors named in ``shapes``; raise if one has another shape."""
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(file, framework="pt") as opened:
            for name in shapes:
                tensors[name] = opened.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{file} is truncated or damaged ({error}); fetch it again"
        ) from error
    for name, shape in shapes.items():
        found = tensors[name]
        if tuple(found.shape) != shape:
            raise CheckpointError(
                f"{name} in {file} has shape {list(found.shape)};"
                f" by config.json it must be {list(shape)}"
            )
        if not found.is_floating_point():
            raise CheckpointError(
                f"{name} in {file} is {found.dtype}; quantised weights do not load"
            )
    return tensors
