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
    """A checkpoint of the hub: parameters, bytes to fetch, and how it is rounded at load.

    Sizes follow from the number of parameters in its name, so they are rough.
    """

    name: str
    parameters: float
    quantize: Quantize
    download: float

    @property
    def weights(self) -> float:
        """Bytes of its weights in memory, all of which each token reads."""
        return self.parameters * {"none": 2.0, "int8": 1.05, "int4": 0.6}[self.quantize]


def _official(name: str, billions: float, *roundings: Quantize) -> list[Candidate]:
    return [Candidate(name, billions * 1e9, how, billions * 2e9) for how in roundings]


CANDIDATES = (
    *_official("Qwen/Qwen3.6-27B", 27.8, "none", "int8"),
    *_official("Qwen/Qwen3.5-9B", 9.4, "none", "int8"),
    *_official("Qwen/Qwen3.5-4B", 4.5, "none", "int8"),
    *_official("Qwen/Qwen3.5-2B", 2.2, "none", "int8"),
    *_official("Qwen/Qwen3.5-0.8B", 0.85, "none"),
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
