"""Score ids under a checkpoint, and tell how far two checkpoints differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor

from model.engine import Engine
from model.errors import ModelError
from model.hybrid.model import PREFILL_CHUNK, HybridNetwork
from model.network import State, pieces


@dataclass(frozen=True)
class Comparison:
    """The difference of another checkpoint's distributions from the first's, over all positions.

    ``kl`` is the mean Kullback-Leibler divergence from the first checkpoint in nats, ``top1`` the
    share of positions with the same likeliest id, ``largest`` the largest difference between the
    log-probabilities of the ids that came.
    """

    kl: float
    top1: float
    largest: float


@dataclass(frozen=True)
class Score:
    """``logprobs[i]`` is the log-probability, in nats, of ``ids[i + 1]`` after ``ids[: i + 1]``.

    Tokens of pictures have none: what follows them is shorter by so many.
    """

    ids: list[int]
    logprobs: list[float]
    against: Comparison | None = None

    @property
    def perplexity(self) -> float:
        """The exponential of the mean negative log-probability."""
        return math.exp(-sum(self.logprobs) / max(1, len(self.logprobs)))


def score(engine: Engine, ids: Sequence[int], against: Engine | None = None) -> Score:
    """Score ``ids`` under ``engine``, and compare its distributions with ``against``.

    Raises ``ModelError`` if there are fewer than two ids, too many, or ids that a model lacks.
    """
    for each in (engine, *([against] if against is not None else [])):
        if not 2 <= len(ids) <= each.context_length:
            raise ModelError(
                f"{len(ids)} ids cannot be scored; give from 2 to {each.context_length:,}"
            )
        try:
            each.network.admit(ids)
        except ValueError as error:
            raise ModelError(f"{each.name} cannot score these ids: {error}") from error
    logprobs: list[float] = []
    divergence, same, largest = 0.0, 0, 0.0
    others = repeat(None) if against is None else _rows(against, ids)
    first = 0
    # The other one goes first, so that both come to their ends.
    for other, rows in zip(others, _rows(engine, ids), strict=False):
        nexts = torch.tensor(ids[first + 1 : first + 1 + len(rows)])
        first += len(rows)
        # A picture's tokens are given, never said.
        said = (nexts >= 0).nonzero()[:, 0]
        nexts, rows = nexts[said], rows[said]
        other = other if other is None else other[said]
        own = rows.gather(1, nexts[:, None])[:, 0]
        logprobs += own.tolist()
        if other is None or not len(nexts):
            continue
        width = min(rows.shape[1], other.shape[1])
        one, two = rows[:, :width], other[: len(rows), :width]
        divergence += float((one.exp() * (one - two)).nan_to_num().sum())
        same += int((one.argmax(1) == two.argmax(1)).sum())
        theirs = two.gather(1, nexts[:, None])[:, 0]
        largest = max(largest, float((own - theirs).abs().max()))
    count = len(logprobs)
    if against is None:
        return Score(list(ids), logprobs)
    found = Comparison(divergence / max(1, count), same / max(1, count), largest)
    return Score(list(ids), logprobs, found)


def _rows(engine: Engine, ids: Sequence[int]) -> Iterator[Tensor]:
    """Yield log-probabilities ``[time, vocab]`` on the CPU, piece by piece."""
    network = engine.network
    if not isinstance(network, HybridNetwork):
        raise ModelError(f"{engine.name} has no weights to score with")
    state: State = network.new_state()
    for piece in pieces(ids, 0, PREFILL_CHUNK):
        logits, state = network.all_logits(piece, state)
        yield logits.log_softmax(-1).cpu()
