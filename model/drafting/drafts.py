"""Guessing what comes next, so that one pass can check several tokens.

A guess costs nothing but time if it is wrong: what is sampled does not depend on it. So it is made
only where it pays, by how often such guesses were right in this session and by what wider passes
have cost in this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from model.drafting.costs import PassCosts
from model.drafting.token_history import TokenHistory
from model.network import State, Trail

_LEAST_GAIN = 1.02
_FORGET = 0.98
_PRIORS = ((2, 0.4), (3, 0.6), (4, 0.75), (8, 0.8), (16, 0.8))
"""From how many agreeing ids on, and how often the next one is then right, until it is known."""

_PRIOR_WEIGHT = 4.0


@dataclass(frozen=True)
class Draft:
    """``ids`` that may come next; where they come from, ``agree`` ids agreed before them."""

    ids: Sequence[int]
    agree: int


@dataclass(frozen=True)
class Ahead:
    """Tokens that a pass has run beyond the session's state: of ``ids``, those from ``count`` on.

    ``logits [ids, vocab]`` follow each of them. They were drafted, except for the first.
    """

    ids: Sequence[int]
    logits: Tensor
    trail: Trail
    agree: int
    count: int = 0

    def take(self) -> tuple[Tensor, State, Ahead] | None:
        """One token on: the logits and the state after it; None if it was given up."""
        state = self.trail.take(self.count + 1)
        if state is None:
            return None
        return self.logits[self.count], state, replace(self, count=self.count + 1)


class Drafter:
    """The drafts of one session, and a record of how often they were right."""

    def __init__(self, costs: PassCosts) -> None:
        self._costs = costs
        self._right = [share * _PRIOR_WEIGHT for _, share in _PRIORS]
        self._tried = [_PRIOR_WEIGHT] * len(_PRIORS)
        self._unused: Draft | None = None

    def copy(self) -> Drafter:
        """Another one that has seen the same."""
        twin = Drafter(self._costs)
        twin._right, twin._tried = list(self._right), list(self._tried)
        return twin

    def propose(self, ids: TokenHistory, most: int, company: int) -> Draft:
        """At most ``most`` ids to try after ``ids``, in a pass with ``company`` others: none where
        they would not pay."""
        found, agree = ids.seen_before(most)
        best, best_rate = 0, _LEAST_GAIN * self._rate(company, 1.0, 0)
        tokens, chance = 1.0, 1.0
        for count in range(1, len(found) + 1):
            chance *= self._share(agree + count - 1)
            tokens += chance
            rate = self._rate(company, tokens, count)
            if rate > best_rate:
                best, best_rate = count, rate
        self._unused = Draft(found, agree) if found and not best else None
        return Draft(found[:best], agree)

    def sampled(self, ahead: Ahead | None, token: int) -> bool:
        """Learn that ``token`` was sampled; whether it is the one that was drafted."""
        if ahead is None or ahead.count == len(ahead.ids):
            if ahead is None and self._unused is not None:
                self._learn(self._unused.agree, token == self._unused.ids[0])
                self._unused = None
            return False
        right = ahead.ids[ahead.count] == token
        self._learn(ahead.agree + ahead.count - 1, right)
        return right

    def _rate(self, company: int, tokens: float, drafted: int) -> float:
        """Tokens a second of all in the pass, if this sequence gets ``tokens`` of it."""
        seconds = self._costs.seconds(1 + company + drafted)
        return (company + tokens) / seconds if seconds else 0.0

    def _share(self, agree: int) -> float:
        kind = _kind(agree)
        return self._right[kind] / self._tried[kind]

    def _learn(self, agree: int, right: bool) -> None:
        kind = _kind(agree)
        self._right[kind] = self._right[kind] * _FORGET + right
        self._tried[kind] = self._tried[kind] * _FORGET + 1


def _kind(agree: int) -> int:
    """Return the row of ``_PRIORS`` that ``agree`` falls into."""
    kind = 0
    for number, (least, _) in enumerate(_PRIORS):
        if agree >= least:
            kind = number
    return kind
