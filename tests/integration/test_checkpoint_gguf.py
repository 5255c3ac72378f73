"""Whole GGUF files in every type against transformers on the values that they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks import parity
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.gguf.header import GgufFile
from model.engine import Engine
from model.errors import CheckpointError
from model.hybrid.model import HybridNetwork
from model.scoring import score
from tests.support.make_gguf import make_gguf
from tests.support.native import library

IDS = torch.randint(512, (96,), generator=torch.Generator().manual_seed(2)).tolist()
MIXED = {
    "": "Q4_K",
    "output.weight": "Q6_K",
    "blk.3.attn_v.weight": "Q6_K",
    "blk.0.ffn_down.weight": "Q6_K",
    "blk.1.attn_qkv.weight": "Q5_K",
    "blk.2.ssm_out.weight": "Q8_0",
    "blk.2.ffn_up.weight": "IQ4_XS",
    "blk.1.ssm_alpha.weight": "F32",
}
TYPES = ("F32", "F16", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ4_XS", "IQ2_XS", "TQ2_0", "NVFP4")
"""Those with layouts of their own; the unit tests hold the values of every type."""


def text_config(**changes: Any) -> dict[str, Any]:
    return parity.text_config("tiny") | {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 128,
        "tie_word_embeddings": False,
        **changes,
    }


def reference(config: dict[str, Any], scale: float = 1.0) -> tuple[Any, dict[str, Tensor]]:
    model = parity.reference_model(config)
    tensors = {n.removeprefix("model."): t for n, t in model.state_dict().items()}
    if config["tie_word_embeddings"]:
        tensors.pop("lm_head.weight")
    return model, tensors


def expected_of(model: Any, values: dict[str, Tensor]) -> Tensor:
    full = {n if n.startswith("lm_head") else f"model.{n}": t for n, t in values.items()}
    if "lm_head.weight" not in full:
        full["lm_head.weight"] = full["model.embed_tokens.weight"]
    model.load_state_dict(full)
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([IDS])).logits[0]
    return logits.log_softmax(-1)


def log_probabilities(engine: Engine) -> Tensor:
    assert isinstance(engine.network, HybridNetwork)
    return parity.all_logits(engine.network, IDS, []).log_softmax(-1)


def check(path: Path, config: dict[str, Any], types: dict[str, str]) -> None:
    model, tensors = reference(config)
    values = make_gguf(path, config, tensors, types)
    engine = Engine.load(path, name="x", dtype=torch.float32)
    expected = expected_of(model, values)
    torch.testing.assert_close(log_probabilities(engine), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", TYPES)
def test_the_log_probabilities_are_those_of_the_values(kind: str, tmp_path: Path) -> None:
    check(tmp_path / "m.gguf", text_config(), {"": kind})


def test_mixed_types_tied_heads_and_equal_numbers_of_heads(tmp_path: Path) -> None:
    check(tmp_path / "mixed.gguf", text_config(), MIXED)
    tied = text_config(tie_word_embeddings=True, linear_num_value_heads=2)
    check(tmp_path / "tied.gguf", tied, {"": "Q8_0"})


def test_16_and_48_heads(tmp_path: Path) -> None:
    config = text_config(linear_num_key_heads=16, linear_num_value_heads=48, linear_key_head_dim=16)
    check(tmp_path / "m.gguf", config | {"linear_value_head_dim": 16}, {"": "F32"})
    check(tmp_path / "q.gguf", config | {"linear_value_head_dim": 16}, {"": "Q8_0"})


def with_mtp(config: dict[str, Any]) -> dict[str, Tensor]:
    from model.checkpoint.config import ModelConfig
    from model.checkpoint.weights import tensor_shapes

    shapes = tensor_shapes(ModelConfig.from_dict(config | {"mtp_num_hidden_layers": 1}))
    g = torch.Generator().manual_seed(7)
    return {name: torch.randn(shape, generator=g) * 0.1 for name, shape in shapes.items()}


def test_every_tensor_comes_back(tmp_path: Path) -> None:
    config = text_config()
    tensors = with_mtp(config)
    values = make_gguf(tmp_path / "m.gguf", config, tensors, MIXED)
    opened = Checkpoint.open(tmp_path / "m.gguf")
    assert opened.tensors.keys() == tensors.keys()
    assert opened.config.mtp_num_hidden_layers == 1
    for name, stored in opened.tensors.items():
        torch.testing.assert_close(stored.read().float(), values[name], atol=3e-7, rtol=1e-6)


def test_the_mtp_layer_in_a_file_beside(tmp_path: Path) -> None:
    config = text_config()
    tensors = with_mtp(config)
    main = {n: t for n, t in tensors.items() if not n.startswith("mtp.")}
    make_gguf(tmp_path / "m.gguf", config, main, {"": "Q8_0"})
    assert "mtp.fc.weight" not in Checkpoint.open(tmp_path / "m.gguf").tensors
    top = ("embed_tokens.weight", "norm.weight", "lm_head.weight")
    mtp = {n: t for n, t in tensors.items() if n.startswith("mtp.") or n in top}
    values = make_gguf(tmp_path / "mtp-m.gguf", config, mtp, {"": "Q8_0"})
    opened = Checkpoint.open(tmp_path / "m.gguf")
    assert opened.tensors.keys() == tensors.keys()
    torch.testing.assert_close(opened.tensors["mtp.fc.weight"].read(), values["mtp.fc.weight"])


def test_a_gguf_and_its_safetensors_say_the_same(tmp_path: Path) -> None:
    config = text_config()
    _, tensors = reference(config)
    make_gguf(tmp_path / "m.gguf", config, tensors, {})
    (tmp_path / "config.json").write_text(json.dumps(config))
    full = {n if n.startswith("lm_head") else f"model.{n}": t for n, t in tensors.items()}
    save_file({n: t.clone() for n, t in full.items()}, tmp_path / "model.safetensors")
    got = log_probabilities(Engine.load(tmp_path / "m.gguf", name="x"))
    plain = log_probabilities(Engine.load(tmp_path, name="x"))
    torch.testing.assert_close(got, plain, atol=2e-5, rtol=0)


@pytest.mark.parametrize("quantize", ["int4", "int8"])
def test_a_gguf_can_be_rounded_further(
    quantize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = text_config()
    _, tensors = reference(config)
    make_gguf(tmp_path / "m.gguf", config, tensors, MIXED)
    plain = log_probabilities(Engine.load(tmp_path / "m.gguf", name="x"))
    for _ in range(2):
        engine = Engine.load(tmp_path / "m.gguf", name="x", quantize=quantize)  # type: ignore[arg-type]
        got = log_probabilities(engine)
        assert (plain.exp() * (plain - got)).sum(-1).mean() < (0.3 if quantize == "int4" else 0.01)


@pytest.mark.parametrize("tied", [False, True])
def test_mixed_types_run_in_their_own_forms(tied: bool, tmp_path: Path) -> None:
    library("plain")
    config = text_config(tie_word_embeddings=tied)
    tensors = with_mtp(config) | reference(config)[1]
    make_gguf(tmp_path / "m.gguf", config, tensors, MIXED)
    engine = Engine.load(tmp_path / "m.gguf", name="x", dtype=torch.bfloat16)
    assert engine.placement is not None
    assert engine.placement.native_bytes > 0.9 * engine.placement.weight_bytes
    assert engine.placement.weight_bytes < 1.08 * (tmp_path / "m.gguf").stat().st_size
    exact = Engine.load(tmp_path / "m.gguf", name="x", dtype=torch.float32)
    compared = score(exact, IDS, engine).against
    assert compared is not None
    assert 0 < compared.kl < 2e-3


def test_a_scale_that_is_not_finite_is_named(tmp_path: Path) -> None:
    library("plain")
    path = tmp_path / "m.gguf"
    config = text_config()
    make_gguf(path, config, reference(config)[1], {"": "Q4_K"})
    found = next(f.tensors["blk.0.ffn_up.weight"] for f in [GgufFile.open(path)])
    with path.open("r+b") as file:
        file.seek(found.start + 144)
        file.write(b"\x00\x7e")
    for dtype in (torch.bfloat16, torch.float32):
        with pytest.raises(CheckpointError, match=r"blk\.0\.ffn_up\.weight .* NaN or infinite"):
            Engine.load(path, name="x", dtype=dtype)
