"""Choose the device that a checkpoint runs on, and say what fits there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.quantize import BITS, Quantize
from model.checkpoint.stored import StoredTensor
from model.errors import CheckpointError
from model.hybrid.gpu import why_not
from model.state.pages import PAGE, Layout

_ROOM = 1.15
"""Memory that a model needs on a GPU beside its weights, as a factor: what a pass works in."""


@dataclass(frozen=True)
class ChosenDevice:
    """A device, and in a few words why it was chosen."""

    device: torch.device
    reason: str


def choose_device(asked: str, checkpoint: Checkpoint, quantize: Quantize = "none") -> ChosenDevice:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` takes a GPU where the kernels can run the model and its memory holds it, else the CPU.
    Raises ``CheckpointError`` in one line if a GPU was asked for that is missing or too small.
    """
    if asked == "cpu":
        return ChosenDevice(torch.device("cpu"), "asked for")
    try:
        wanted = torch.device("cuda" if asked == "auto" else asked)
    except RuntimeError as error:
        raise CheckpointError(f"{asked} is no device; use auto, cpu, cuda or cuda:N") from error
    reason = _why_not(wanted, checkpoint, quantize)
    if reason is None:
        index = wanted.index or 0
        return ChosenDevice(
            torch.device("cuda", index), f"{torch.cuda.get_device_name(index)} holds the model"
        )
    if asked == "auto":
        return ChosenDevice(torch.device("cpu"), reason)
    raise CheckpointError(f"--device {asked} cannot run this model: {reason}; use --device cpu")


def _why_not(wanted: torch.device, checkpoint: Checkpoint, quantize: Quantize) -> str | None:
    """Return why a GPU cannot run a checkpoint; None if it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA device that torch can use"
    index = wanted.index or 0
    if index >= torch.cuda.device_count():
        return f"there are {torch.cuda.device_count()} CUDA devices"
    dtype = checkpoint.config.dtype
    reason = why_not(checkpoint.config, dtype, torch.device("cuda", index))
    if reason is not None:
        return reason
    free, needed = torch.cuda.mem_get_info(index)[0], weight_bytes(checkpoint, dtype, quantize)
    if needed * _ROOM <= free:
        return None
    smaller = [m for m in BITS if weight_bytes(checkpoint, dtype, m) * _ROOM <= free]
    hint = f"; --quantize {smaller[0]} would fit" if smaller else ""
    missing = (needed * _ROOM - free) / 1e9
    return f"its memory lacks {missing:,.1f} GB of {needed * _ROOM / 1e9:,.1f}{hint}"


def weight_bytes(checkpoint: Checkpoint, dtype: torch.dtype, quantize: Quantize = "none") -> int:
    """Estimate the bytes that the weights take as they run in ``dtype``."""

    def of(stored: StoredTensor) -> float:
        count = math.prod(stored.shape)
        matrix = len(stored.shape) == 2 and stored.name != "embed_tokens.weight"
        if matrix and quantize != "none":
            return count * (BITS[quantize] + 0.125) / 8
        if matrix and stored.native and dtype == torch.bfloat16:
            return stored.nbytes * 1.1
        return count * dtype.itemsize

    return round(sum(of(stored) for stored in checkpoint.tensors.values()))


def longest_context(layout: Layout, limit: int, most: int) -> int:
    """Return the tokens that one session may hold in ``limit`` bytes of state, ``most`` at most."""
    pages = max(0, limit - 2 * layout.slot_bytes) // max(1, layout.page_bytes)
    return int(min(most, pages * PAGE))
