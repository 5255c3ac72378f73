"""The forward pass: with and without a state, training, the MTP head, every size by config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from model.checkpoint.config import ModelConfig
from model.checkpoint.weights import load_tensors, tensor_shapes
from model.engine import Engine
from model.hybrid.model import HybridModel, HybridNetwork
from model.network import Work
from model.state.pages import HybridState, Layout
from model.state.passes import Pass

CONFIGS = Path(__file__).resolve().parents[3] / "golden" / "configs"
IDS = torch.randint(1000, (2, 90), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def config(tiny_checkpoint: Path) -> ModelConfig:
    return ModelConfig.load(tiny_checkpoint)


@pytest.fixture
def model(tiny_checkpoint: Path, config: ModelConfig) -> HybridModel:
    return HybridModel.build(config, load_tensors(tiny_checkpoint, config), torch.float32)


def test_with_and_without_a_state_are_the_same(model: HybridModel) -> None:
    expected = model.hidden(IDS)
    layout = Layout.of(model.config, model.embedding)
    for row in (0, 1):
        state, parts = HybridState(layout), []
        with torch.no_grad():
            for piece in IDS[row : row + 1].split([1, 64, 1, 24], dim=1):
                running = Pass(layout, model.config.layer_types, [state], piece.shape[1])
                parts.append(model.hidden(piece, running))
                (state,) = running.states()
        assert state.length == 90
        torch.testing.assert_close(
            torch.cat(parts, dim=1), expected[row : row + 1], atol=2e-5, rtol=0
        )


def test_rows_of_a_batch_are_independent_and_the_future_is_unseen(model: HybridModel) -> None:
    expected = model.hidden(IDS)
    alone = model.hidden(IDS[1:, :40])
    torch.testing.assert_close(alone, expected[1:, :40], atol=2e-5, rtol=0)


def test_every_tensor_gets_a_gradient(tiny_checkpoint: Path, config: ModelConfig) -> None:
    leaves = {
        name: t.clone().requires_grad_()
        for name, t in load_tensors(tiny_checkpoint, config).items()
    }
    model = HybridModel.build(config, leaves, torch.float32)
    hidden = model.hidden(IDS)
    drafted = model.draft(hidden[:, :-1], IDS[:, 1:])
    (
        model.logits(hidden).logsumexp(-1).sum() + model.logits(drafted).logsumexp(-1).sum()
    ).backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert bool((leaf.grad != 0).any()), name


def test_a_draft_sees_its_position_and_the_next_token_only(model: HybridModel) -> None:
    hidden = model.hidden(IDS)
    before = model.draft(hidden[:, :-1], IDS[:, 1:])
    changed = IDS.clone()
    changed[:, 51] = (changed[:, 51] + 1) % 1000
    after = model.draft(hidden[:, :-1], changed[:, 1:])
    assert torch.equal(before[:, :50], after[:, :50])
    assert not torch.allclose(before[:, 50], after[:, 50])


def test_a_checkpoint_without_mtp_builds(tiny_checkpoint: Path, config: ModelConfig) -> None:
    tensors = load_tensors(tiny_checkpoint, config)
    plain = {name: t for name, t in tensors.items() if not name.startswith("mtp.")}
    model = HybridModel.build(config, plain, torch.float32)
    assert model.mtp is None


@pytest.mark.parametrize("name", ["qwen3_5_0.8b", "qwen3_6_27b"])
def test_published_sizes_fit_together(name: str) -> None:
    """Shapes only, on torch's meta device: nothing is allocated or computed."""
    config = ModelConfig.from_dict(json.loads((CONFIGS / f"{name}.config.json").read_text()))
    tensors = {
        name: torch.empty(shape, device="meta", dtype=config.dtype)
        for name, shape in tensor_shapes(config).items()
    }
    model = HybridModel.build(config, tensors, config.dtype)
    layout = Layout.of(config, model.embedding)
    state = HybridState(layout)
    for count in (70, 1):
        ids = torch.empty(1, count, dtype=torch.int64, device="meta")
        running = Pass(layout, config.layer_types, [state], count)
        hidden = model.hidden(ids, running)
        (state,) = running.states()
        assert model.logits(hidden).shape == (1, count, 248_320)
    assert model.draft(hidden, ids).shape == (1, 1, config.hidden_size)
    assert state.length == 71


def test_bfloat16_stays_near_float32(tiny_checkpoint: Path, config: ModelConfig) -> None:
    tensors = load_tensors(tiny_checkpoint, config)
    wide, narrow = (
        HybridModel.build(config, tensors, dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    expected, got = wide.logits(wide.hidden(IDS)), narrow.logits(narrow.hidden(IDS))
    assert got.dtype == torch.bfloat16
    error = (got.float() - expected).abs().mean() / expected.abs().mean()
    assert error < 0.05


def test_only_the_last_position_meets_the_head(model: HybridModel) -> None:
    network = HybridNetwork(model, fingerprint="x")
    ids = IDS[0].tolist()
    ((logits, state),) = network.run([Work(ids, network.new_state())])
    assert logits is not None
    assert network.run([Work(ids, network.new_state(), logits=False)])[0][0] is None
    assert logits.shape == (1024,)
    assert state.length == 90
    hidden = model.hidden(IDS[:1])
    torch.testing.assert_close(logits, model.logits(hidden)[0, -1], atol=2e-5, rtol=0)


def test_the_old_state_can_be_run_from_again(model: HybridModel) -> None:
    network = HybridNetwork(model, fingerprint="x")
    ((_, start),) = network.run([Work(range(30), network.new_state())])
    ((first, _),) = network.run([Work([5, 6, 7], start)])
    network.run([Work(range(300), start)])
    ((again, _),) = network.run([Work([5, 6, 7], start)])
    assert first is not None
    assert again is not None
    assert torch.equal(first, again)


def test_a_vocabulary_limit_leaves_the_padding_out(tiny_checkpoint: Path) -> None:
    limited = Engine.load(tiny_checkpoint, name="x", vocab_limit=900).network
    whole = Engine.load(tiny_checkpoint, name="x").network
    assert (limited.vocab_size, whole.vocab_size) == (900, 1024)
    ((got, _),) = limited.run([Work([1, 2], limited.new_state())])
    ((expected, _),) = whole.run([Work([1, 2], whole.new_state())])
    assert expected is not None
    torch.testing.assert_close(got, expected[:900], atol=1e-6, rtol=0)
