"""A network that stops before a pass until a test lets it go on, and counts its passes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from agent.loading import LoadedModel
from model.engine import Engine
from model.network import Network, State, Work

WAIT_S = 60.0


class GatedNetwork:
    """``inner``, but ``stop_at`` says of a pass (how many ids each of its parts runs) whether it
    waits for ``let_go``. ``passes`` are all that began."""

    def __init__(self, inner: Network, prefill_chunk: int) -> None:
        self.inner = inner
        self.prefill_chunk = prefill_chunk
        self.passes: list[tuple[int, ...]] = []
        self.stop_at: Callable[[tuple[int, ...]], bool] = lambda widths: False
        self.reached = threading.Event()
        self._go = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, work: Sequence[Work]) -> list[tuple[Tensor | None, State]]:
        """See ``Network``."""
        widths = tuple(len(piece.ids) for piece in work)
        self.passes.append(widths)
        if not self.reached.is_set() and self.stop_at(widths):
            self.reached.set()
            assert self._go.wait(WAIT_S), "nobody let the pass go on"
        return self.inner.run(work)

    def let_go(self) -> None:
        """Go on; there is no second stop."""
        self._go.set()


def gated(model: LoadedModel, prefill_chunk: int = 1 << 20) -> tuple[LoadedModel, GatedNetwork]:
    """``model`` over a gated network, and that network."""
    engine = model.engine
    network = GatedNetwork(engine.network, prefill_chunk)
    made = Engine(network, engine.config, name=engine.name, generation=engine.generation)
    return LoadedModel(made, model.chat), network
