"""The rotary settings of a configuration, read as transformers 5.23.0 reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kernels.rope import Yarn
from model.errors import CheckpointError

NATIVE_FACTORS = (2, 4)
"""The factors that the family's makers name for longer contexts."""

_MOST_FACTOR = 1024.0
_KINDS = ("default", "mrope", "yarn")
"""Older configurations call the plain rotation with three positions "mrope"."""


@dataclass(frozen=True)
class RopeSettings:
    """The base ``theta``, how many dimensions of a head turn, and how many of the pairs of
    dimensions turn with time, height and width; with ``yarn`` the context is stretched.
    ``context_length`` is what that makes of ``max_position_embeddings``.
    """

    theta: float
    rotary_dim: int
    section: tuple[int, ...]
    yarn: Yarn | None
    context_length: int


def read_rope(text: Mapping[str, Any]) -> RopeSettings:
    """Read the settings of the text model's configuration. Raises ``CheckpointError``."""
    # transformers' order: rope_scaling stands above rope_parameters, and theta is 10,000 unsaid.
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _KINDS:
        raise CheckpointError(
            f"rope_type {str(kind)[:40]!r} is not supported; use the unscaled config, or yarn"
        )
    part = rope.get("partial_rotary_factor", text.get("partial_rotary_factor", 0.25))
    longest = int(text["max_position_embeddings"])
    yarn = _yarn(rope, longest) if kind == "yarn" else None
    if yarn is not None and longest <= yarn.original:
        longest = int(yarn.factor * yarn.original)
    return RopeSettings(
        theta=float(rope.get("rope_theta", text.get("rope_theta", 10_000))),
        rotary_dim=int(int(text["head_dim"]) * float(part)),
        section=tuple(int(n) for n in rope.get("mrope_section", (11, 11, 10))),
        yarn=yarn,
        context_length=longest,
    )


def _yarn(rope: Mapping[str, Any], longest: int) -> Yarn:
    """Read a YaRN block of a model of ``longest`` positions. Raises ``CheckpointError``."""
    original = int(rope.get("original_max_position_embeddings") or longest)
    if "factor" not in rope:
        raise CheckpointError("its YaRN block (rope_type yarn) lacks factor; add 2.0 or 4.0")
    # A factor of null is the ratio of both lengths.
    factor = longest / original if rope["factor"] is None else float(rope["factor"])
    if not 1 <= factor <= _MOST_FACTOR:
        raise CheckpointError(
            f"the factor of its YaRN block must be from 1 to {_MOST_FACTOR:g}, not {factor:g}"
        )
    if longest > factor * original:
        raise CheckpointError(
            f"its YaRN block contradicts itself: factor {factor:g} makes {int(factor * original):,}"
            f" of {original:,} positions, and max_position_embeddings says {longest:,}"
        )
    magnitude = rope.get("attention_factor")
    if magnitude is None:
        scale, over = rope.get("mscale"), rope.get("mscale_all_dim")
        magnitude = (
            magnitude_of(factor, scale) / magnitude_of(factor, over)
            if scale and over
            else magnitude_of(factor)
        )
    made = Yarn(
        factor,
        original,
        float(magnitude),
        float(rope.get("beta_fast") or 32),
        float(rope.get("beta_slow") or 1),
        bool(rope.get("truncate", True)),
    )
    if not 0 < made.beta_slow <= made.beta_fast or not 0 < made.magnitude < math.inf:
        raise CheckpointError(
            "its YaRN block needs 0 < beta_slow <= beta_fast and a positive attention_factor"
        )
    return made


def magnitude_of(factor: float, scale: float = 1.0) -> float:
    """Return what cosines and sines are multiplied by in a context stretched by ``factor``."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def ignored_block(given: Mapping[str, Any]) -> str | None:
    """Return a line on a rotary block that stands beside ``text_config``, where it does nothing."""
    text = given.get("text_config")
    if not isinstance(text, Mapping):
        return None
    for name in ("rope_scaling", "rope_parameters"):
        if given.get(name) and given[name] != text.get(name):
            return (
                f"config.json has {name} beside text_config, where it changes nothing; to stretch"
                " the context move it into text_config, or use --context"
            )
    return None


def stretched(rope: Yarn | None, native: int, wanted: int) -> tuple[Yarn | None, int]:
    """Return the scaling for a context of ``wanted`` tokens, and the length that it makes.

    ``native`` is the length that the configuration allows. A shorter context needs no scaling; one
    that is longer takes the smallest of ``NATIVE_FACTORS`` that holds it. Raises
    ``CheckpointError`` if none does, or if the configuration stretches the context already.
    """
    if wanted <= native:
        return rope, wanted
    factors = () if rope is not None else NATIVE_FACTORS
    for factor in factors:
        if wanted <= factor * native:
            return Yarn(float(factor), native, magnitude_of(factor)), wanted
    longest = native * max((1, *factors))
    raise CheckpointError(
        f"a context of {wanted:,} tokens is longer than this model's positions allow; ask for at"
        f" most {longest:,} (--context)"
    )
