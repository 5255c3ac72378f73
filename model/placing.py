"""Bring a checkpoint's weights into the form and onto the device that they run in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kernels.experts import ExpertStack
from kernels.linear import INT4, INT8, Part, QuantizedWeight, from_integers, packable, packed, plain
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.expert_tensors import is_experts
from model.checkpoint.quantize import Quantize, groups, quantized_weights
from model.checkpoint.stored import ReadTensors, StoredTensor
from model.hybrid.cpu import why_not as why_not_native
from model.hybrid.gpu import why_not as why_not_triton
from model.placing_experts import place_experts, require_finite_routers, split


@dataclass(frozen=True)
class PlacedWeights:
    """Weights ready for ``HybridModel.build``.

    ``quantized`` holds matrices in integers under their first names, ``tensors`` all others.
    ``compiled`` tells whether the compiled CPU path runs them, ``fingerprint`` whose they are.
    """

    tensors: dict[str, Tensor]
    quantized: dict[str, Part | ExpertStack] = field(default_factory=dict)
    compiled: bool = False
    fingerprint: str = ""

    @property
    def nbytes(self) -> int:
        """The number of bytes held."""
        parts = (*self.tensors.values(), *self.quantized.values())
        return sum(part.nbytes for part in parts)


def place(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    *,
    quantize: Quantize = "none",
    native: bool = True,
) -> PlacedWeights:
    """Place the weights of ``checkpoint`` on ``device``, to compute in ``dtype``.

    Matrices that are stored as integers stay integers where that loses nothing and the model
    computes in fewer than 32 bits; ``quantize`` rounds all matrices. Raises ``CheckpointError``.
    """
    config = checkpoint.config
    identity = checkpoint.fingerprint(dtype)
    compiled = native and why_not_native(config, dtype, device.type) is None
    read = ReadTensors(checkpoint.tensors, dtype)
    require_finite_routers(checkpoint)
    made: Mapping[str, QuantizedWeight] = {}
    if quantize != "none":
        made = quantized_weights(checkpoint.path, config, read, quantize, identity)
        identity = hashlib.sha256(f"{identity} {quantize}".encode()).hexdigest()
    elif dtype == torch.bfloat16 and (compiled or device.type == "cuda"):
        made = exact_weights(checkpoint)
    joined = {names[0]: names for names in groups(config)}
    skipped = {n for first in made for n in joined[first]} - {"embed_tokens.weight"}
    small: dict[str, Part | ExpertStack] = {}
    if compiled and quantize == "none":
        small.update(place_experts(checkpoint, dtype))
        skipped |= set(small)
    tensors = {name: read[name].to(device) for name in read if name not in skipped}
    for name, weight in made.items():
        if is_experts(name):
            assert config.experts is not None
            stack = split(weight, config.experts.count) if compiled else None
            if stack is not None:
                small[name] = stack
            else:
                shape = (config.experts.count, -1, weight.inputs)
                tensors[name] = plain(weight, dtype).reshape(shape).to(device)
        elif compiled:
            small[name] = weight
        elif why_not_triton(config, dtype, device) is None and packable(weight):
            small[name] = packed(weight, device)
        else:
            # torch has no products in this form: the same values, without the saving.
            small[name] = plain(weight, dtype).to(device)
    return PlacedWeights(tensors, small, compiled, identity)


def exact_weights(checkpoint: Checkpoint) -> dict[str, QuantizedWeight]:
    """Return the matrices that are stored as integers and can stay so without loss."""
    made = {}
    for names in groups(checkpoint.config):
        weight = _exact([checkpoint.tensors[name] for name in names])
        if weight is not None:
            made[names[0]] = weight
    return made


def _exact(stored: list[StoredTensor]) -> QuantizedWeight | None:
    """Join matrices that are stored as integers in groups of one size; None where that loses."""
    if any(tensor.coded is None or not tensor.bits for tensor in stored):
        return None
    runs = [tensor.coded(0, tensor.shape[0]) for tensor in stored if tensor.coded is not None]
    if len({run.scales.shape[1] for run in runs}) != 1:
        return None
    return from_integers(
        torch.cat([run.codes for run in runs]),
        torch.cat([run.scales for run in runs]),
        INT4 if all(tensor.bits == 4 for tensor in stored) else INT8,
    )
