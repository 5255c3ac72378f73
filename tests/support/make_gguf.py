"""Write a model of this family as a GGUF file, with gguf's own writer and llama.cpp's names.

The changes are those of llama.cpp's converter: value heads tiled over key heads, one added to the
zero-centred norms, ``-exp(A_log)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor

NAMES = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "mlp.experts.gate_proj": "ffn_gate_exps.weight",
    "mlp.experts.up_proj": "ffn_up_exps.weight",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    "mlp.shared_expert.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_expert.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_expert.down_proj.weight": "ffn_down_shexp.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "linear_attn.in_proj_qkv.weight": "attn_qkv.weight",
    "linear_attn.in_proj_z.weight": "attn_gate.weight",
    "linear_attn.in_proj_a.weight": "ssm_alpha.weight",
    "linear_attn.in_proj_b.weight": "ssm_beta.weight",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.conv1d.weight": "ssm_conv1d.weight",
    "linear_attn.norm.weight": "ssm_norm.weight",
    "linear_attn.out_proj.weight": "ssm_out.weight",
    "fc.weight": "nextn.eh_proj.weight",
    "pre_fc_norm_embedding.weight": "nextn.enorm.weight",
    "pre_fc_norm_hidden.weight": "nextn.hnorm.weight",
}
Types = Mapping[str, str]
"""The block type of a tensor by its name in the file; ``""`` is for all other matrices."""


def make_gguf(
    path: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    types: Types,
    *,
    tokenizer: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    fused: bool = False,
) -> dict[str, Tensor]:
    """Write ``tensors``, named as in safetensors without ``model.``; return their new values.

    With ``fused``, gate and up of the experts are one stack, else two.
    """
    writer = gguf.GGUFWriter(path, "qwen35moe" if "num_experts" in config else "qwen35")
    layers, nextn = int(config["num_hidden_layers"]), int("mtp.fc.weight" in tensors)
    _keys(writer, config, layers + nextn, nextn)
    for key, value in (extra or {}).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_uint32(key, value)
    if tokenizer is not None:
        _tokenizer(writer, tokenizer)
    values = {}
    for name, tensor in tensors.items():
        if ".mlp.experts." in name:
            values[name] = _experts(writer, name, tensor, types, layers, fused)
            continue
        stored = _stored_name(name, layers)
        turned = _turned(name, tensor.detach().float(), config)
        kind = types.get(stored, types.get("", "F32") if turned.dim() == 2 else "F32")
        if turned.dim() == 2 and not stored.endswith(("ssm_conv1d.weight",)) and kind != "F32":
            number = GGMLQuantizationType[kind]
            blocks = _quantised(turned.numpy(), number)
            writer.add_tensor(stored, blocks, raw_dtype=number)
            turned = torch.from_numpy(quants.dequantize(blocks, number))
        else:
            writer.add_tensor(stored, turned.contiguous().numpy())
        values[name] = _turned_back(name, turned, tensor, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def _experts(
    writer: gguf.GGUFWriter, name: str, tensor: Tensor, types: Types, layers: int, fused: bool
) -> Tensor:
    """Write the stacks of one tensor ``[experts, outputs, inputs]``; return the new values."""
    apart = name.endswith("gate_up_proj") and not fused
    names = [name.replace("gate_up", p) for p in ("gate", "up")] if apart else [name]
    values = []
    for own, part in zip(names, tensor.detach().float().chunk(len(names), 1), strict=True):
        stored = _stored_name(own, layers)
        kind = types.get(stored, types.get("", "F32"))
        flat = part.reshape(-1, part.shape[-1])
        if kind == "F32":
            writer.add_tensor(stored, part.contiguous().numpy())
            values.append(part)
            continue
        number = GGMLQuantizationType[kind]
        blocks = _quantised(flat.numpy(), number)
        writer.add_tensor(stored, blocks.reshape(*part.shape[:2], -1), raw_dtype=number)
        values.append(torch.from_numpy(quants.dequantize(blocks, number)).reshape(part.shape))
    return torch.cat(values, 1)


def _quantised(values: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Round by gguf; random blocks of a small scale where it cannot."""
    try:
        return quants.quantize(values, kind)
    except NotImplementedError:
        size, nbytes = gguf.GGML_QUANT_SIZES[kind]
        random = np.random.default_rng(values.shape[0])
        raw = random.integers(0, 256, (values.size // size, nbytes)).astype(np.uint8)
        places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "Q4_K": (0, 2), "Q5_K": (0, 2)}
        for at in places.get(kind.name, (0,)):
            raw[:, at : at + 2] = np.float16(2e-4).reshape(1).view(np.uint8)
        if kind.name == "NVFP4":
            raw[:, :4] %= 20
        if kind.name == "IQ1_M":
            raw[:, 49:56:2] = raw[:, 49:56:2] & 15 | np.array([0, 0x80, 0x40, 0x10], np.uint8)
        return raw.reshape(values.shape[0], -1)


def _stored_name(name: str, layers: int) -> str:
    if name in ("embed_tokens.weight", "norm.weight", "lm_head.weight"):
        return {"e": "token_embd.weight", "n": "output_norm.weight", "l": "output.weight"}[name[0]]
    if name == "mtp.norm.weight":
        return f"blk.{layers}.nextn.shared_head_norm.weight"
    if name.startswith("mtp."):
        return f"blk.{layers}." + NAMES[name.removeprefix("mtp.").removeprefix("layers.0.")]
    _, index, rest = name.split(".", 2)
    return f"blk.{index}.{NAMES[rest]}"


def _turned(name: str, tensor: Tensor, config: Mapping[str, Any]) -> Tensor:
    keys, dim = config["linear_num_key_heads"], config["linear_value_head_dim"]
    each = config["linear_num_value_heads"] // keys
    start = 2 * keys * config["linear_key_head_dim"]

    def tile(part: Tensor, width: int) -> Tensor:
        return part.reshape(keys, each, width, -1).transpose(0, 1).reshape(part.shape)

    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        flat = tensor.squeeze(1)
        return torch.cat([flat[:start], tile(flat[start:], dim)])
    if name.endswith("in_proj_z.weight"):
        return tile(tensor, dim)
    if name.endswith("out_proj.weight") and "linear_attn" in name:
        return tile(tensor.T.contiguous(), dim).T.contiguous()
    if name.endswith(("in_proj_a.weight", "in_proj_b.weight", "dt_bias")):
        return tile(tensor, 1)
    if name.endswith("A_log"):
        return tile(-tensor.exp(), 1)
    if name.endswith("shared_expert_gate.weight"):
        return tensor.reshape(-1)
    if "norm" in name and not name.endswith("linear_attn.norm.weight"):
        return tensor + 1
    return tensor


def _turned_back(name: str, turned: Tensor, like: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Undo ``_turned`` for what was rounded; other tensors are the ones that were given."""
    if turned.dim() != 2 or name.endswith("conv1d.weight"):
        return like.detach().float()
    keys, dim = config["linear_num_key_heads"], config["linear_value_head_dim"]
    each = config["linear_num_value_heads"] // keys
    start = 2 * keys * config["linear_key_head_dim"]

    def back(part: Tensor, width: int) -> Tensor:
        return part.reshape(each, keys, width, -1).transpose(0, 1).reshape(part.shape)

    if name.endswith("in_proj_qkv.weight"):
        return torch.cat([turned[:start], back(turned[start:], dim)])
    if name.endswith("in_proj_z.weight"):
        return back(turned, dim)
    if name.endswith("out_proj.weight") and "linear_attn" in name:
        return back(turned.T.contiguous(), dim).T.contiguous()
    if name.endswith(("in_proj_a.weight", "in_proj_b.weight")):
        return back(turned, 1)
    return turned


def _keys(writer: gguf.GGUFWriter, config: Mapping[str, Any], blocks: int, nextn: int) -> None:
    value_heads = config["linear_num_value_heads"]
    rope = config["rope_parameters"]
    numbers = {
        "block_count": blocks,
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "rope.dimension_count": int(config["head_dim"] * rope["partial_rotary_factor"]),
        "ssm.conv_kernel": config["linear_conv_kernel_dim"],
        "ssm.state_size": config["linear_key_head_dim"],
        "ssm.group_count": config["linear_num_key_heads"],
        "ssm.time_step_rank": value_heads,
        "ssm.inner_size": value_heads * config["linear_value_head_dim"],
        "full_attention_interval": 4,
    }
    kind = "qwen35"
    if "num_experts" in config:
        kind = "qwen35moe"
        numbers["expert_count"] = config["num_experts"]
        numbers["expert_used_count"] = config["num_experts_per_tok"]
        numbers["expert_feed_forward_length"] = config["moe_intermediate_size"]
        numbers["expert_shared_feed_forward_length"] = config["shared_expert_intermediate_size"]
    else:
        numbers["feed_forward_length"] = config["intermediate_size"]
    if nextn:
        numbers["nextn_predict_layers"] = nextn
    writer.add_name("a model")
    for key, value in numbers.items():
        writer.add_uint32(f"{kind}.{key}", value)
    writer.add_float32(f"{kind}.attention.layer_norm_rms_epsilon", config["rms_norm_eps"])
    writer.add_float32(f"{kind}.rope.freq_base", float(rope["rope_theta"]))
    writer.add_array(f"{kind}.rope.dimension_sections", [*rope["mrope_section"], 0])


def _tokenizer(writer: gguf.GGUFWriter, given: Mapping[str, Any]) -> None:
    """Write a tokenizer: ``tokens``, ``types``, ``merges``, ``template``, ``eos``."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(given.get("pre", "qwen35"))
    writer.add_token_list(given["tokens"])
    writer.add_token_types(given["types"])
    writer.add_token_merges(given["merges"])
    writer.add_eos_token_id(given["eos"])
    if given.get("template"):
        writer.add_chat_template(given["template"])
