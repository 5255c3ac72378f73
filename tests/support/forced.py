"""A network that computes as always and says what a script tells it to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from agent.loading import LoadedModel
from model.engine import Engine
from model.network import Network, State, Work
from tests.support.placed import PlacedNetwork, PlacedState


@dataclass(frozen=True)
class ForcedState:
    """The real network's state, and the place in the script."""

    real: State
    told: PlacedState

    @property
    def length(self) -> int:
        """How many tokens."""
        return self.real.length

    def tensors(self) -> dict[str, Tensor]:
        """Return the members of both."""
        return {**self.real.tensors(), **self.told.tensors()}

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        """The real one's."""
        return self.real.span(start, end)

    def park(self) -> None:
        """Park the real one."""
        self.real.park()


class ForcedNetwork:
    """Every pass of ``real`` is run; the logits are those of ``script``."""

    def __init__(self, real: Network, script: PlacedNetwork) -> None:
        self.real = real
        self.script = script
        self.prefill_chunk = real.prefill_chunk
        self.vocab_size = real.vocab_size
        self.context_length = real.context_length
        self.fingerprint = real.fingerprint

    def new_state(self) -> ForcedState:
        """No ids."""
        return ForcedState(self.real.new_state(), PlacedState())

    def admit(self, ids: Sequence[int]) -> None:
        """Ask the real one."""
        self.real.admit(ids)

    def run(self, work: Sequence[Work]) -> list[tuple[Tensor | None, State]]:
        """Run both."""
        reals = self.real.run([Work(p.ids, _of(p.state).real, p.logits) for p in work])
        tolds = self.script.run([Work(p.ids, _of(p.state).told, p.logits) for p in work])
        found: list[tuple[Tensor | None, State]] = []
        for (_, real), (logits, told) in zip(reals, tolds, strict=True):
            assert isinstance(told, PlacedState)
            found.append((logits, ForcedState(real, told)))
        return found

    def load_state(
        self, tensors: Mapping[str, Tensor], spans: Iterable[Mapping[str, Tensor]], length: int
    ) -> ForcedState:
        """Load both."""
        rest: dict[str, Any] = {name: t for name, t in tensors.items() if name != "ids"}
        real = self.real.load_state(rest, spans, length)
        told = self.script.load_state({"ids": tensors["ids"]}, (), length)
        return ForcedState(real, told)


def _of(state: State) -> ForcedState:
    assert isinstance(state, ForcedState)
    return state


def forced(model: LoadedModel, turns: tuple[str, ...]) -> LoadedModel:
    """``model`` with a network that computes as before and says ``turns``."""
    tokenizer: Any = model.chat._tokenizer
    script = PlacedNetwork(
        [tokenizer.encode_markup(turn + "<|im_end|>") for turn in turns],
        model.engine.network.vocab_size,
        tuple(tokenizer.encode_markup("<|im_start|>assistant")),
        tuple(tokenizer.encode_markup("<|im_start|>assistant\n<think>\n")),
    )
    old = model.engine
    network = ForcedNetwork(old.network, script)
    engine = Engine(
        network, old.config, name="forced", generation=old.generation, eyes=old.eyes, drafts="off"
    )
    return replace(model, engine=engine)
