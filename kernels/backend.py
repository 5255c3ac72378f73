"""The choice of the implementation that runs, and the checks that device kernels share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Backend = Literal["torch", "triton"]
"""``torch`` is the reference and runs everywhere; ``triton`` needs a CUDA device."""


class KernelError(ValueError):
    """A kernel was asked for what it does not do; the message names the way out."""


def interpreting() -> bool:
    """Tell whether Triton kernels run in its interpreter, on the CPU (``TRITON_INTERPRET=1``)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def require_triton(op: str, *tensors: Tensor) -> None:
    """Raise ``KernelError`` unless the Triton kernel of ``op`` can run on ``tensors``.

    Tensors on the ``meta`` device pass: with them a kernel can be compiled, not run.
    """
    if importlib.util.find_spec("triton") is None:
        raise KernelError(f"{op}: Triton is not installed; install it, or use backend='torch'")
    for tensor in tensors:
        kind = tensor.device.type
        if kind not in ("cuda", "meta") and not (kind == "cpu" and interpreting()):
            raise KernelError(
                f"{op}: the Triton kernel needs a CUDA device, not {kind}; use backend='torch'"
            )


def require_power_of_two(op: str, name: str, size: int, least: int, most: int) -> None:
    """Raise ``KernelError`` unless ``size`` is a power of two from ``least`` to ``most``."""
    if not least <= size <= most or size & (size - 1):
        raise KernelError(
            f"{op}: the Triton kernel takes a {name} that is a power of two from {least} to {most},"
            f" not {size}; use backend='torch'"
        )


def addresses(rows: Sequence[Sequence[Tensor]], width: int | None = None) -> Tensor:
    """Return where the tensors of each row begin: int64 ``[rows, width]`` on their device, 0 for
    none.

    A kernel turns the numbers back into pointers. The caller keeps the tensors alive until the
    kernel has run.
    """
    width = max((len(row) for row in rows), default=0) if width is None else width
    device = next((tensor.device for row in rows for tensor in row), torch.device("cpu"))
    if device.type == "meta":
        return torch.empty(len(rows), width, dtype=torch.int64, device=device)
    if any(t.data_ptr() % 16 for row in rows for t in row) and device.type == "cuda":
        raise KernelError("a tensor in a table of addresses does not begin at a multiple of 16")
    numbers = [[t.data_ptr() for t in row] + [0] * (width - len(row)) for row in rows]
    return torch.tensor(numbers, dtype=torch.int64).reshape(len(rows), width).to(device)


def power_of_two(size: int, least: int = 1) -> int:
    """Return the smallest power of two that is at least ``size`` and ``least``."""
    return max(least, 1 << max(0, size - 1).bit_length())


def capability(device: torch.device) -> int:
    """Return the compute capability of a CUDA device times ten: 80 is an A100, 90 an H100. 80 for
    others, which run anything that the kernels' host code would launch there.
    """
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return 10 * major + minor
    return 80
