"""Drafts by the network's own MTP layer.

Each guess is sampled as the session will sample, with the random number that it will draw at that
place: where the layer's probabilities are near the network's, both take the same id even if it is
not the likeliest one. The session's own generator is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from kernels.sampling import log_probability, sample
from model.drafting.drafts import Draft, Drafter, sure_kind
from model.errors import MemoryFull
from model.network import Chain
from model.sampling import SamplingParams


class Guesses(Protocol):
    """A runner of the MTP layer (``scheduler.Scheduler``)."""

    @property
    def company(self) -> int:
        """The number of other sequences in the next pass."""
        ...

    @property
    def guessable(self) -> Sequence[int]:
        """The ids that the logits are of."""
        ...

    def guess(self, chain: Chain, token: int) -> tuple[Tensor, Chain]:
        """Return the logits ``[guessable]`` that follow ``token``, and the chain after it."""
        ...


def guess_draft(
    layer: Guesses,
    chain: Chain,
    token: int,
    params: SamplingParams,
    generator: torch.Generator,
    drafter: Drafter,
    most: int,
) -> Draft:
    """Guess up to ``most`` ids after ``token``, as long as ``drafter`` expects another to pay.

    ``generator`` is the session's; presence penalties are left out.
    """
    twin = generator
    if params.temperature > 0:
        twin = torch.Generator()
        twin.set_state(generator.get_state())
    draft = Draft(source="mtp")
    while len(draft.ids) < most and (not draft.ids or drafter.another(draft, layer.company)):
        try:
            logits, chain = layer.guess(chain, token)
        except MemoryFull:
            break
        place = sample(
            logits,
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            generator=twin,
        )
        probability = math.exp(log_probability(logits, place))
        if math.isnan(probability):
            break  # the layer is broken: nothing that is said depends on it
        token = layer.guessable[place]
        kind = sure_kind(len(draft.ids), probability)
        draft = Draft((*draft.ids, token), (*draft.kinds, kind), "mtp")
    return draft
