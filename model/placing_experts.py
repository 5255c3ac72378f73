"""Keep the experts of a checkpoint in the form in which they are stored, mapped if that can run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from kernels.experts import ExpertStack, PackedStack
from kernels.linear import (
    Part,
    QuantizedWeight,
    StackedWeight,
    StoredRows,
    Weight,
)
from kernels.quantized_linear import PackedWeight, pack
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.expert_tensors import is_experts
from model.checkpoint.stored import StoredTensor
from model.errors import CheckpointError

_BLOCK = 16


def place_experts(checkpoint: Checkpoint, dtype: torch.dtype) -> dict[str, ExpertStack]:
    """Return the experts that are stored apart, for the compiled CPU path to run in ``dtype``.

    Rows of a GGUF file stay as they lie there, floating point numbers of ``dtype`` too; integers
    stay integers. Others are turned into ``dtype``, and so are all of a projection if they differ.
    """
    made = {}
    for name, stored in checkpoint.tensors.items():
        if stored.members:
            weights = [_weight(member, dtype) for member in stored.members]
            if len({_form(weight) for weight in weights}) > 1:
                weights = [_floats(member, dtype) for member in stored.members]
            made[name] = ExpertStack(tuple(weights))
    return made


def split(weight: QuantizedWeight, experts: int) -> ExpertStack | None:
    """Cut a matrix with one expert below the other; return None if they share blocks of outputs."""
    each = weight.outputs // experts
    if each % _BLOCK:
        return None
    return ExpertStack(tuple(weight.rows(e * each, (e + 1) * each) for e in range(experts)))


def packed_int4(
    checkpoint: Checkpoint, read: Mapping[str, Tensor], device: torch.device
) -> dict[str, PackedStack]:
    """Round all experts to the device kernels' int4, whose groups have 128 inputs, on ``device``.

    Experts that the groups do not divide are left out.
    """
    made = {}
    for name, stored in checkpoint.tensors.items():
        if not is_experts(name) or stored.shape[-1] % 128:
            continue
        packs = [pack(expert.to(device), "int4") for expert in read[name]]
        data, scales = torch.cat([p.data for p in packs]), torch.cat([p.scales for p in packs])
        made[name] = PackedStack(len(packs), PackedWeight("int4", data, scales))
    return made


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
    return (type(weight), weight.shape)
