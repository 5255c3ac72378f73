"""Training: the network is the engine's, a killed run goes on as if nothing happened."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evals.training.publish import export
from evals.training.train import Encoded, Phase, Trainer, TrainingRecipe, batches, train
from evals.training.trainable import TrainableNetwork
from model.checkpoint.config import ModelConfig
from model.checkpoint.hub import resolve
from model.engine import Engine

CONFIG = replace(
    ModelConfig.tiny(vocab_size=64, context_length=512), hidden_size=32, intermediate_size=40
)
RECIPE = TrainingRecipe((Phase(3), Phase(3, 1.0, 0.1)), tokens_per_step=200, warmup=2)


@dataclass(frozen=True)
class Numbered:
    """Documents that are there already, a list a shard; the last one comes again and again."""

    lists: list[list[Encoded]]

    def documents(self, number: int) -> list[Encoded]:
        return self.lists[min(number, len(self.lists) - 1)]


@pytest.fixture
def network() -> TrainableNetwork:
    torch.manual_seed(0)
    return TrainableNetwork(CONFIG)


@pytest.fixture(scope="module")
def documents():
    draw = np.random.default_rng(0)

    def some(count: int):
        lengths = draw.integers(8, 90, count)
        return [
            (
                draw.integers(0, 64, n).astype(np.uint16),
                draw.choice([0.0, 0.25, 1.0], n).astype(np.float16),
            )
            for n in lengths
        ]

    return [some(20), some(30)]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.network.state_dict().items()}


def test_the_engine_computes_what_was_trained(tmp_path) -> None:
    """The embedded configuration with random weights, through export and loading."""
    directory = tmp_path / "model"
    source = resolve("embedded")
    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(1)
    trained = TrainableNetwork(ModelConfig.load(directory))
    with torch.no_grad():
        for parameter in trained.parameters():
            # bf16 exactly, so that nothing is lost on the way through the file.
            parameter.add_(torch.randn_like(parameter) * 0.1).copy_(parameter.bfloat16())
    export(trained, directory)

    ids = torch.randint(4000, (1, 150), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = trained(ids).states[0, -1]
        expected = torch.log_softmax(trained.embed_tokens.weight @ states, dim=0)
    session = Engine.load(directory, name="trained").session()
    session.extend(ids[0].tolist())
    got = torch.log_softmax(session.snapshot().logits, dim=0)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_a_killed_run_goes_on_exactly(tmp_path, network, documents) -> None:
    whole = Trainer(network, RECIPE)
    start = weights(whole)
    source = Numbered(documents)
    train(whole, source, 3, tmp_path / "whole.pt", tmp_path / "log")

    for stop in (2, 4):
        cut = Trainer(TrainableNetwork(CONFIG), RECIPE)
        cut.network.load_state_dict(start)
        shards = [batches(documents[number], 200, 0) for number in (0, 1)]
        for step in range(stop):
            cut.step(*next(shards[step // 3]))
        path = tmp_path / f"cut{stop}.pt"
        cut.save(path)
        resumed = Trainer(TrainableNetwork(CONFIG), RECIPE)
        train(resumed, source, 3, path, tmp_path / "log")
        assert resumed.step_index == 6
        assert resumed.tokens == whole.tokens
        for name, value in weights(resumed).items():
            torch.testing.assert_close(value, whole.network.state_dict()[name], atol=0, rtol=0)


def test_the_loss_falls_on_what_counts(network) -> None:
    row = np.arange(40).astype(np.uint16) % 7
    counts = np.zeros(40, dtype=np.float16)
    counts[20:] = 1
    trainer = Trainer(network, TrainingRecipe((Phase(40),), warmup=5))
    source = batches([(row, counts)], 200, 0)
    losses = [trainer.step(*next(source)) for _ in range(40)]
    assert losses[0] > 4
    assert losses[-1] < 1


def test_an_unwanted_token_becomes_less_likely(network) -> None:
    row = np.arange(30).astype(np.uint16) % 7
    row[20:] = 7 + np.arange(10) % 3  # never wanted anywhere
    weights_ = np.ones(30, dtype=np.float16)
    weights_[20:] = -1
    trainer = Trainer(network, TrainingRecipe((Phase(40),), warmup=5))
    source = batches([(row, weights_)], 200, 0)
    ids, _ = next(source)

    def said() -> torch.Tensor:
        with torch.no_grad():
            logits = network(ids).states @ network.embed_tokens.weight.T
            return torch.log_softmax(logits[0, :-1], -1).gather(1, ids[0, 1:, None]).exp()

    before = said()
    for _ in range(40):
        trainer.step(*next(source))
    assert said()[5:18].mean() > before[5:18].mean() * 2
    assert said()[20:28].mean() < before[20:28].mean() / 2


def test_drafting_moves_the_mtp_layer_alone(network, documents) -> None:
    trainer = Trainer(network, TrainingRecipe((Phase(5, draft_only=True),), warmup=1))
    before = weights(trainer)
    source = batches(documents[0], 200, 0)
    for _ in range(5):
        trainer.step(*next(source))
    moved = {name for name, value in weights(trainer).items() if not value.equal(before[name])}
    assert moved
    assert all(name.startswith("mtp.") for name in moved)


def test_batches_hold_every_document_once_an_epoch(documents) -> None:
    source = batches(documents[1], 300, 5)
    seen: list[tuple[int, ...]] = []
    while len(seen) < 30:
        ids, weights_ = next(source)
        assert ids.numel() <= 300 or ids.shape[0] == 1
        for row, counted in zip(ids, weights_, strict=True):
            del counted
            seen.append(tuple(row.tolist()))
    originals = sorted(tuple(int(i) for i in ids) for ids, _ in documents[1])
    trimmed = sorted(_without_padding(row, originals) for row in seen)
    assert trimmed == originals


def _without_padding(row: tuple[int, ...], originals: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The one document that the row is, zeros after it."""
    fits = [o for o in originals if row[: len(o)] == o and not any(row[len(o) :])]
    return max(fits, key=len)


def test_the_log_is_one_object_a_line(tmp_path, network, documents) -> None:
    recipe = replace(RECIPE, phases=(Phase(10),))
    train(Trainer(network, recipe), Numbered(documents), 10, tmp_path / "c.pt", tmp_path / "log")
    records = [json.loads(line) for line in Path(tmp_path / "log").read_text().splitlines()]
    assert [record["step"] for record in records] == [10]
