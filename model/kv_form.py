"""Choose the form that keys and values are kept in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from model.device import longest_context
from model.errors import CheckpointError
from model.state.pages import Layout

KvForm = Literal["auto", "bf16", "int8", "fp8"]
"""``bf16`` is what the model computes in, float32 in small models."""

_FP8_FROM = (8, 9)
"""The compute capability from which a GPU converts float8 itself."""


@dataclass(frozen=True)
class ChosenKv:
    """A form of keys and values, and why, if nobody asked for it ("" otherwise)."""

    dtype: torch.dtype
    reason: str = ""


def choose_kv(asked: KvForm, plain: Layout, limit: int, context: int | None) -> ChosenKv:
    """Return the form for ``asked``. ``plain`` is the layout without 8 bits.

    ``auto`` takes int8 where ``context`` tokens were asked for that ``limit`` bytes hold in int8
    and not otherwise. Raises ``CheckpointError`` for fp8 on a device that has none.
    """
    if asked == "int8":
        return ChosenKv(torch.int8)
    if asked == "fp8":
        device = plain.device
        if device.type != "cuda" or torch.cuda.get_device_capability(device) < _FP8_FROM:
            raise CheckpointError(
                f"--kv fp8 needs a GPU with float8, which {device} is not; use --kv int8"
            )
        return ChosenKv(torch.float8_e4m3fn)
    if asked == "auto" and context is not None:
        fits = longest_context(plain, limit, context)
        small = longest_context(plain.stored_in(torch.int8), limit, context)
        if fits < context <= small:
            return ChosenKv(
                torch.int8,
                f"keys and values are kept in int8: otherwise --kv-memory would hold {fits:,} of"
                f" the {context:,} tokens asked for",
            )
    return ChosenKv(plain.dtype)
