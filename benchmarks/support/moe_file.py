"""A GGUF file of the 35B-A3B shape with few layers and random weights, by gguf's own writer.

Types are those of llama.cpp's Q4_K_M: Q4_K, with Q6_K for the head and for half of the down and
value projections. Blocks are random bytes whose scales make weights of the usual size. The big
stacks of all layers are the same bytes at different places, so that writing takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "tests" / "golden" / "configs" / "qwen3_6_35b_a3b.config.json"
TYPES = {"Q4_K": (144, 7.5), "Q6_K": (210, 0.0)}
NAME = "qwen35moe"


def layer_bytes(config: dict[str, Any]) -> int:
    """Return about how many bytes a layer takes in the file."""
    experts = 3 * config["num_experts"] * config["moe_intermediate_size"] * config["hidden_size"]
    return int(experts * (2 * 144 + 177) / 3 / 256 * 1.05)


def shape_of_35b(layers: int) -> dict[str, Any]:
    """Return the published configuration with ``layers`` layers and no MTP layer."""
    config: dict[str, Any] = json.loads(CONFIG.read_text(encoding="utf-8"))
    config["layer_types"] = config["layer_types"][:layers]
    return config | {"num_hidden_layers": layers, "mtp_num_hidden_layers": 0}


class _Random:
    """Random tensors, each kind made once."""

    def __init__(self, seed: int) -> None:
        self._numbers = np.random.default_rng(seed)
        self._kept: dict[tuple[str, tuple[int, ...]], np.ndarray] = {}

    def floats(self, *shape: int, size: float = 1.0, around: float = 0.0) -> np.ndarray:
        """Return new normal numbers of standard deviation ``size`` around ``around``."""
        made = self._numbers.standard_normal(shape, dtype=np.float32) * size + around
        return made.astype(np.float32)

    def blocks(self, kind: str, *shape: int) -> np.ndarray:
        """Return the blocks of a matrix or stack, the same for each of one shape."""
        if (kind, shape) not in self._kept:
            nbytes, middle = TYPES[kind]
            raw = self._numbers.bytes(int(np.prod(shape)) // 256 * nbytes)
            blocks = np.frombuffer(raw, np.uint8).reshape(-1, nbytes).copy()
            # Codes, and the 6-bit or 8-bit scales that they are multiplied with, are uniform.
            spread = shape[-1] ** -0.5 / (4.6 * 36 if kind == "Q4_K" else 18.5 * 74)
            places = ((0, spread), (2, spread * middle)) if kind == "Q4_K" else ((208, spread),)
            for at, scale in places:
                blocks[:, at : at + 2] = np.array([scale], np.float16).view(np.uint8)
            self._kept[kind, shape] = blocks.reshape(*shape[:-1], -1)
        return self._kept[kind, shape]


def write(path: Path, layers: int) -> dict[str, Any]:
    """Write the file unless it is there; return its configuration."""
    config = shape_of_35b(layers)
    if path.is_file():
        return config
    draft = path.with_suffix(".part")
    writer = gguf.GGUFWriter(draft, NAME)
    _keys(writer, config)
    _vocabulary(writer, config["vocab_size"])
    random, hidden = _Random(0), config["hidden_size"]

    def add(name: str, kind: str, *shape: int) -> None:
        writer.add_tensor(name, random.blocks(kind, *shape), raw_dtype=GGMLQuantizationType[kind])

    add("token_embd.weight", "Q4_K", config["vocab_size"], hidden)
    writer.add_tensor("output_norm.weight", random.floats(hidden, size=0.05, around=1.0))
    add("output.weight", "Q6_K", config["vocab_size"], hidden)
    for index, kind in enumerate(config["layer_types"]):
        better = "Q6_K" if index % 2 else "Q4_K"
        mixer = _attention if kind == "full_attention" else _delta_net
        mixer(writer, random, config, f"blk.{index}.", better)
        _experts(writer, random, config, f"blk.{index}.", better)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    draft.replace(path)
    return config


def _attention(
    writer: gguf.GGUFWriter, random: _Random, c: dict[str, Any], at: str, better: str
) -> None:
    hidden, dim = c["hidden_size"], c["head_dim"]
    heads, kv = c["num_attention_heads"] * dim, c["num_key_value_heads"] * dim
    shapes = {"attn_q": (2 * heads, hidden), "attn_k": (kv, hidden), "attn_v": (kv, hidden)}
    shapes["attn_output"] = (hidden, heads)
    for name, shape in shapes.items():
        kind = better if name == "attn_v" else "Q4_K"
        blocks = random.blocks(kind, *shape)
        writer.add_tensor(f"{at}{name}.weight", blocks, raw_dtype=GGMLQuantizationType[kind])
    for name in ("attn_q_norm", "attn_k_norm"):
        writer.add_tensor(f"{at}{name}.weight", random.floats(dim, size=0.05, around=1.0))


def _delta_net(
    writer: gguf.GGUFWriter, random: _Random, c: dict[str, Any], at: str, better: str
) -> None:
    hidden, heads = c["hidden_size"], c["linear_num_value_heads"]
    values = heads * c["linear_value_head_dim"]
    channels = 2 * c["linear_num_key_heads"] * c["linear_key_head_dim"] + values
    shapes = {"attn_qkv": (channels, hidden), "attn_gate": (values, hidden)}
    shapes["ssm_out"] = (hidden, values)
    for name, shape in shapes.items():
        blocks = random.blocks("Q4_K", *shape)
        writer.add_tensor(f"{at}{name}.weight", blocks, raw_dtype=GGMLQuantizationType.Q4_K)
    for name in ("ssm_alpha", "ssm_beta"):
        writer.add_tensor(f"{at}{name}.weight", random.floats(heads, hidden, size=0.02))
    decay = -np.exp(random.floats(heads, size=0.5) - 2)
    writer.add_tensor(f"{at}ssm_a", decay.astype(np.float32))
    writer.add_tensor(f"{at}ssm_dt.bias", random.floats(heads, size=0.5))
    writer.add_tensor(f"{at}ssm_conv1d.weight", random.floats(channels, 4, size=0.3))
    writer.add_tensor(
        f"{at}ssm_norm.weight", random.floats(c["linear_value_head_dim"], size=0.05, around=1.0)
    )


def _experts(
    writer: gguf.GGUFWriter, random: _Random, c: dict[str, Any], at: str, better: str
) -> None:
    hidden, count, inner = c["hidden_size"], c["num_experts"], c["moe_intermediate_size"]
    own = c["shared_expert_intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "ffn_gate_exps": (count, inner, hidden),
        "ffn_up_exps": (count, inner, hidden),
        "ffn_down_exps": (count, hidden, inner),
        "ffn_gate_shexp": (own, hidden),
        "ffn_up_shexp": (own, hidden),
        "ffn_down_shexp": (hidden, own),
    }
    for name, shape in shapes.items():
        kind = better if "down" in name else "Q4_K"
        blocks = random.blocks(kind, *shape)
        writer.add_tensor(f"{at}{name}.weight", blocks, raw_dtype=GGMLQuantizationType[kind])
    writer.add_tensor(f"{at}ffn_gate_inp.weight", random.floats(count, hidden, size=0.05))
    writer.add_tensor(f"{at}ffn_gate_inp_shexp.weight", random.floats(hidden, size=0.02))
    for name in ("attn_norm", "post_attention_norm"):
        writer.add_tensor(f"{at}{name}.weight", random.floats(hidden, size=0.05, around=1.0))


def _keys(writer: gguf.GGUFWriter, c: dict[str, Any]) -> None:
    rope, heads = c["rope_parameters"], c["linear_num_value_heads"]
    numbers = {
        "block_count": c["num_hidden_layers"],
        "context_length": c["max_position_embeddings"],
        "embedding_length": c["hidden_size"],
        "attention.head_count": c["num_attention_heads"],
        "attention.head_count_kv": c["num_key_value_heads"],
        "attention.key_length": c["head_dim"],
        "attention.value_length": c["head_dim"],
        "rope.dimension_count": int(c["head_dim"] * rope["partial_rotary_factor"]),
        "ssm.conv_kernel": c["linear_conv_kernel_dim"],
        "ssm.state_size": c["linear_key_head_dim"],
        "ssm.group_count": c["linear_num_key_heads"],
        "ssm.time_step_rank": heads,
        "ssm.inner_size": heads * c["linear_value_head_dim"],
        "full_attention_interval": 4,
        "expert_count": c["num_experts"],
        "expert_used_count": c["num_experts_per_tok"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_feed_forward_length": c["shared_expert_intermediate_size"],
    }
    writer.add_name("random 35B-A3B with few layers")
    for key, value in numbers.items():
        writer.add_uint32(f"{NAME}.{key}", value)
    writer.add_float32(f"{NAME}.attention.layer_norm_rms_epsilon", c["rms_norm_eps"])
    writer.add_float32(f"{NAME}.rope.freq_base", float(rope["rope_theta"]))
    writer.add_array(f"{NAME}.rope.dimension_sections", [*rope["mrope_section"], 0])


def _vocabulary(writer: gguf.GGUFWriter, size: int) -> None:
    """Write made-up tokens: the peer does not load a file without any."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen35")
    writer.add_token_list([f"t{number}" for number in range(size)])
    writer.add_token_types([1] * size)
    writer.add_token_merges(["t 1"])
    writer.add_eos_token_id(size - 1)
