"""Reading config.json: both forms, the whole family, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint.config import ExpertsConfig, ModelConfig
from model.checkpoint.weights import active_parameter_count, parameter_count, tensor_shapes
from model.errors import CheckpointError

CONFIGS = Path(__file__).resolve().parents[3] / "golden" / "configs"


def given(name: str = "qwen3_5_0.8b") -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS / f"{name}.config.json").read_text())
    return config


def test_the_nested_and_the_text_only_form_are_the_same() -> None:
    nested = given()
    assert ModelConfig.from_dict(nested) == ModelConfig.from_dict(nested["text_config"])


def test_the_0_8b_configuration() -> None:
    config = ModelConfig.from_dict(given())
    assert config.layer_types[:4] == ("linear_attention",) * 3 + ("full_attention",)
    assert (config.num_hidden_layers, config.hidden_size, config.rotary_dim) == (24, 1024, 64)
    assert config.tie_word_embeddings
    assert config.dtype == torch.bfloat16
    assert config.context_length == 262_144
    assert config.conv_dim == 3 * 2048


def test_the_27b_tensors_are_those_of_the_checkpoint() -> None:
    config = ModelConfig.from_dict(given("qwen3_6_27b"))
    expected = {}
    for line in (CONFIGS / "qwen3_6_27b.tensors.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        layers, name, shape = line.split(" ", 2)
        kinds = {"linear": ["linear_attention"], "full": ["full_attention"]}
        wanted = kinds.get(layers, ["linear_attention", "full_attention"])
        places = [i for i, kind in enumerate(config.layer_types) if kind in wanted]
        for index in places if "N" in name.split(".") else [0]:
            expected[name.replace(".N.", f".{index}.")] = tuple(json.loads(shape))
    derived = {
        name if name.startswith(("lm_head", "mtp.")) else f"model.language_model.{name}": shape
        for name, shape in tensor_shapes(config).items()
    }
    assert derived == expected
    assert len(derived) == 851 + 15
    # With the vision tower's 460,730,096 this is the published count, 27,781,427,952.
    assert parameter_count(config) == 27_320_697_856


def test_older_rope_fields_and_no_layer_types() -> None:
    old = given()["text_config"]
    expected = ModelConfig.from_dict(old)
    rope = old.pop("rope_parameters")
    del old["layer_types"]
    old |= {"rope_theta": rope["rope_theta"], "partial_rotary_factor": 0.25}
    old["rope_scaling"] = {"type": "mrope", "mrope_section": [11, 11, 10]}
    old["torch_dtype"] = old.pop("dtype")
    assert ModelConfig.from_dict(old) == expected


def test_tying_is_read_from_either_level() -> None:
    nested = given()
    del nested["text_config"]["tie_word_embeddings"]
    assert ModelConfig.from_dict(nested).tie_word_embeddings
    del nested["tie_word_embeddings"]
    assert not ModelConfig.from_dict(nested).tie_word_embeddings


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"model_type": "qwen4_exp", "architectures": None}, "qwen4_exp"),
        ({"model_type": None, "architectures": None}, "not supported"),
        ({"num_hidden_layers": 3}, "layer_types has 24 entries"),
        ({"num_hidden_layers": 10**7, "layer_types": None}, "num_hidden_layers must be from 1"),
        ({"hidden_size": 10**12}, "hidden_size must be at most"),
        ({"layer_types": ["sliding_attention"] * 24}, "sliding_attention"),
        ({"hidden_size": None}, "wrong value"),
        ({"vocab_size": float("inf")}, "wrong value"),
        ({"layer_types": None, "full_attention_interval": 0}, "wrong value"),
        ({"hidden_size": -8}, "hidden_size must be 1 or more"),
        ({"num_key_value_heads": 0}, "num_key_value_heads must be 1 or more"),
        ({"linear_conv_kernel_dim": 0}, "linear_conv_kernel_dim must be 1 or more"),
        ({"max_position_embeddings": 0}, "context_length must be 1 or more"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attn_output_gate": False}, "attn_output_gate"),
        ({"mtp_use_dedicated_embeddings": True}, "mtp_use_dedicated_embeddings"),
        ({"mtp_num_hidden_layers": 2}, "mtp_num_hidden_layers"),
        ({"num_experts": 8}, "needs a model_type of qwen3_5_moe"),
        ({"num_key_value_heads": 3}, "multiple of num_key_value_heads"),
        ({"linear_num_value_heads": 24}, "multiple of linear_num_key_heads"),
        ({"rope_parameters": {"rope_type": "longrope", "factor": 4}}, "longrope"),
        ({"dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_dict(given()["text_config"] | change)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def given_experts() -> dict[str, Any]:
    """Return the text configuration of 35B-A3B."""
    config: dict[str, Any] = json.loads((CONFIGS / "qwen3_6_35b_a3b.config.json").read_text())
    return config


def test_the_35b_a3b_configuration() -> None:
    config = ModelConfig.from_dict(given_experts())
    assert config.experts == ExpertsConfig(256, 8, 512)
    assert config.intermediate_size == 512
    nested = {"model_type": "qwen3_5_moe", "text_config": given_experts()}
    assert ModelConfig.from_dict(nested) == config
    shapes = tensor_shapes(config)
    assert shapes["layers.39.mlp.experts.gate_up_proj"] == (256, 1024, 2048)
    assert shapes["mtp.layers.0.mlp.experts.down_proj"] == (256, 2048, 512)
    # 35 billion, of which 3 are at work, as the name says.
    assert parameter_count(config, mtp=False) == 34_660_610_688
    assert active_parameter_count(config, mtp=False) == 3_454_988_928


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"num_experts_per_tok": 257}, "num_experts_per_tok must be from 1 to num_experts"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok must be from 1 to num_experts"),
        ({"num_experts": 0}, "num_experts must be from 1"),
        ({"num_experts": 10**9}, "num_experts must be from 1"),
        ({"moe_intermediate_size": -1}, "moe_intermediate_size must be from 1"),
        ({"shared_expert_intermediate_size": 0}, "intermediate_size must be 1 or more"),
        ({"num_experts": "many"}, "wrong value"),
    ],
)
def test_experts_that_cannot_be_are_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        ModelConfig.from_dict(given_experts() | change)


def test_a_configuration_without_a_shared_expert_is_refused() -> None:
    config = given_experts()
    del config["shared_expert_intermediate_size"]
    with pytest.raises(CheckpointError, match="lacks 'shared_expert_intermediate_size'"):
        ModelConfig.from_dict(config)


def test_a_missing_field_is_named() -> None:
    text = given()["text_config"]
    del text["linear_key_head_dim"]
    with pytest.raises(CheckpointError, match="lacks 'linear_key_head_dim'"):
        ModelConfig.from_dict(text)


@pytest.mark.parametrize(
    "content", [None, "", "{", "[1]", '{"model_type": "qwen3_5"}', "\xff", "[" * 100_000]
)
def test_an_unusable_file_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ModelConfig.load(tmp_path)
