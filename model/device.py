"""Choose the device that a checkpoint runs on, and say what fits there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from kernels.native import native
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.expert_tensors import is_experts
from model.checkpoint.quantize import BITS, Quantize
from model.checkpoint.stored import StoredTensor
from model.errors import CheckpointError
from model.hybrid.gpu import why_not
from model.state.pages import PAGE, Layout

ExpertPlace = Literal["auto", "cpu", "gpu"]
"""The memory that the experts of a mixture are held in beside a GPU."""
_BITS_HELD: Mapping[Quantize, float] = {"int8": 8.125, "int4": 4.53125}
"""The bits of a weight that ``--quantize`` rounds, scales included."""
_ROOM = 1.15
"""Memory that a model needs on a GPU beside its weights, as a factor: what a pass works in."""


@dataclass(frozen=True)
class ChosenDevice:
    """A device, and in a few words why it was chosen."""

    device: torch.device
    reason: str
    host_experts: bool = False
    """True if the experts stay in host memory, and the CPU computes them."""


def choose_device(
    asked: str,
    checkpoint: Checkpoint,
    quantize: Quantize = "none",
    experts: ExpertPlace = "auto",
) -> ChosenDevice:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` takes a GPU where the kernels can run the model and its memory holds it, else the CPU.
    ``experts`` says where those of a mixture of experts are: on the GPU, in host memory (``cpu``),
    or there if only the rest fits the GPU. Raises ``CheckpointError`` in one line if a GPU was
    asked for that is missing or too small.
    """
    if asked == "cpu":
        return ChosenDevice(torch.device("cpu"), "asked for")
    try:
        wanted = torch.device("cuda" if asked == "auto" else asked)
    except RuntimeError as error:
        raise CheckpointError(f"{asked} is no device; use auto, cpu, cuda or cuda:N") from error
    splits = checkpoint.config.experts is not None and native() is not None
    reason: str | None = "its experts are to stay in host memory"
    if not (splits and experts == "cpu"):
        reason = _why_not(wanted, checkpoint, quantize)
    host = splits and experts != "gpu" and reason is not None
    if host:
        reason = _why_not(wanted, checkpoint, quantize, without_experts=True)
    if reason is None:
        index = wanted.index or 0
        held = "all but the experts, which the CPU runs" if host else "the model"
        name = torch.cuda.get_device_name(index)
        return ChosenDevice(torch.device("cuda", index), f"{name} holds {held}", host)
    if asked == "auto":
        return ChosenDevice(torch.device("cpu"), reason)
    raise CheckpointError(f"--device {asked} cannot run this model: {reason}; use --device cpu")


def _why_not(
    wanted: torch.device,
    checkpoint: Checkpoint,
    quantize: Quantize,
    *,
    without_experts: bool = False,
) -> str | None:
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
    free = torch.cuda.mem_get_info(index)[0]
    needed = weight_bytes(checkpoint, dtype, quantize, without_experts=without_experts)
    if needed * _ROOM <= free:
        return None
    kept = {"without_experts": without_experts}
    smaller = [m for m in BITS if weight_bytes(checkpoint, dtype, m, **kept) * _ROOM <= free]
    hint = f"; --quantize {smaller[0]} would fit" if smaller else ""
    missing = (needed * _ROOM - free) / 1e9
    return f"its memory lacks {missing:,.1f} GB of {needed * _ROOM / 1e9:,.1f}{hint}"


def weight_bytes(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    quantize: Quantize = "none",
    *,
    without_experts: bool = False,
) -> int:
    """Estimate the bytes that the weights take as they run in ``dtype``, all or without experts."""

    def of(stored: StoredTensor) -> float:
        count = math.prod(stored.shape)
        if without_experts and ".mlp." in stored.name:
            return 0.0
        matrix = len(stored.shape) == 2 or is_experts(stored.name)
        matrix = matrix and stored.name != "embed_tokens.weight"
        if matrix and quantize != "none":
            return count * _BITS_HELD[quantize] / 8
        if matrix and stored.native and dtype == torch.bfloat16:
            return stored.nbytes * 1.1
        if stored.is_half and len(stored.shape) > 1:
            return count * 2
        return count * dtype.itemsize

    return round(sum(of(stored) for stored in checkpoint.tensors.values()))


def longest_context(layout: Layout, limit: int, most: int) -> int:
    """Return the tokens that one session may hold in ``limit`` bytes of state, ``most`` at most."""
    pages = max(0, limit - 2 * layout.slot_bytes) // max(1, layout.page_bytes)
    return int(min(most, pages * PAGE))
