"""Logits and greedy tokens against transformers, with the same random float32 weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from benchmarks import parity
from model.engine import Engine
from model.hybrid.model import HybridNetwork
from model.scheduler import Scheduler

TOLERANCE = 1e-4
PROMPT = 160
IDS = torch.randint(512, (PROMPT,), generator=torch.Generator().manual_seed(2)).tolist()

Loaded = tuple[Any, HybridNetwork, torch.Tensor]


@pytest.fixture(scope="module", params=["tiny", "grouped"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """transformers' model, our network loaded from the file of its weights, and its logits."""
    config = parity.text_config(request.param)
    model = parity.reference_model(config)
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "config.json").write_text(json.dumps(config))
    tied = config["tie_word_embeddings"]
    weights = {n: t for n, t in model.state_dict().items() if not (tied and n == "lm_head.weight")}
    save_file(weights, directory / "model.safetensors")
    network = Engine.load(directory, name=request.param).network
    assert isinstance(network, HybridNetwork)
    with torch.inference_mode():
        return model, network, model(torch.tensor([IDS])).logits[0]


@pytest.mark.parametrize("cuts", [[], [64, 128], range(PROMPT)], ids=["whole", "cut", "steps"])
def test_logits(loaded: Loaded, cuts: Any) -> None:
    _, network, expected = loaded
    got = parity.all_logits(network, IDS, cuts)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, PROMPT - 1), max_size=8))
def test_logits_of_a_prompt_cut_anywhere(loaded: Loaded, cuts: list[int]) -> None:
    _, network, expected = loaded
    got = parity.all_logits(network, IDS, cuts)
    torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)


def test_greedy_tokens(loaded: Loaded) -> None:
    model, network, _ = loaded
    assert parity.greedy(network, IDS, 64) == parity.reference_greedy(model, IDS, 64)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: {"layers.0.linear_attn.A_log": t["layers.0.linear_attn.A_log"] + 0.01},
        lambda t: {
            "layers.3.self_attn.q_norm.weight": t["layers.3.self_attn.q_norm.weight"] + 0.01
        },
        lambda t: {"layers.7.mlp.up_proj.weight": t["layers.7.mlp.up_proj.weight"] * 1.01},
    ],
)
def test_a_small_mistake_would_show(
    loaded: Loaded, spoil: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    model, network, expected = loaded
    tensors = {name.removeprefix("model."): t for name, t in model.state_dict().items()}
    with torch.inference_mode():
        spoiled = type(network.model).build(
            network.model.config, tensors | spoil(tensors), torch.float32
        )
    got = parity.all_logits(HybridNetwork(spoiled, fingerprint="x"), IDS, [])
    assert float((got - expected).abs().max()) > 10 * TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_exact_0_8b_configuration() -> None:
    """64 greedy tokens after a prompt, all judged by one pass of transformers over both.

    If its most likely token after each beginning is the one that we said, it would have said the
    same: decoding it step by step as well would prove nothing more.
    """
    config = parity.text_config("0.8b")
    model = parity.reference_model(config)
    network = parity.our_network(model, config)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(config["vocab_size"], (96,), generator=generator).tolist()
    scheduler = Scheduler(network)
    logits, state = scheduler.forward(ids, network.new_state())
    steps, said = [logits], [int(logits.argmax())]
    while len(said) < 64:
        logits, state = scheduler.forward(said[-1:], state)
        steps.append(logits)
        said.append(int(logits.argmax()))

    whole = ids + said[:-1]
    with torch.inference_mode():
        expected = model(torch.tensor([whole])).logits[0].float()
    assert expected[len(ids) - 1 :].argmax(-1).tolist() == said
    torch.testing.assert_close(torch.stack(steps), expected[len(ids) - 1 :], atol=TOLERANCE, rtol=0)
    for cuts in ([], [1, 17, 64, 100]):
        got = parity.all_logits(network, whole, cuts)
        torch.testing.assert_close(got, expected, atol=TOLERANCE, rtol=0)
