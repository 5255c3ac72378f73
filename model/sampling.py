"""The choice of the next token, and its probability."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.sampling import log_probability, presence_penalty, sample
from model.errors import CheckpointError


@dataclass(frozen=True)
class SamplingParams:
    """The sampling settings. The defaults are those the Qwen3.5/3.6 makers give for precise coding.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 keep every id.
    ``presence_penalty`` is subtracted from the logits of the ids sampled since the last ``extend``.
    """

    temperature: float = 0.6
    top_k: int = 20
    top_p: float = 0.95
    min_p: float = 0.0
    presence_penalty: float = 0.0

    def __post_init__(self) -> None:
        checks = {
            "temperature must be 0 or more": self.temperature >= 0,
            "top_k must be 0 or more": self.top_k >= 0,
            "top_p must be above 0 and at most 1": 0 < self.top_p <= 1,
            "min_p must be from 0 to 1": 0 <= self.min_p <= 1,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ValueError(rule)


def choose(
    logits: Tensor, params: SamplingParams, seen: Collection[int], generator: torch.Generator
) -> tuple[int, float]:
    """Choose the next token from ``logits [vocab]``.

    Returns its id and its log-probability. The log-probability is that of the model itself: at
    temperature 1 and before any penalty or filter, so that it can be compared across parameters.
    Raises ``CheckpointError`` if the logits are not numbers.
    """
    penalised = logits
    if params.presence_penalty and seen:
        ids = torch.tensor(sorted(set(seen)), device=logits.device)
        penalised = presence_penalty(logits, ids, params.presence_penalty)
    token = sample(
        penalised,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        generator=generator,
    )
    logprob = log_probability(logits, token)
    if math.isnan(logprob):
        raise CheckpointError("the model computes no numbers (NaN); fetch its checkpoint again")
    return token, logprob
