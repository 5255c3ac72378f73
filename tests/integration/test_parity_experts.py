"""Mixture-of-experts models against transformers, with the same random float32 weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from benchmarks import parity
from model.engine import Engine
from model.hybrid.experts import Experts
from model.hybrid.model import HybridModel, HybridNetwork

TOLERANCE = 1e-4
PROMPT = 120
IDS = torch.randint(512, (PROMPT,), generator=torch.Generator().manual_seed(3)).tolist()

Loaded = tuple[Any, HybridNetwork, torch.Tensor]


def save(directory: Path, config: dict[str, Any], model: Any) -> Path:
    """Write the weights of transformers' model under its own names."""
    (directory / "config.json").write_text(json.dumps(config))
    tied = config["tie_word_embeddings"]
    weights = {n: t for n, t in model.state_dict().items() if not (tied and n == "lm_head.weight")}
    save_file(weights, directory / "model.safetensors")
    return directory


@pytest.fixture(scope="module", params=list(parity.EXPERTS))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """transformers' model, our network loaded from the file of its weights, and its logits."""
    config = parity.text_config(request.param)
    model = parity.reference_model(config)
    directory = save(tmp_path_factory.mktemp(request.param), config, model)
    network = Engine.load(directory, name=request.param).network
    assert isinstance(network, HybridNetwork)
    assert isinstance(network.model.blocks[0].feed_forward, Experts)
    with torch.inference_mode():
        return model, network, model(torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("cuts", [[], range(PROMPT)], ids=["whole", "steps"])
def test_logits(loaded: Loaded, cuts: Any) -> None:
    _, network, expected = loaded
    got = parity.all_logits(network, IDS, cuts)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


@settings(max_examples=4, deadline=None)
@given(cuts=st.lists(st.integers(1, PROMPT - 1), max_size=8))
def test_logits_of_a_prompt_cut_anywhere(loaded: Loaded, cuts: list[int]) -> None:
    _, network, expected = loaded
    got = parity.all_logits(network, IDS, cuts)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_greedy_tokens(loaded: Loaded) -> None:
    """The compiled path, where it is built, is what a session runs."""
    model, network, _ = loaded
    assert parity.greedy(network, IDS, 64) == parity.reference_greedy(model, IDS, 64)


@pytest.mark.parametrize("part", ["gate.weight", "experts.down_proj", "shared_expert_gate.weight"])
def test_a_small_mistake_would_show(loaded: Loaded, part: str) -> None:
    model, network, expected = loaded
    tensors = {name.removeprefix("model."): t for name, t in model.state_dict().items()}
    name = f"layers.3.mlp.{part}"
    with torch.inference_mode():
        spoiled = HybridModel.build(
            network.model.config, tensors | {name: tensors[name] * 1.05}, torch.float32
        )
    got = parity.all_logits(HybridNetwork(spoiled, fingerprint="x"), IDS, [])
    assert float((got - expected).abs().max()) > 10 * TOLERANCE
