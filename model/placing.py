"""Bring a checkpoint's weights into the form and onto the device that they run in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from kernels.experts import ExpertStack, PackedStack
from kernels.linear import (
    Part,
    QuantizedTable,
    QuantizedWeight,
    StackedWeight,
    Table,
    Weight,
    join,
    packable,
    packed,
    plain,
)
from kernels.quantized_linear import GROUPS, PackedWeight, pack
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.config import ModelConfig, head_name
from model.checkpoint.expert_tensors import is_experts
from model.checkpoint.quantize import (
    Quantize,
    groups,
    mtp_groups,
    quantized_weights,
    require_finite,
)
from model.checkpoint.stored import ReadTensors, StoredTensor
from model.hybrid.cpu import why_not as why_not_native
from model.hybrid.gpu import why_not as why_not_triton
from model.placing_experts import packed_int4, place_experts, require_finite_routers, split

EMBEDDING = "embed_tokens.weight"


@dataclass(frozen=True)
class PlacedWeights:
    """Weights ready for ``HybridModel.build``.

    ``quantized`` holds joined matrices of fewer bits under their first names, ``tensors`` all other
    weights; ``embedding`` is set where it stays quantised too. ``compiled`` tells whether the
    compiled CPU path runs them, ``fingerprint`` whose they are. ``converted`` are the bytes held
    of matrices that were turned into floats at load, by their stored form.
    """

    tensors: dict[str, Tensor]
    quantized: dict[str, Weight | ExpertStack | PackedStack] = field(default_factory=dict)
    embedding: Table | None = None
    compiled: bool = False
    fingerprint: str = ""
    converted: Mapping[str, int] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The number of bytes held; an embedding that is the head too counts once."""
        parts = [*self.tensors.values(), *self.quantized.values()]
        table = self.embedding
        if isinstance(table, QuantizedTable) and all(p is not table.weight for p in parts):
            parts.append(table.weight)
        return sum(part.nbytes for part in parts)


def place(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    *,
    quantize: Quantize = "none",
    native: bool = True,
    host_experts: bool = False,
) -> PlacedWeights:
    """Place the weights of ``checkpoint`` on ``device``, to compute in ``dtype``.

    Matrices that are stored in fewer bits stay so where that loses nothing and the model computes
    in fewer than 32 bits; ``quantize`` rounds all matrices. With ``host_experts`` the experts stay
    on the CPU with their routers, for its compiled path. Raises ``CheckpointError``.
    """
    config = checkpoint.config
    identity = checkpoint.fingerprint(dtype)
    compiled = native and why_not_native(config, dtype, device.type) is None
    read = ReadTensors(checkpoint.tensors, dtype)
    require_finite_routers(checkpoint)
    made: Mapping[str, Weight] = {}
    table = None
    small: dict[str, Weight | ExpertStack | PackedStack] = {}
    place_of = partial(_place_of, device, host_experts)
    triton = why_not_triton(config, dtype, device) is None
    if quantize == "int4" and triton:
        made = _packed_int4(config, read, device)
        made = {name: weight for name, weight in made.items() if place_of(name) == device}
        small.update({} if host_experts else packed_int4(checkpoint, read, device))
        identity = hashlib.sha256(f"{identity} int4 on a GPU".encode()).hexdigest()
    elif quantize != "none":
        made = quantized_weights(checkpoint.path, config, read, quantize, identity)
        identity = hashlib.sha256(f"{identity} {quantize}".encode()).hexdigest()
    elif dtype == torch.bfloat16 and (compiled or device.type == "cuda"):
        made = exact_weights(checkpoint)
        table = _table(checkpoint, made, dtype) if compiled else None
    joined = {names[0]: names for names in (*groups(config), *mtp_groups(config))}
    skipped = {name for first in made for name in joined[first]} - {EMBEDDING}
    if table is not None:
        skipped.add(EMBEDDING)
    on_cpu = compiled or host_experts
    if on_cpu and quantize == "none":
        small.update(place_experts(checkpoint, dtype))
    skipped |= set(small)
    tensors = {name: read[name].to(place_of(name)) for name in read if name not in skipped}
    for name, weight in made.items():
        if is_experts(name):
            stack = _stacked(weight, config, device, on_cpu=on_cpu, triton=triton)
            if stack is not None:
                small[name] = stack
            else:
                shape = checkpoint.tensors[name].shape
                tensors[name] = plain(weight, dtype).reshape(shape).to(place_of(name))
        elif place_of(name) != device:
            small[name] = weight
        else:
            small[name] = weight if compiled else _moved(weight, dtype, device, triton)
    turned = _turned(checkpoint, tensors)
    return PlacedWeights(tensors, small, table, compiled, identity, turned)


