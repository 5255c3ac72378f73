"""Scores against transformers' own log-probabilities, and comparisons of two checkpoints."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.engine import Engine
from model.errors import ModelError
from model.scoring import score

IDS = torch.randint(1000, (700,), generator=torch.Generator().manual_seed(1)).tolist()


def test_scores_are_the_log_softmax_of_the_logits(tiny_engine: Engine) -> None:
    found = score(tiny_engine, IDS[:40])
    assert found.ids == IDS[:40]
    assert len(found.logprobs) == 39
    session = tiny_engine.session()
    session.extend(IDS[:20])
    event = next(iter(session.generate(tiny_engine.generation, max_tokens=1, stop_ids=frozenset())))
    again = score(tiny_engine, [*IDS[:20], event.id])
    assert again.logprobs[:19] == pytest.approx(found.logprobs[:19], abs=1e-5)
    mean = -sum(found.logprobs) / 39
    assert found.perplexity == pytest.approx(math.exp(mean))


def test_pieces_do_not_matter(tiny_engine: Engine) -> None:
    whole, part = score(tiny_engine, IDS), score(tiny_engine, IDS[:600])
    assert whole.logprobs[:599] == pytest.approx(part.logprobs, abs=1e-4)


def test_a_checkpoint_equals_itself_and_differs_from_another(
    tiny_engine: Engine, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    same = score(tiny_engine, IDS, tiny_engine).against
    assert same is not None and (same.top1, same.largest) == (1.0, 0.0)
    assert abs(same.kl) < 1e-6
    other = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, other / "model.safetensors")
    found = score(tiny_engine, IDS, Engine.load(other, name="other")).against
    assert found is not None and found.kl > 0.001 and found.largest > 0.01


@pytest.mark.parametrize("ids", [[], [1], [1, 5000], [1, -1], [0] * 9000])
def test_ids_that_cannot_be_scored(ids: list[int], tiny_engine: Engine) -> None:
    with pytest.raises(ModelError) as caught:
        score(tiny_engine, ids)
    assert "\n" not in str(caught.value)
