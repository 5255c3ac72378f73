"""The experts of a checkpoint that are stored apart: one by one, or gate and up in two stacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from model.checkpoint.stored import StoredTensor

Member = tuple[StoredTensor, ...]
"""The matrices of one expert that lie one below the other: gate and up, or one alone."""


def stacked(name: str, shape: tuple[int, ...], members: Sequence[Member]) -> StoredTensor:
    """Join the matrices of all experts into one tensor ``[experts, outputs, inputs]``.

    Nothing is read before it is asked for. The stored parts that a fingerprint covers are those of
    the first and the last expert, so that it does not touch every page of a large file.
    """
    forms = Counter(part.form for member in members for part in member)
    parts = {
        f"{place}.{number} {key}": tensor
        for place in (0, len(members) - 1)
        for number, part in enumerate(members[place])
        for key, tensor in part.parts.items()
    }
    form = " and ".join(form for form, _ in forms.most_common())
    return StoredTensor(name, form, shape, parts, members=tuple(members))


def pieces_of(name: str) -> tuple[str, ...]:
    """Return the projections that a stacked tensor joins: of ``gate_up_proj`` two."""
    return ("gate", "up") if name.endswith("gate_up_proj") else ("down",)


def is_experts(name: str) -> bool:
    """Tell whether a tensor belongs to the routed experts of a layer."""
    return ".mlp.experts." in name