def _place_of(device: torch.device, host_experts: bool, name: str) -> torch.device:
    """Return where a tensor goes: with ``host_experts`` all of a mixture's layers to the CPU."""
    return torch.device("cpu") if host_experts and ".mlp." in name else device


def _turned(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the bytes of the tensors that were turned into floats, by their stored form."""
    turned: dict[str, int] = {}
    for name, stored in checkpoint.tensors.items():
        if name in tensors and stored.plain is None:
            turned[stored.form] = turned.get(stored.form, 0) + tensors[name].nbytes
    return turned


def _stacked(
    weight: Weight, config: ModelConfig, device: torch.device, *, on_cpu: bool, triton: bool
) -> ExpertStack | PackedStack | None:
    """Return a rounded matrix of all experts as what runs them takes it; None if it cannot."""
    assert config.experts is not None and isinstance(weight, QuantizedWeight)
    if on_cpu:
        return split(weight, config.experts.count)
    if triton and packable(weight):
        return PackedStack(config.experts.count, packed(weight, device))
    return None


def _moved(weight: Weight, dtype: torch.dtype, device: torch.device, triton: bool) -> Weight:
    """Return a weight as torch or the device kernels take it: where they have no products in its
    form, as plain numbers.
    """
    if isinstance(weight, StackedWeight):
        parts = [_moved(part, dtype, device, triton) for part in weight.parts]
        return StackedWeight(tuple(p for p in parts if not isinstance(p, StackedWeight)))
    if triton and isinstance(weight, QuantizedWeight) and packable(weight):
        return packed(weight, device)
    if triton and isinstance(weight, PackedWeight) and (weight.kind != "fp8" or not weight.by_rows):
        held = weight.data.to(device), weight.scales.to(device)
        return PackedWeight(weight.kind, *held, weight.group)
    return plain(weight, dtype).to(device)


def _packed_int4(
    config: ModelConfig, read: Mapping[str, Tensor], device: torch.device
) -> dict[str, Weight]:
    """Round to the device kernels' int4 (nearest, in groups of 128, 64 or 32), since they have no
    table.

    Matrices that no group divides are left out, and experts, which run as floats.
    """
    made: dict[str, Weight] = {}
    for names in groups(config):
        fits = [group for group in GROUPS if read[names[0]].shape[1] % group == 0]
        if is_experts(names[0]) or not fits:
            continue
        parts = [read[name].to(device) for name in names]
        require_finite(dict(zip(names, parts, strict=True)))
        made[names[0]] = pack(torch.cat(parts), "int4", fits[0])
    return made


def exact_weights(checkpoint: Checkpoint) -> dict[str, Weight]:
    """Return the matrices that are stored in fewer bits and can stay so without loss, joined."""
    made = {}
    config, tensors = checkpoint.config, checkpoint.tensors
    for names in (*groups(config), *mtp_groups(config)):
        if all(name in tensors and len(tensors[name].shape) == 2 for name in names):
            weight = _exact([tensors[name] for name in names])
            if weight is not None:
                made[names[0]] = weight
    return made


def _exact(stored: list[StoredTensor]) -> Weight | None:
    """Join matrices in the forms that each is stored in; None if none is stored in fewer bits."""
    found = [tensor.weight() if tensor.native else None for tensor in stored]
    if all(part is None for part in found):
        return None
    parts: list[Part] = []
    run: list[QuantizedWeight] = []
    for tensor, part in zip(stored, found, strict=True):
        if isinstance(part, QuantizedWeight):
            run.append(part)
            continue
        parts += [*join(run), tensor.read(torch.bfloat16).bfloat16() if part is None else part]
        run = []
    parts += join(run)
    return parts[0] if len(parts) == 1 else StackedWeight(tuple(parts))


def _table(
    checkpoint: Checkpoint, made: Mapping[str, Weight], dtype: torch.dtype
) -> QuantizedTable | None:
    """Return the embedding as it is stored, the head itself where they are one; None if floats."""
    stored = checkpoint.tensors[EMBEDDING]
    tied = head_name(checkpoint.config) == EMBEDDING
    weight = made.get(EMBEDDING) if tied else stored.weight() if stored.native else None
    return QuantizedTable(weight, dtype) if isinstance(weight, QuantizedWeight) else None
