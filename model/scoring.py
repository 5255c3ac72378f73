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
from model.state.passes import Pass


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
    """``logprobs[i]`` is the log-probability, in nats, of ``ids[i + 1]`` after ``ids[: i + 1]``."""

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
        if not all(0 <= i < each.network.vocab_size for i in ids):
            raise ModelError(f"an id is outside the {each.network.vocab_size:,} ids of {each.name}")
    logprobs: list[float] = []
    divergence, same, largest = 0.0, 0, 0.0
    others = repeat(None) if against is None else _rows(against, ids)
    first = 0
    # The other one goes first, so that both come to their ends.
    for other, rows in zip(others, _rows(engine, ids), strict=False):
        nexts = torch.tensor(ids[first + 1 : first + 1 + len(rows)])
        first += len(rows)
        rows = rows[: len(nexts)]
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
    found = None if against is None else Comparison(divergence / count, same / count, largest)
    return Score(list(ids), logprobs, found)


def _rows(engine: Engine, ids: Sequence[int]) -> Iterator[Tensor]:
    """Yield log-probabilities ``[time, vocab]`` on the CPU, piece by piece."""
    network = engine.network
    if not isinstance(network, HybridNetwork):
        raise ModelError(f"{engine.name} has no weights to score with")
    runner = network.compiled or network.model
    state, kinds = network.new_state(), network.model.config.layer_types
    for first in range(0, len(ids), PREFILL_CHUNK):
        piece = list(ids[first : first + PREFILL_CHUNK])
        with torch.inference_mode(), network.layout.memory.passing():
            running = Pass(network.layout, kinds, [state], len(piece))
            given = torch.tensor([piece], device=network.layout.device)
            logits = runner.logits(runner.hidden(given, running)[0])[:, : network.vocab_size]
            (state,) = running.states()
            found = logits.float().log_softmax(-1).cpu()
        yield found
