"""Sampling parameters, generation configs, and what a log-probability means."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint.config import read_generation_config
from model.errors import CheckpointError
from model.sampling import SamplingParams, choose


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, SamplingParams()),
        (
            {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 0.8, "eos_token_id": [1]},
            SamplingParams(1.0, 0, 0.8),
        ),
        ({"temperature": None, "top_k": None, "min_p": 0.1}, SamplingParams(min_p=0.1)),
        ({"do_sample": False, "temperature": 0.7}, SamplingParams(temperature=0.0)),
        ({"presence_penalty": 1.5}, SamplingParams(presence_penalty=1.5)),
    ],
)
def test_generation_configs(
    tmp_path: Path, content: dict[str, Any], expected: SamplingParams
) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    assert read_generation_config(tmp_path) == expected


def test_no_generation_config_means_the_defaults(tmp_path: Path) -> None:
    assert read_generation_config(tmp_path) == SamplingParams(0.6, 20, 0.95, 0.0, 0.0)


@pytest.mark.parametrize("content", ["", "[]", '{"top_p": 3}', '{"temperature": "warm"}'])
def test_a_broken_generation_config_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        read_generation_config(tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 2.0}]
)
def test_impossible_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingParams(**wrong)


def test_the_log_probability_is_the_models_own() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log() * 1.0
    params = SamplingParams(temperature=0.1, top_k=1, presence_penalty=9.0)
    event = choose(logits, params, [0, 0], torch.Generator().manual_seed(0))
    token, logprob = event.id, event.logprob
    assert token == 1
    assert logprob == pytest.approx(math.log(0.3), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_logits_that_are_no_numbers_end_the_turn(temperature: float) -> None:
    params = SamplingParams(temperature=temperature)
    with pytest.raises(CheckpointError, match="NaN"):
        choose(torch.full((4,), math.nan), params, [], torch.Generator())


def test_the_penalty_needs_something_seen() -> None:
    logits = torch.tensor([1.0, 0.0])
    greedy = SamplingParams(temperature=0.0, presence_penalty=2.0)
    generator = torch.Generator()
    assert choose(logits, greedy, [], generator).id == 0
    assert choose(logits, greedy, [0], generator).id == 1
