"""Drafts: tokens that are guessed, so that one pass can check several of them.

A guess costs nothing but time if it is wrong: what is sampled does not depend on it. So it is made
only where it pays, by how often such guesses were right in this session and by what wider passes
and guesses have cost in this process.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from model.drafting.costs import PassCosts
from model.drafting.quotes import Quotes
from model.drafting.token_history import TokenHistory
from model.network import State, Trail

Source = Literal["copy", "mtp"]
Drafts = Literal["auto", "copy", "mtp", "off"]
"""Which sources a session may use; auto is both."""

_LEAST_GAIN = 1.02
_FORGET = 0.98
_PRIOR_WEIGHT = 4.0

_AGREE = (3, 4, 8, 16)
_AGREE_PRIORS = (0.4, 0.6, 0.75, 0.8, 0.8)
"""How often the next id of a copy is right, until it is known: by how many ids agreed before it."""

_SURE = (0.3, 0.5, 0.7, 0.85, 0.95)
_SURE_PRIORS = (0.2, 0.4, 0.6, 0.75, 0.88, 0.95)
"""How often a guess of the MTP layer is right: by the probability that it gave the id itself. Each
depth has its own record."""

MOST_GUESSES = 4
"""The most ids that the MTP layer guesses in a row."""

_DEPTH_PRIORS = (0.6, 0.55, 0.5, 0.45)
"""How often its first guess is right, and each further one if those before it are."""

_PROBE, _MOST_PROBE = 64, 512
"""After so many tokens without a guess of the MTP layer one is made: they may pay by now. Each that
shows nothing doubles the wait."""

_ASSUMED_GUESS = 0.3
"""The part of a pass that a guess costs, until it is known."""


@dataclass(frozen=True)
class Draft:
    """``ids`` that may come next. ``kinds`` is for each the row of what is known about such ids."""

    ids: Sequence[int] = ()
    kinds: Sequence[int] = ()
    source: Source = "copy"


@dataclass(frozen=True)
class Ahead:
    """Tokens that a pass has run beyond the session's state: of ``ids``, those from ``count`` on.

    ``logits [ids, vocab]`` follow each of them. The first was sampled, the others are the draft.
    """

    ids: Sequence[int]
    logits: Tensor
    trail: Trail
    draft: Draft
    count: int = 0

    def take(self) -> tuple[Tensor, State, Ahead] | None:
        """One token on: the logits and the state after it; None if it was given up."""
        state = self.trail.take(self.count + 1)
        if state is None:
            return None
        return self.logits[self.count], state, replace(self, count=self.count + 1)


class Shares:
    """A record of how often guesses of each kind were right lately. It begins with ``priors``."""

    def __init__(self, priors: Sequence[float]) -> None:
        self._right = [share * _PRIOR_WEIGHT for share in priors]
        self._tried = [_PRIOR_WEIGHT] * len(priors)

    def copy(self) -> Shares:
        """Return another record that has seen the same."""
        twin = Shares(())
        twin._right, twin._tried = list(self._right), list(self._tried)
        return twin

    def __getitem__(self, kind: int) -> float:
        return self._right[kind] / self._tried[kind]

    def learn(self, kind: int, right: bool) -> None:
        """Note that a guess of ``kind`` was right, or not."""
        self._right[kind] = self._right[kind] * _FORGET + right
        self._tried[kind] = self._tried[kind] * _FORGET + 1


class Drafter:
    """Decides what one session tries, and keeps how often that was right.

    ``costs`` are those of passes, ``guess_costs`` those of guesses by the MTP layer.
    """

    def __init__(self, costs: PassCosts, guess_costs: PassCosts) -> None:
        self._costs = costs
        self._guess_costs = guess_costs
        self._shares: dict[Source, Shares] = {
            "copy": Shares(_AGREE_PRIORS),
            "mtp": Shares(_SURE_PRIORS * MOST_GUESSES),
        }
        self._depths = Shares(_DEPTH_PRIORS)
        self._unused = Draft()
        self._unguessed, self._probe = 0, _PROBE

    def copy(self) -> Drafter:
        """Return another drafter that has seen the same."""
        twin = Drafter(self._costs, self._guess_costs)
        twin._shares = {source: shares.copy() for source, shares in self._shares.items()}
        twin._depths = self._depths.copy()
        twin._unguessed, twin._probe = self._unguessed, self._probe
        return twin

    def copied(self, ids: TokenHistory, quotes: Quotes, most: int, company: int) -> Draft:
        """Return at most ``most`` ids that followed the end of ``ids`` before, or that follow it in
        one of ``quotes``, to try in a pass with ``company`` others: none where they would not pay.
        """
        found, agree = ids.seen_before(most)
        quoted, fits = quotes.seen(ids, most)
        # Of two that fit alike, the text as it is now is the likelier one to be said again.
        if quoted and fits >= agree:
            found, agree = quoted, fits
        draft = Draft(found, [bisect_right(_AGREE, agree + i) for i in range(len(found))])
        shares = self._shares["copy"]
        best, best_rate = 0, _LEAST_GAIN * self._rate(company, 1.0, 0)
        tokens, chance = 1.0, 1.0
        for count, kind in enumerate(draft.kinds, 1):
            chance *= shares[kind]
            tokens += chance
            rate = self._rate(company, tokens, count)
            if rate > best_rate:
                best, best_rate = count, rate
        self._unused = Draft() if best else draft
        return Draft(draft.ids[:best], draft.kinds[:best])

    def depth(self, draft: Draft, most: int, company: int) -> int:
        """Return how many guesses of the MTP layer, at most ``most``, promise more than the copied
        ``draft``; 0 if none do."""
        self._unguessed += 1
        tokens, chance = 1.0, 1.0
        for kind in draft.kinds:
            chance *= self._shares["copy"][kind]
            tokens += chance
        least = _LEAST_GAIN if not draft.ids else 1.0
        best_rate = least * self._rate(company, tokens, len(draft.ids))
        best = 0
        tokens, chance = 1.0, 1.0
        for count in range(1, most + 1):
            chance *= self._depths[count - 1]
            tokens += chance
            rate = self._rate(company, tokens, count, count)
            if rate > best_rate:
                best, best_rate = count, rate
        if best:
            self._unguessed, self._probe = 0, _PROBE
        elif not draft.ids and most and self._unguessed >= self._probe:
            best, self._unguessed = 1, 0
            self._probe = min(2 * self._probe, _MOST_PROBE)
        return best

    def another(self, guessed: Draft, company: int) -> bool:
        """Return whether one more guess after those ``guessed`` promises to pay."""
        tokens, chance = 1.0, 1.0
        for kind in guessed.kinds:
            chance *= self._shares["mtp"][kind]
            tokens += chance
        count = len(guessed.ids)
        now = self._rate(company, tokens, count, count)
        further = tokens + chance * self._depths[count]
        return self._rate(company, further, count + 1, count + 1) > now

    def sampled(self, ahead: Ahead | None, token: int) -> bool:
        """Learn that ``token`` was sampled; return whether it is the one that was drafted."""
        if self._unused.ids:
            self._shares["copy"].learn(self._unused.kinds[0], token == self._unused.ids[0])
            self._unused = Draft()
        if ahead is None or ahead.count == len(ahead.ids):
            return False
        right = ahead.ids[ahead.count] == token
        draft, number = ahead.draft, ahead.count - 1
        self._shares[draft.source].learn(draft.kinds[number], right)
        if draft.source == "mtp":
            self._depths.learn(number, right)
        return right

    def _rate(self, company: int, tokens: float, drafted: int, guesses: int = 0) -> float:
        """Return the tokens a second of all in the pass, if this sequence gets ``tokens`` of it."""
        one = self._guess_costs.seconds(1) or _ASSUMED_GUESS * self._costs.seconds(1)
        seconds = self._costs.seconds(1 + company + drafted) + guesses * one
        return (company + tokens) / seconds if seconds else 0.0


def sure_kind(depth: int, probability: float) -> int:
    """Return the kind of a guess after ``depth`` others to which the MTP layer gives
    ``probability``."""
    return depth * len(_SURE_PRIORS) + bisect_right(_SURE, probability)
