"""Sessions of a model with experts: no trace of forks, saves, drafts or company; and what is read.

The model is a GGUF file in Q4_K and Q6_K, mapped and run by the compiled path.
"""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks import parity
from benchmarks.support.pages_read import forget, resident, whole_pages
from kernels.experts import ExpertStack
from kernels.linear import StackedWeight, StoredRows, Weight, embed
from model.checkpoint.config import ModelConfig
from model.checkpoint.weights import tensor_shapes
from model.engine import Engine
from model.hybrid.experts import Experts
from model.hybrid.model import HybridModel, HybridNetwork
from model.network import State, Work
from model.sampling import SamplingParams
from model.session import Session
from tests.support.make_gguf import make_gguf
from tests.support.native import library
from tests.support.soak import OPERATIONS, TIGHT, Soak

GREEDY = SamplingParams(temperature=0.0)
EXPERTS, CHOSEN = 16, 3
MIXED = {"": "Q4_K", "blk.1.ffn_down_exps.weight": "Q6_K", "blk.0.ffn_up_exps.weight": "Q5_K"}
MIXED |= {f"blk.{i}.ffn_gate_inp.weight": "F32" for i in range(5)}


def config() -> dict[str, Any]:
    return parity.text_config("experts") | {
        "vocab_size": 1024,
        "hidden_size": 256,
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 256,
        "num_experts": EXPERTS,
        "num_experts_per_tok": CHOSEN,
        "num_attention_heads": 8,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "mtp_num_hidden_layers": 1,
        "max_position_embeddings": 4096,
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose every router is sure of itself."""
    library("plain")
    given_ = config()
    g = torch.Generator().manual_seed(9)
    tensors = {}
    for name, shape in tensor_shapes(ModelConfig.from_dict(given_)).items():
        size = 3.0 if name.endswith("mlp.gate.weight") else 0.8
        tensors[name] = torch.randn(shape, generator=g) * size * shape[-1] ** -0.5
    place = tmp_path_factory.mktemp("moe") / "m.gguf"
    make_gguf(place, given_, tensors, MIXED)
    return place


def load(path: Path, **options: Any) -> Engine:
    engine = Engine.load(path, name="moe", dtype=torch.bfloat16, **options)
    assert isinstance(engine.network, HybridNetwork)
    assert engine.network.compiled is not None
    return engine


@pytest.fixture(scope="module")
def engines(path: Path) -> tuple[Engine, Engine, Engine]:
    """One without drafts, one with, and one with so little memory that sessions are parked."""
    return load(path, drafts="off"), load(path), load(path, kv_memory=7 * TIGHT)


steps = st.lists(
    st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 5), st.integers(0, 600)), max_size=10
)


@settings(max_examples=8, deadline=None)
@given(steps=steps)
def test_no_operation_leaves_a_trace(
    engines: tuple[Engine, Engine, Engine], steps: list[tuple[str, int, int]]
) -> None:
    plain, _, tight = engines
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(tight, plain, Path(folder))
        for step in steps:
            soak.do(*step)
        soak.check()
        soak.end()


def say(session: Session, tokens: int = 24) -> list[tuple[int, float]]:
    events = session.generate(GREEDY, max_tokens=tokens, stop_ids=frozenset())
    return [(event.id, event.logprob) for event in events]


def test_drafts_and_company_change_nothing(engines: tuple[Engine, Engine, Engine]) -> None:
    plain, drafting, _ = engines
    prompts = [[(i * n + 7) % 1000 for i in range(20 + n)] * 2 for n in range(1, 7)]
    alone = []
    for prompt in prompts:
        session = plain.session()
        session.extend(prompt)
        alone.append(say(session))
    for engine in (plain, drafting):
        sessions = [engine.session() for _ in prompts]
        for session, prompt in zip(sessions, prompts, strict=True):
            session.extend(prompt)
        with ThreadPoolExecutor(len(sessions)) as pool:
            assert list(pool.map(say, sessions)) == alone


def test_tokens_verified_together_are_those_run_one_by_one(
    engines: tuple[Engine, Engine, Engine],
) -> None:
    network = engines[0].network
    assert isinstance(network, HybridNetwork)
    starts: list[State] = []
    for number in range(3):
        ids = [(i * 3 + number) % 1000 for i in range(30)]
        starts.append(network.run([Work(ids, network.new_state())])[0][1])
    drafts = [[5, 9, 100, 7, 3, 900, 1, 2], [8], [1, 1, 1, 44]]
    together = network.verify([Work(d, s) for d, s in zip(drafts, starts, strict=True)])
    for draft, start, (logits, _) in zip(drafts, starts, together, strict=True):
        state: State = start
        for token, expected in zip(draft, logits, strict=True):
            ((got, state),) = network.run([Work([token], state)])
            assert got is not None
            assert torch.equal(got, expected)


# ---- what is read of the file ----


def _rows(weight: Weight) -> list[Tensor]:
    parts = weight.parts if isinstance(weight, StackedWeight) else (weight,)
    assert all(isinstance(part, StoredRows) for part in parts)
    return [part.data for part in parts if isinstance(part, StoredRows)]


def _chosen(model: HybridModel, ids: list[int]) -> list[set[int]]:
    """Return the experts that each layer chooses for the last of ``ids``, by torch's own path."""
    seen: list[set[int]] = []
    x = embed(torch.tensor([ids]), model.embedding)
    rotation = model.rotation(0, len(ids))
    for block in model.blocks:
        x = x + block.mixer(block.input_norm(x), rotation, None)
        y = block.post_norm(x)
        ff = block.feed_forward
        assert isinstance(ff, Experts)
        router = ff.router
        assert isinstance(router, Tensor)
        odds = y[0, -1].float() @ router.float().T
        seen.append(set(odds.topk(ff.chosen).indices.tolist()))
        x = x + ff(y)
    return seen


def test_experts_that_are_not_chosen_are_never_read(path: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(path, tmp_path))  # nobody else has it mapped
    engine = load(path, drafts="off")
    network = engine.network
    assert isinstance(network, HybridNetwork)
    layers = []
    for block in network.model.blocks:
        ff = block.feed_forward
        assert isinstance(ff, Experts)
        assert isinstance(ff.gate_up, ExpertStack)
        assert isinstance(ff.down, ExpertStack)
        layers.append([_rows(ff.gate_up[e]) + _rows(ff.down[e]) for e in range(EXPERTS)])
    ids = [17, 400, 3]
    state = network.run([Work(ids[:-1], network.new_state())])[0][1]
    everything = [t for layer in layers for expert in layer for t in expert]
    forget(path)
    if sum(map(resident, everything)):
        pytest.skip("this file system keeps the pages of a file in memory")
    with torch.inference_mode():
        expected = _chosen(network.model, ids)
    forget(path)
    network.run([Work(ids[-1:], state)])
    for layer, chosen in zip(layers, expected, strict=True):
        read = {e for e, parts in enumerate(layer) if sum(map(resident, parts))}
        assert read == chosen
    wanted = [t for layer, c in zip(layers, expected, strict=True) for e in c for t in layer[e]]
    size = sum(whole_pages(tensor)[1] for tensor in wanted)
    assert 0.9 * size <= sum(map(resident, everything)) <= 1.1 * size
