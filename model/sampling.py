"""The choice of the next token, and its probability."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.sampling import log_probability, presence_penalty, sample
from model.errors import CheckpointError
from model.steering import ANY, TokenMask


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


@dataclass(frozen=True)
class TokenEvent:
    """A chosen token and its log-probability.

    ``logprob`` is that of the model itself: at temperature 1 and before any penalty, filter or
    mask, so that it can be compared across parameters. ``masked_logprob`` is the same among the
    tokens that a mask allowed, 0 for a forced one, None where there was no mask. ``source`` is what
    had drafted the token, ``copy`` or ``mtp``, None if nothing had: it depends on time alone.
    """

    id: int
    logprob: float
    masked_logprob: float | None = None
    forced: bool = False
    source: str | None = field(default=None, compare=False)


def choose(
    logits: Tensor,
    params: SamplingParams,
    seen: Collection[int],
    generator: torch.Generator,
    mask: TokenMask = ANY,
) -> TokenEvent:
    """Choose the next token from ``logits [vocab]`` under ``mask``.

    A forced token draws nothing from ``generator``. Raises ``CheckpointError`` if the logits are
    not numbers.
    """
    if mask.forced is not None:
        logprob = log_probability(logits, mask.forced)
        _require_number(logprob)
        return TokenEvent(mask.forced, logprob, 0.0, forced=True)
    penalised = logits
    if params.presence_penalty and seen:
        ids = torch.tensor(sorted(set(seen)), device=logits.device)
        penalised = presence_penalty(logits, ids, params.presence_penalty)
    only = None if mask.only is None else mask.only.to(logits.device)
    if only is not None:
        penalised = penalised[only]
    elif mask.without is not None:
        without = mask.without.to(logits.device)
        penalised = penalised.index_fill(0, without, -math.inf)
    drawn = sample(
        penalised,
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        min_p=params.min_p,
        generator=generator,
    )
    token = drawn if only is None else int(only[drawn])
    logprob = log_probability(logits, token)
    _require_number(logprob)
    if only is not None:
        return TokenEvent(token, logprob, log_probability(logits[only], drawn))
    if mask.without is not None:
        return TokenEvent(token, logprob, _among_others(logits, token, logprob, without))
    return TokenEvent(token, logprob)


def _among_others(logits: Tensor, token: int, logprob: float, without: Tensor) -> float:
    """Return the log-probability of ``token`` where the ids in ``without`` have none."""
    total = logits[token].float() - logprob
    taken = float((logits[without].float() - total).exp().sum())
    if taken < 0.5:
        return logprob - math.log1p(-taken)
    return log_probability(logits.index_fill(0, without, -math.inf), token)


def _require_number(logprob: float) -> None:
    if math.isnan(logprob):
        raise CheckpointError("the model computes no numbers (NaN); fetch its checkpoint again")
