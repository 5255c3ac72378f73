"""Bring a checkpoint's weights into the form and onto the device that they run in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from kernels.experts import DeviceStack, ExpertStack
from kernels.fp8_linear import Fp8Weight
from kernels.linear import (
    BLOCK,
    Part,
    QuantizedWeight,
    StackedWeight,
    StoredTable,
    Table,
    Weight,
    join,
    plain,
)
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.config import ModelConfig, head_name
from model.checkpoint.expert_tensors import is_experts
from model.checkpoint.quantize import (
    Quantize,
    groups,
    mtp_groups,
    quantized_weights,
)
from model.checkpoint.stored import ReadTensors, StoredTensor
from model.hybrid.cpu import why_not as why_not_native
from model.hybrid.gpu import why_not as why_not_triton
from model.placing_experts import (
    place_device_experts,
    place_experts,
    require_finite_routers,
    split,
)

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
    quantized: dict[str, Weight | ExpertStack | DeviceStack] = field(default_factory=dict)
    embedding: Table | None = None
    compiled: bool = False
    fingerprint: str = ""
    converted: Mapping[str, int] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The number of bytes held; an embedding that is the head too counts once."""
        parts = [*self.tensors.values(), *self.quantized.values()]
        table = self.embedding
        if isinstance(table, StoredTable) and all(p is not table.weight for p in parts):
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
    in fewer than 32 bits, float16 ones on the compiled path always; ``quantize`` rounds all
    matrices. With ``host_experts`` the experts stay on the CPU with their routers, for its compiled
    path. Raises ``CheckpointError``.
    """
    config = checkpoint.config
    identity = checkpoint.fingerprint(dtype)
    compiled = native and why_not_native(config, dtype, device.type) is None
    read = ReadTensors(checkpoint.tensors, dtype)
    require_finite_routers(checkpoint)
    made: Mapping[str, Weight] = {}
    table: StoredTable | None = None
    small: dict[str, Weight | ExpertStack | DeviceStack] = {}
    place_of = partial(_place_of, device, host_experts)
    triton = why_not_triton(config, dtype, device) is None
    if quantize != "none":
        made = quantized_weights(checkpoint.path, config, read, quantize, identity)
        identity = hashlib.sha256(f"{identity} {quantize}".encode()).hexdigest()
    elif compiled or (triton and dtype == torch.bfloat16):
        made = exact_weights(checkpoint, dtype, half=compiled)
        table = _table(checkpoint, made, dtype, half=compiled)
    joined = {names[0]: names for names in (*groups(config), *mtp_groups(config))}
    skipped = {name for first in made for name in joined[first]} - {EMBEDDING}
    if table is not None:
        skipped.add(EMBEDDING)
    on_cpu = compiled or host_experts
    if on_cpu and quantize == "none":
        small.update(place_experts(checkpoint, dtype))
    elif triton and quantize == "none" and dtype == torch.bfloat16:
        small.update(place_device_experts(checkpoint, device))
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
    if table is not None and not compiled:
        table = _moved_table(table, small.get(EMBEDDING), device)
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
) -> ExpertStack | DeviceStack | None:
    """Return a rounded matrix of all experts as what runs them takes it; None if it cannot."""
    assert config.experts is not None and isinstance(weight, QuantizedWeight)
    if on_cpu:
        return split(weight, config.experts.count)
    if triton and weight.outputs // config.experts.count % BLOCK == 0:
        return DeviceStack(config.experts.count, weight.to(device))
    return None


def _moved(weight: Weight, dtype: torch.dtype, device: torch.device, triton: bool) -> Weight:
    """Return a weight as torch or the device kernels take it: where they have no products in its
    form, as plain numbers.
    """
    if isinstance(weight, StackedWeight):
        parts = [_moved(part, dtype, device, triton) for part in weight.parts]
        return StackedWeight(tuple(p for p in parts if not isinstance(p, StackedWeight)))
    if triton and isinstance(weight, QuantizedWeight | Fp8Weight):
        return weight.to(device)
    return plain(weight, dtype).to(device)


def exact_weights(checkpoint: Checkpoint, dtype: torch.dtype, *, half: bool) -> dict[str, Weight]:
    """Return the matrices that can stay in a form other than ``dtype`` without loss, joined.

    Those are matrices of fewer bits beside bfloat16 ones, and float16 ones if ``half``.
    """
    made = {}
    config, tensors = checkpoint.config, checkpoint.tensors
    for names in (*groups(config), *mtp_groups(config)):
        if all(name in tensors and len(tensors[name].shape) == 2 for name in names):
            weight = _exact([tensors[name] for name in names], dtype, half)
            if weight is not None:
                made[names[0]] = weight
    return made


def _exact(stored: list[StoredTensor], dtype: torch.dtype, half: bool) -> Weight | None:
    """Join matrices in the forms that each is stored in; None if all are to be in ``dtype``."""

    def form_of(tensor: StoredTensor) -> Part | None:
        if tensor.is_half:
            return tensor.plain if half else None
        return tensor.weight() if tensor.native and dtype == torch.bfloat16 else None

    found = [form_of(tensor) for tensor in stored]
    if all(part is None for part in found):
        return None
    parts: list[Part] = []
    run: list[QuantizedWeight] = []
    for tensor, part in zip(stored, found, strict=True):
        if isinstance(part, QuantizedWeight):
            run.append(part)
            continue
        parts += [*join(run), tensor.read(dtype).to(dtype) if part is None else part]
        run = []
    parts += join(run)
    return parts[0] if len(parts) == 1 else StackedWeight(tuple(parts))


def _moved_table(table: StoredTable, head: object, device: torch.device) -> StoredTable:
    """Return a quantised table on ``device``: the ``head`` that is there already if it is one."""
    assert isinstance(table.weight, QuantizedWeight)
    held = head if isinstance(head, QuantizedWeight) else table.weight.to(device)
    return StoredTable(held, table.dtype)


def _table(
    checkpoint: Checkpoint, made: Mapping[str, Weight], dtype: torch.dtype, *, half: bool
) -> StoredTable | None:
    """Return the embedding as it is stored, the head itself where they are one; None if ``dtype``
    holds it.
    """
    stored = checkpoint.tensors[EMBEDDING]
    weight = made.get(EMBEDDING)
    if head_name(checkpoint.config) != EMBEDDING:
        weight = _exact([stored], dtype, half)
    return StoredTable(weight, dtype) if isinstance(weight, QuantizedWeight | Tensor) else None
