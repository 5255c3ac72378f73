"""The tensors of a checkpoint: their names and shapes, their files, and their fingerprint."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint.config import ModelConfig
from model.checkpoint.expert_tensors import is_experts
from model.checkpoint.safetensors_source import SafetensorsSource, quantisation_settings
from model.checkpoint.stored import StoredTensor, TensorSource

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
    around = _feed_forward(c) | {
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


def _feed_forward(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a layer's feed-forward network, or of its experts."""
    hidden, wide, experts = config.hidden_size, config.intermediate_size, config.experts
    prefix = "mlp." if experts is None else "mlp.shared_expert."
    dense: dict[str, tuple[int, ...]] = {
        f"{prefix}gate_proj.weight": (wide, hidden),
        f"{prefix}up_proj.weight": (wide, hidden),
        f"{prefix}down_proj.weight": (hidden, wide),
    }
    if experts is None:
        return dense
    return {
        "mlp.gate.weight": (experts.count, hidden),
        "mlp.experts.gate_up_proj": (experts.count, 2 * experts.intermediate_size, hidden),
        "mlp.experts.down_proj": (experts.count, hidden, experts.intermediate_size),
        **dense,
        "mlp.shared_expert_gate.weight": (1, hidden),
    }


def parameter_count(config: ModelConfig, *, mtp: bool = True) -> int:
    """Count the parameters of the language model."""
    return sum(math.prod(shape) for shape in tensor_shapes(config, mtp=mtp).values())


def active_parameter_count(config: ModelConfig, *, mtp: bool = True) -> int:
    """Count the parameters that one token is multiplied with: of the experts only those chosen."""
    total = parameter_count(config, mtp=mtp)
    if config.experts is None:
        return total
    shapes = tensor_shapes(config, mtp=mtp)
    routed = sum(math.prod(s) for n, s in shapes.items() if is_experts(n))
    return total - routed // config.experts.count * (config.experts.count - config.experts.chosen)


def open_tensors(source: TensorSource, config: ModelConfig) -> dict[str, StoredTensor]:
    """Find all tensors of the language model, under the names of ``tensor_shapes``; copy nothing.

    The vision tower is left out; the MTP layer is taken whole if any of it is there. Raises
    ``CheckpointError`` with the file and tensor that are missing, truncated or mis-shaped.
    """
    shapes = tensor_shapes(config, mtp=source.has_mtp)
    return {name: source.find(name, shape) for name, shape in shapes.items()}


def load_tensors(directory: Path, config: ModelConfig) -> dict[str, Tensor]:
    """Read all tensors of a folder of safetensors; those in float forms stay mapped.

    Other forms are turned into float32. Raises as ``open_tensors``.
    """
    source = SafetensorsSource(directory, quantisation_settings(directory))
    return {name: stored.read() for name, stored in open_tensors(source, config).items()}


def fingerprint(config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    """Hash the weights, so that a saved session is resumed with its own.

    The hash is a SHA-256 over every field of the configuration, the dtype computed in, and for
    each tensor its name, shape, dtype and its first and last 4 KiB. The bytes in between are not
    covered.
    """
    digest = hashlib.sha256(repr((config, dtype)).encode())
    if config.experts is not None:
        digest.update(repr(config.experts).encode())
    if config.yarn is not None:
        digest.update(repr(config.yarn).encode())
    add_samples(digest, tensors)
    return digest.hexdigest()


def add_samples(digest: hashlib._Hash, tensors: Mapping[str, Tensor]) -> None:
    """Add each tensor's name, shape, dtype and first and last 4 KiB to ``digest``."""
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, tuple(tensor.shape), tensor.dtype)).encode())
        flat = tensor.detach().contiguous().view(-1)
        count = _SAMPLE // flat.element_size()
        for part in (flat[:count], flat[-count:]):
            digest.update(part.cpu().view(torch.uint8).numpy().tobytes())
