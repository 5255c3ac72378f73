"""Loading an engine: what it computes in, and one line for every bad checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import engine as engine_module
from model.engine import Engine
from model.errors import CheckpointError
from model.hybrid.model import HybridNetwork
from model.sampling import SamplingParams


def dtype_of(engine: Engine) -> torch.dtype:
    assert isinstance(engine.network, HybridNetwork)
    return engine.network.model.embedding.dtype


@pytest.fixture
def narrow(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint stored in bfloat16, as published ones are."""
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "narrow")
    tensors = load_file(directory / "model.safetensors")
    save_file({n: t.bfloat16() for n, t in tensors.items()}, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    return directory


def test_what_an_engine_says_of_itself(tiny_engine: Engine) -> None:
    assert tiny_engine.name == "tiny"
    assert tiny_engine.context_length == tiny_engine.config.context_length == 8192
    assert tiny_engine.generation == SamplingParams(temperature=1.0, top_k=0)
    assert len(tiny_engine.fingerprint) == 64


def test_small_models_are_computed_in_float32_on_a_cpu(narrow: Path) -> None:
    assert dtype_of(Engine.load(narrow, name="x")) == torch.float32
    assert dtype_of(Engine.load(narrow, name="x", dtype=torch.bfloat16)) == torch.bfloat16


def test_large_models_are_computed_in_their_own_dtype(
    narrow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_SMALL", 1000)
    engine = Engine.load(narrow, name="x")
    assert dtype_of(engine) == torch.bfloat16
    session = engine.session()
    session.extend(range(100))
    said = list(session.generate(engine.generation, max_tokens=5, stop_ids=frozenset()))
    assert len(said) == 5


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_every_broken_file_is_named_in_one_line(
    tiny_checkpoint: Path, tmp_path: Path, name: str
) -> None:
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "c")
    (directory / name).write_text("nonsense")
    with pytest.raises(CheckpointError) as caught:
        Engine.load(directory, name="x")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(tiny_checkpoint, tmp_path / "c")
    llama = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (directory / "config.json").write_text(json.dumps(llama))
    with pytest.raises(CheckpointError, match=r"LlamaForCausalLM is not supported.*Qwen3\.5"):
        Engine.load(directory, name="x")


def test_a_tokenizer_of_another_model_is_refused(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the tokenizer .* has 1025 ids, the model 1024"):
        Engine.load(tiny_checkpoint, name="x", vocab_limit=1025)
