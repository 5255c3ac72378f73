"""Checkpoints to choose from, and how fast each can be on a machine."""

from __future__ import annotations

from dataclasses import dataclass

from agent.cli.host import Host
from model.checkpoint.quantize import Quantize

COMFORTABLE = 8.0
"""Tokens a second below which a chat is tiring: larger checkpoints are not recommended then."""
SHOWN = 3
_HEADROOM = 1.2
"""Weights times this, and ``_STATE``, must fit: passes and sessions take memory too."""
_STATE = 1.5e9


@dataclass(frozen=True)
class Candidate:
    """A checkpoint of the hub, how it is rounded at load, and bytes: to fetch, and in memory.

    Each token reads all of its ``weights``. Sizes are by arithmetic, those of the two smallest from
    the number of parameters in their name alone.
    """

    name: str
    quantize: Quantize
    download: float
    weights: float


def _sizes(name: str, download: float, **weights: float) -> list[Candidate]:
    """Return a candidate for each rounding; sizes in GB."""
    return [
        Candidate(name, how, download * 1e9, weights[word] * 1e9)
        for word, how in _ROUNDINGS.items()
        if word in weights
    ]


_ROUNDINGS: dict[str, Quantize] = {"bf16": "none", "int8": "int8", "int4": "int4"}
CANDIDATES = (
    *_sizes("Qwen/Qwen3.6-27B", 55.6, bf16=54.6, int8=29.4, int4=16.6),
    *_sizes("Qwen/Qwen3.5-9B", 19.0, bf16=18.4, int8=10.6, int4=6.6),
    *_sizes("Qwen/Qwen3.5-4B", 9.0, bf16=8.7, int8=5.8, int4=3.7),
    *_sizes("Qwen/Qwen3.5-2B", 4.5, bf16=4.2),
    *_sizes("Qwen/Qwen3.5-0.8B", 1.8, bf16=1.7),
)
"""Official dense checkpoints, the best first."""


@dataclass(frozen=True)
class Suggestion:
    """A candidate that fits this machine.

    ``rate`` is the bound in tokens a second that the memory's bandwidth sets.
    """

    candidate: Candidate
    rate: float
    recommended: bool = False

    def line(self) -> str:
        """Return what a person is told of it."""
        one = self.candidate
        rounded = "" if one.quantize == "none" else f", rounded to {one.quantize}"
        mark = "  (recommended)" if self.recommended else ""
        return (
            f"{one.name}{rounded}: about {one.download / 1e9:,.0f} GB to fetch, "
            f"{one.weights / 1e9:,.1f} GB in memory, at most {self.rate:,.0f} tokens/s{mark}"
        )


def suggest(host: Host) -> list[Suggestion]:
    """Return up to ``SHOWN`` checkpoints that fit, the best first; one of them is recommended.

    That is the best one that is comfortable, else the fastest. Empty where none fits.
    """
    fitting = [
        Suggestion(one, host.bandwidth / one.weights)
        for one in CANDIDATES
        if one.weights * _HEADROOM + _STATE <= host.memory and one.download <= host.disk
    ]
    if not fitting:
        return []
    pleasant = [one for one in fitting if one.rate >= COMFORTABLE]
    best = pleasant[0] if pleasant else max(fitting, key=lambda one: one.rate)
    shown = {0, max(0, fitting.index(best) - 1), fitting.index(best)}
    shown |= set(range(len(shown), min(SHOWN, len(fitting))))
    return [
        Suggestion(fitting[i].candidate, fitting[i].rate, fitting[i] is best) for i in sorted(shown)
    ]
