"""A network that says a script by its place in the conversation, however it got there.

Unlike ``model.scripted`` it depends on the token ids alone, as a real network does: prefilling a
conversation again leads to the same place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.network import State, Work


@dataclass(frozen=True)
class PlacedState:
    """All the ids there were; ``turns`` begins of turns were among them, the last at ``place``."""

    ids: tuple[int, ...] = ()
    turns: int = 0
    place: int = 0

    @property
    def length(self) -> int:
        """How many."""
        return len(self.ids)

    def tensors(self) -> dict[str, Tensor]:
        """The ids as one tensor."""
        return {"ids": torch.tensor(self.ids, dtype=torch.int64)}

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        """Nothing grows."""
        return {}

    def park(self) -> None:
        """There is nothing to move."""


@dataclass(frozen=True)
class PlacedNetwork:
    """Says turn n of ``script`` after the n-th ``opening`` (the ids of a generation prompt).

    ``start`` are the ids that every assistant's turn begins with, reasoning or not.
    """

    script: Sequence[Sequence[int]]
    vocab_size: int
    start: tuple[int, ...]
    opening: tuple[int, ...]
    context_length: int = 1 << 20
    prefill_chunk: int = 1 << 20

    @property
    def fingerprint(self) -> str:
        """Equal for equal scripts."""
        return "placed-" + hashlib.sha256(repr(self.script).encode()).hexdigest()[:16]

    def new_state(self) -> PlacedState:
        """No ids."""
        return PlacedState()

    def admit(self, ids: Sequence[int]) -> None:
        """Take anything."""

    def run(self, work: Sequence[Work]) -> list[tuple[Tensor | None, State]]:
        """Certain of the next id of the script."""
        return [self._advance(piece) for piece in work]

    def _advance(self, piece: Work) -> tuple[Tensor, PlacedState]:
        assert isinstance(piece.state, PlacedState)
        after = self._after(piece.state, tuple(piece.ids))
        logits = torch.full((self.vocab_size,), float("-inf"))
        logits[self._next(after)] = 0.0
        return logits, after

    def load_state(
        self, tensors: Mapping[str, Tensor], spans: Iterable[Mapping[str, Tensor]], length: int
    ) -> PlacedState:
        """From ``PlacedState.tensors``."""
        assert not any(spans)
        return self._after(PlacedState(), tuple(tensors["ids"].tolist()))

    def _after(self, state: PlacedState, new: tuple[int, ...]) -> PlacedState:
        ids = state.ids + new
        turns, place, width = state.turns, state.place, len(self.start)
        for at in range(max(0, state.length - width + 1), len(ids) - width + 1):
            if ids[at] == self.start[0] and ids[at : at + width] == self.start:
                turns, place = turns + 1, at
        return PlacedState(ids, turns, place)

    def _next(self, state: PlacedState) -> int:
        turn = self.script[min(max(state.turns, 1), len(self.script)) - 1]
        said = state.length - state.place - len(self.opening) if state.turns else 0
        return turn[min(max(said, 0), len(turn) - 1)]
