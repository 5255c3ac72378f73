"""A real network that says what it is told to: its cost with turns that do something.

With random weights nothing sensible is sampled. ``ForcedNetwork`` runs the network it wraps for
every token and then lets the logits name the next token of a script, so that sessions make real
tool calls at the real cost. Which script a sequence follows is told by its first prompt.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from model.network import Network, State, Work

SEEN = 2048
"""So many of the real logits go into a digest: all take as long to hash as to compute."""


@dataclass(frozen=True)
class ForcedState:
    """The network's own state, and where in its script the sequence is.

    ``prompt`` are the ids before the first sampled one, until they tell which ``script`` it is.
    ``asked`` says that the last piece's logits were wanted, so that the next id may be sampled.
    ``digest`` is that of all real logits that named a token.
    """

    inner: State
    prompt: tuple[int, ...] = ()
    script: str = ""
    turn: int = -1
    said: int = 0
    asked: bool = False
    digest: bytes = b""

    @property
    def length(self) -> int:
        return self.inner.length

    def tensors(self) -> dict[str, Tensor]:
        """Snapshot the network's state and the prompt, before any script."""
        assert not self.script
        return self.inner.tensors() | {"forced": torch.tensor(self.prompt, dtype=torch.int64)}

    def span(self, start: int, end: int) -> dict[str, Tensor]:
        return self.inner.span(start, end)

    def park(self) -> None:
        self.inner.park()


class ForcedNetwork:
    """``inner`` with forced tokens.

    ``scripts`` are turns of ids by name; ``which`` names the script of a first prompt, "" as long
    as it cannot be told. ``digests`` are the real logits' by script, once its last id is said.
    """

    def __init__(
        self,
        inner: Network,
        scripts: Mapping[str, Sequence[Sequence[int]]],
        which: Callable[[Sequence[int]], str],
    ) -> None:
        self.inner = inner
        self.scripts = scripts
        self.which = which
        self.digests: dict[str, str] = {}
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def fingerprint(self) -> str:
        """Another one than the network's own, whose states are not interchangeable with these."""
        return f"forced-{self.inner.fingerprint}"

    def new_state(self) -> ForcedState:
        """Before the first token."""
        return ForcedState(self.inner.new_state())

    def run(self, work: Sequence[Work]) -> list[tuple[Tensor | None, State]]:
        """Run all of it, then force what comes next."""
        bare = [Work(w.ids, w.state.inner, w.logits) for w in work]  # type: ignore[attr-defined]
        done = self.inner.run(bare)
        return [
            self._forced(piece, logits, state)
            for piece, (logits, state) in zip(work, done, strict=True)
        ]

    def _forced(
        self, piece: Work, logits: Tensor | None, inner: State
    ) -> tuple[Tensor | None, ForcedState]:
        at, rest = piece.state, list(piece.ids)
        assert isinstance(at, ForcedState)
        at = replace(at, inner=inner, asked=piece.logits)
        was = piece.state
        assert isinstance(was, ForcedState)
        if was.script and was.asked and rest[0] == self._next(was):
            at, rest = replace(at, said=at.said + 1), rest[1:]
        if at.script and rest and at.said:
            at = replace(at, turn=at.turn + 1, said=0)
        if not at.script:
            at = replace(at, prompt=at.prompt + tuple(rest))
            if logits is not None and (name := self.which(at.prompt)):
                at = replace(at, prompt=(), script=name, turn=0)
        if logits is None or not at.script:
            return logits, at
        seen = logits[:SEEN].contiguous().numpy().tobytes()
        at = replace(at, digest=hashlib.blake2b(at.digest + seen, digest_size=16).digest())
        script = self.scripts[at.script]
        if at.turn == len(script) - 1 and at.said == len(script[-1]) - 1:
            with self._lock:
                self.digests[at.script] = at.digest.hex()
        forced = torch.full_like(logits, float("-inf"))
        forced[self._next(at)] = 0.0
        return forced, at

    def _next(self, at: ForcedState) -> int:
        script = self.scripts[at.script]
        turn = script[min(at.turn, len(script) - 1)]
        return turn[min(at.said, len(turn) - 1)]

    def load_state(
        self, tensors: Mapping[str, Tensor], spans: Iterable[Mapping[str, Tensor]], length: int
    ) -> ForcedState:
        """From ``ForcedState.tensors``."""
        own = dict(tensors)
        prompt = tuple(own.pop("forced").tolist())
        return ForcedState(self.inner.load_state(own, spans, length), prompt)
