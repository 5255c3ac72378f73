"""The seam between sessions and the model they run: token ids and a state in, logits and the next
state out.

A state is an immutable value: running from it leaves it as it was, so that a snapshot or a fork
shares it at no cost and an interrupted call has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

from torch import Tensor

from model.vision.image_ids import LEAST_TOKENS, MOST_TOKENS

Progress = Callable[[int, int], None]
"""Told ``(done, total)`` tokens as a prefill advances."""


class State(Protocol):
    """A network's memory of the tokens it has run."""

    @property
    def length(self) -> int:
        """The number of tokens that went in."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return the part of fixed size, for saving. Valid while the state is held."""
        ...

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        """Return what positions ``start`` to ``end`` added to the part that grows, time first:
        equal for all states that come after them. Empty if nothing grows.
        """
        ...

    def park(self) -> None:
        """Move what no running pass needs out of memory; the next use brings it back."""
        ...


@dataclass(frozen=True)
class Work:
    """One sequence's part of a pass: run ``ids`` (at least one) after ``state``.

    ``logits`` says whether those after the last id are wanted; without, the head is not computed.
    """

    ids: Sequence[int]
    state: State
    logits: bool = True


class Trail(Protocol):
    """The states after each token of a pass over several tokens of a sequence."""

    def take(self, count: int) -> State | None:
        """Return the state after ``count`` of the tokens, from 1 on; None if it was given up.

        Once one of these states has been run from, no later one than was taken is to be had.
        """
        ...


class Network(Protocol):
    """A model as sessions see it. Only one thread at a time may call ``run``."""

    @property
    def vocab_size(self) -> int:
        """The length of the logits; ids are below it."""
        ...

    @property
    def context_length(self) -> int:
        """The most tokens a sequence may hold."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for two networks whose saved states are interchangeable."""
        ...

    @property
    def prefill_chunk(self) -> int:
        """A pass runs at most this many tokens of one sequence, and ends at multiples of it."""
        ...

    def new_state(self) -> State:
        """Return the state before the first token."""
        ...

    def admit(self, ids: Sequence[int]) -> None:
        """Check ``ids`` that are to run, and encode the pictures among them that are new.

        Raises ``ValueError`` for ids outside the vocabulary and for a part of a picture,
        ``PictureError`` for a picture that is not at hand.
        """
        ...

    def run(self, work: Sequence[Work]) -> list[tuple[Tensor | None, State]]:
        """Run one pass: either one piece of any length, or several of one id each.

        Returns for each piece the logits ``[vocab]`` that follow its last id, in float32, or None
        if they were not asked for, and the new state. Raises ``MemoryFull`` if the states after it
        do not fit in memory; nothing has changed then.
        """
        ...

    def load_state(
        self, tensors: Mapping[str, Tensor], spans: Iterable[Mapping[str, Tensor]], length: int
    ) -> State:
        """Rebuild the state whose ``tensors()`` and, end to end, ``span()`` these are.

        Raises ``StateError`` if they do not fit, ``MemoryFull`` if memory does not suffice.
        """
        ...


@runtime_checkable
class Verifying(Network, Protocol):
    """A network that can run tokens of which it is not known yet whether they will stay."""

    @property
    def verifies(self) -> int:
        """At most this many tokens of a sequence in ``verify``; 0 if it cannot."""
        ...

    def verify(self, work: Sequence[Work]) -> list[tuple[Tensor, Trail]]:
        """Run one pass over several pieces, the tokens of each as if they came one by one.

        Returns for each piece the logits ``[tokens, vocab]`` that follow each of its ids, and the
        states: both to the bit what ``run`` gives for one id after the other. Raises ``MemoryFull``
        as ``run`` does.
        """
        ...


class Chain(Protocol):
    """The memory that a network needs of a sequence to guess what follows."""


class ChainToSave(Protocol):
    """A chain as it is saved with a session's state."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the part of fixed size, named apart from ``State.tensors``."""
        ...

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        """Return what the tokens ``start`` to ``end`` added, named apart from ``State.span``."""
        ...


@runtime_checkable
class Guessing(Network, Protocol):
    """A network with a layer of its own that guesses what comes next (MTP)."""

    @property
    def guesses(self) -> bool:
        """True if it can guess."""
        ...

    @property
    def guessable(self) -> Sequence[int]:
        """The ids that it guesses: those that are used most."""
        ...

    def chain(self, state: State) -> Chain | None:
        """Return what ``guess`` goes on from after ``state``; None if there is nothing."""
        ...

    def saved_chain(self, state: State) -> ChainToSave | None:
        """Return the chain after ``state`` as it is saved, which ``load_state`` takes beside the
        state's own tensors; None if there is nothing or memory does not suffice."""
        ...

    def guess(self, work: Sequence[tuple[Chain, int]]) -> list[tuple[Tensor, Chain]]:
        """Run one id after each chain.

        Returns for each the logits ``[guessable]`` by which the layer guesses what follows the id,
        and the chain after it, to go on guessing. Nothing else depends on either. Raises
        ``MemoryFull``.
        """
        ...


def require_words(ids: Sequence[int], vocab_size: int) -> None:
    """Raise ``ValueError`` unless all ``ids`` are of text."""
    if min(ids, default=0) < 0 or max(ids, default=0) >= vocab_size:
        raise ValueError(f"token ids must be from 0 to {vocab_size - 1}")


def pieces(ids: Sequence[int], start: int, grid: int) -> list[Sequence[int]]:
    """Cut ``ids``, which begin at position ``start``, at the multiples of ``grid``.

    The grid is fixed: equal calls are cut alike, and so equal to the last bit. A cut among a
    picture's first tokens, which do not spell its whole hash, moves to before them.
    """
    first = grid - start % grid
    edges = [0, *(e - _into_image(ids[e]) for e in range(first, len(ids), grid)), len(ids)]
    return [ids[a:b] for a, b in pairwise(edges) if a < b]


def _into_image(token: int) -> int:
    """Return how many tokens of its picture come before ``token``, if they are too few to cut."""
    into = (-1 - token) % MOST_TOKENS if token < 0 else 0
    return into if into < LEAST_TOKENS else 0
