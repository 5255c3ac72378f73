"""A network that says what it was told to: the whole session machinery without any weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from model.checkpoint.config import ModelConfig
from model.engine import Engine
from model.errors import StateError
from model.network import State, Work, require_words
from model.sampling import SamplingParams


@dataclass(frozen=True)
class ScriptedState:
    """A place in the script: ``said`` ids of turn ``turn`` have been sampled and run."""

    length: int = 0
    turn: int = -1
    said: int = 0

    def tensors(self) -> dict[str, Tensor]:
        """Return the three numbers as one tensor."""
        return {"position": torch.tensor([self.length, self.turn, self.said])}

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        """Return nothing: no part of this state grows."""
        return {}

    def park(self) -> None:
        """There is nothing to move."""


@dataclass(frozen=True)
class ScriptedNetwork:
    """Plays ``script``, a list of turns of token ids.

    The first ``extend`` begins the first turn; each later ``extend`` begins the next, if anything
    of the current one was sampled. The scripted id is certain (log-probability 0), so greedy and
    sampled decoding agree. A turn that is played out repeats its last id, which ought to be a stop
    id, and after the last turn that turn's last id is all there is. Input after an unsampled turn
    must not begin with the id the script would say next: it would count as sampled.
    """

    script: Sequence[Sequence[int]]
    vocab_size: int
    context_length: int = 1 << 20
    prefill_chunk: int = 1 << 20

    def __post_init__(self) -> None:
        if not self.script or not all(self.script):
            raise ValueError("a script needs at least one turn, and each turn at least one id")

    @property
    def fingerprint(self) -> str:
        """Equal for equal scripts."""
        text = repr(([list(turn) for turn in self.script], self.vocab_size))
        return "scripted-" + hashlib.sha256(text.encode()).hexdigest()[:32]

    def new_state(self) -> ScriptedState:
        """Before the first turn."""
        return ScriptedState()

    def admit(self, ids: Sequence[int]) -> None:
        """Refuse ids outside the vocabulary; this network has no eyes."""
        require_words(ids, self.vocab_size)

    def run(self, work: Sequence[Work]) -> list[tuple[Tensor | None, State]]:
        """Advance each by what was sampled; anything else that follows is new input."""
        return [self._advance(piece) for piece in work]

    def _advance(self, piece: Work) -> tuple[Tensor, ScriptedState]:
        state, rest = piece.state, list(piece.ids)
        assert isinstance(state, ScriptedState)
        turn, said = state.turn, state.said
        if turn >= 0 and rest[0] == self._expected(turn, said):
            said, rest = said + 1, rest[1:]
        if rest and (turn < 0 or said > 0):
            turn, said = turn + 1, 0
        logits = torch.full((self.vocab_size,), float("-inf"))
        logits[self._expected(turn, said)] = 0.0
        return logits, ScriptedState(state.length + len(piece.ids), turn, said)

    def load_state(
        self, tensors: Mapping[str, Tensor], spans: Iterable[Mapping[str, Tensor]], length: int
    ) -> ScriptedState:
        """From ``ScriptedState.tensors``."""
        state = ScriptedState(*(int(n) for n in tensors["position"]))
        if state.length != length or any(spans):
            raise StateError("the saved script position does not match the session's length")
        return state

    def _expected(self, turn: int, said: int) -> int:
        if turn >= len(self.script):
            return self.script[-1][-1]
        return self.script[turn][min(said, len(self.script[turn]) - 1)]


class MarkupTokenizer(Protocol):
    """The part of a tokenizer that ``scripted_engine`` needs."""

    @property
    def vocab_size(self) -> int: ...

    def encode_markup(self, text: str) -> list[int]: ...


def scripted_engine(
    turns: Sequence[str],
    *,
    tokenizer: MarkupTokenizer,
    name: str = "scripted",
    context_length: int = 1 << 20,
) -> Engine:
    """Make an engine that answers with ``turns``, each written as the model would write it.

    A turn is encoded with special tokens recognised and normally ends with ``<|im_end|>``.
    """
    script = [tokenizer.encode_markup(turn) for turn in turns]
    network = ScriptedNetwork(script, tokenizer.vocab_size, context_length)
    config = ModelConfig.tiny(vocab_size=tokenizer.vocab_size, context_length=context_length)
    return Engine(network, config, name=name, generation=SamplingParams())
