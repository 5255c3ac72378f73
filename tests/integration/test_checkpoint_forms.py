"""Whole checkpoints in every stored form against transformers on the values that they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks import parity
from model.engine import Engine
from model.errors import CheckpointError
from model.hybrid.model import HybridNetwork
from tests.support.stored_forms import FORMS, Parts

IDS = torch.randint(512, (96,), generator=torch.Generator().manual_seed(2)).tolist()
PREFIXES = ("model.", "model.language_model.", "language_model.model.")


def text_config() -> dict[str, Any]:
    return parity.text_config("tiny") | {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "linear_num_value_heads": 4,
        "linear_value_head_dim": 32,
        "tie_word_embeddings": False,
    }


def is_projection(name: str) -> bool:
    return name.endswith("_proj.weight")


def written(
    directory: Path, form: str, prefix: str = "model.", head: str = "", **config: Any
) -> Any:
    """Write a random model with its projections in ``form``; return transformers' on its values."""
    made = text_config()
    model = parity.reference_model(made)
    tensors: Parts = {}
    values = dict(model.state_dict())
    for name, tensor in model.state_dict().items():
        full = name.replace("model.", prefix, 1) if name.startswith("model.") else head + name
        if is_projection(name):
            # In float32 the maker's library does not round what it gives.
            parts, plain = FORMS[form](tensor)
            module = full.removesuffix("weight")
            tensors |= {module + suffix: part.contiguous() for suffix, part in parts.items()}
            values[name] = plain.float()
        elif form.startswith("MLX") and name.endswith("conv1d.weight"):
            tensors[full] = tensor.movedim(2, 1).contiguous()
        elif (
            form.startswith("MLX") and name.endswith("norm.weight") and ".linear_attn." not in name
        ):
            tensors[full] = tensor + 1
        else:
            tensors[full] = tensor
    model.load_state_dict(values)
    save_file({n: t.clone() for n, t in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(made | config))
    return model


def log_probabilities(engine: Engine) -> torch.Tensor:
    assert isinstance(engine.network, HybridNetwork)
    return parity.all_logits(engine.network, IDS, []).log_softmax(-1)


@pytest.mark.parametrize("form", FORMS)
def test_the_log_probabilities_are_those_of_the_values(form: str, tmp_path: Path) -> None:
    prefix = PREFIXES[sorted(FORMS).index(form) % 3]
    head = "language_model." if prefix.startswith("language_model") else ""
    model = written(tmp_path, form, prefix, head)
    with torch.inference_mode():
        expected = model(torch.tensor([IDS])).logits[0].log_softmax(-1)
    got = log_probabilities(Engine.load(tmp_path, name="x"))
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", ["int4 g32", "int8 g128", "mxfp4", "int4 g32 asymmetric"])
def test_integers_stay_integers_in_bfloat16(form: str, tmp_path: Path) -> None:
    """Close to the plain values: inputs are rounded to 8 bits on this path."""
    model = written(tmp_path, form)
    with torch.inference_mode():
        expected = model(torch.tensor([IDS])).logits[0].log_softmax(-1)
    engine = Engine.load(tmp_path, name="x", dtype=torch.bfloat16)
    assert isinstance(engine.network, HybridNetwork)
    down = engine.network.model.blocks[0].feed_forward.down
    assert down.nbytes < 0.8 * 2 * 128 * 256
    got = log_probabilities(engine)
    difference = (got.exp() * (got - expected)).sum(-1).mean()
    assert difference < 0.01


LIES = {
    "no block": {},
    "inside text_config": {"text_config": {"quantization_config": {"quant_method": "fp8"}}},
    "all excluded": {
        "quantization_config": {"quant_method": "fp8", "modules_to_not_convert": ["model", ".*"]}
    },
    "another one": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
}


@pytest.mark.parametrize("lie", LIES)
def test_fp8_is_read_with_its_scales_whatever_the_configuration_says(
    lie: str, tmp_path: Path
) -> None:
    written(tmp_path, "fp8 official")
    expected = log_probabilities(Engine.load(tmp_path, name="x"))
    config = json.loads((tmp_path / "config.json").read_text())
    changed = dict(LIES[lie])
    if "text_config" in changed:
        config = {"model_type": "qwen3_5", "text_config": config | changed.pop("text_config")}
    (tmp_path / "config.json").write_text(json.dumps(config | changed))
    assert torch.equal(log_probabilities(Engine.load(tmp_path, name="x")), expected)


def test_fp8_without_its_scales_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "fp8 official")
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "model.safetensors")
    left = {name: t for name, t in tensors.items() if not name.endswith("scale_inv")}
    save_file(left, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"proj\.weight .*float8 e4m3.* without its scale"):
        Engine.load(tmp_path, name="x")


def test_a_configuration_that_says_4_bits_over_plain_tensors_changes_nothing(
    tmp_path: Path,
) -> None:
    model = parity.reference_model(text_config())
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(text_config()))
    expected = log_probabilities(Engine.load(tmp_path, name="x"))
    lie = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
    (tmp_path / "config.json").write_text(json.dumps(text_config() | lie))
    assert torch.equal(log_probabilities(Engine.load(tmp_path, name="x")), expected)
