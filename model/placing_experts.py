"""Keep the experts of a checkpoint in the form in which they are stored, mapped if that can run."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.experts import DeviceStack, ExpertStack
from kernels.fp8_linear import Fp8Weight
from kernels.linear import (
    BLOCK,
    Part,
    QuantizedWeight,
    StackedWeight,
    StoredRows,
    Weight,
    join_exactly,
)
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.expert_tensors import is_experts
from model.checkpoint.stored import StoredTensor
from model.errors import CheckpointError


def place_experts(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, ExpertStack]:
    """Return the experts that are stored apart, for the compiled CPU path to run in ``dtype``.

    Rows of a GGUF file stay as they lie there, float16 numbers and those of ``dtype`` too; integers
    stay integers. Others are turned into ``dtype``, and so are all of a projection if they differ.
    """
    made = {}
    for name, stored in checkpoint.tensors.items():
        if stored.is_half and is_experts(name):
            made[name] = ExpertStack(tuple(stored.read().unbind()))
        elif stored.members:
            weights = [_weight(member, dtype) for member in stored.members]
            if len({_form(weight) for weight in weights}) > 1:
                weights = [_floats(member, dtype) for member in stored.members]
            made[name] = ExpertStack(tuple(weights))
    return made


def split(weight: QuantizedWeight, experts: int) -> ExpertStack | None:
    """Cut a matrix with one expert below the other; return None if they share blocks of outputs."""
    each = weight.outputs // experts
    if each % BLOCK:
        return None
    return ExpertStack(tuple(weight.rows(e * each, (e + 1) * each) for e in range(experts)))


def place_device_experts(checkpoint: Checkpoint, device: torch.device) -> dict[str, DeviceStack]:
    """Return the experts that are stored apart in few bits, one below the other on ``device``.

    Left out are those of a projection whose matrices are not all of one form.
    """
    made = {}
    for name, stored in checkpoint.tensors.items():
        parts = [part.weight() if part.native else None for own in stored.members for part in own]
        held = [part.to(device) for part in parts if isinstance(part, QuantizedWeight | Fp8Weight)]
        whole = _whole(held) if held and len(held) == len(parts) else None
        if whole is not None:
            made[name] = DeviceStack(len(stored.members), whole)
    return made


def _whole(parts: list[QuantizedWeight | Fp8Weight]) -> QuantizedWeight | Fp8Weight | None:
    """Join matrices one below the other; return None if they differ or share blocks of outputs."""
    coded = [part for part in parts if isinstance(part, QuantizedWeight)]
    if len(coded) == len(parts):
        fill = all(part.outputs % BLOCK == 0 for part in coded)
        return join_exactly(coded) if fill and len({_numbers(p) for p in coded}) == 1 else None
    blocks = [part for part in parts if isinstance(part, Fp8Weight)]
    by_rows = all(part.by_rows for part in blocks)
    fill = all(part.outputs % 128 == 0 and not part.by_rows for part in blocks)
    if coded or not (by_rows or fill):
        return None
    held = torch.cat([part.data for part in blocks]), torch.cat([part.scales for part in blocks])
    return Fp8Weight(*held)


def _numbers(weight: QuantizedWeight) -> object:
    """Return what two weights must have in common to be one, whatever dtype their scales have."""
    tops = None if weight.tops is None else weight.tops.shape[1:]
    return (weight.code, weight.group, weight.inputs, weight.scales.shape[1:], tops)


def require_finite_routers(checkpoint: Checkpoint) -> None:
    """Raise ``CheckpointError`` if a router holds a number that would choose experts at random."""
    for name, stored in checkpoint.tensors.items():
        if name.endswith("mlp.gate.weight") and not bool(torch.isfinite(stored.read()).all()):
            raise CheckpointError(
                f"{name} in {checkpoint.path} holds NaN or infinity, so that no expert can be"
                " chosen; fetch the checkpoint again"
            )


def _weight(member: tuple[StoredTensor, ...], dtype: torch.dtype) -> Weight:
    """Return the matrices of one expert, each as it is stored if that can be run."""
    parts = [_part(stored, dtype) for stored in member]
    return parts[0] if len(parts) == 1 else StackedWeight(tuple(parts))


def _part(stored: StoredTensor, dtype: torch.dtype) -> Part:
    if stored.is_half:
        return stored.read()
    if dtype != torch.bfloat16:
        return stored.read(dtype).to(dtype)
    raw = stored.parts.get("")
    if raw is not None and len(stored.parts) == 1:
        rows = StoredRows.of(stored.form, stored.shape[1], raw)
        if rows is not None:
            return rows
    held = stored.weight() if stored.native else None
    if held is not None:
        return held
    return stored.read(dtype).to(dtype)


def _floats(member: tuple[StoredTensor, ...], dtype: torch.dtype) -> Tensor:
    return torch.cat([stored.read(dtype).to(dtype) for stored in member])


def _form(weight: Weight) -> object:
    """Return what two weights must have in common to be experts of one layer."""
    if isinstance(weight, StackedWeight):
        return tuple(_form(part) for part in weight.parts)
    if isinstance(weight, QuantizedWeight):
        return (weight.code, weight.group, weight.scales.dtype, weight.has_terms, weight.shape)
    if isinstance(weight, StoredRows):
        return (weight.kind, weight.shape)
    return (weight.dtype if isinstance(weight, Tensor) else None, weight.shape)
