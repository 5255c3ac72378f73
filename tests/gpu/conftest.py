"""Where the Triton kernels run in these tests: a CUDA device, or Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from kernels.backend import interpreting


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A CUDA device; the CPU under ``TRITON_INTERPRET=1``; otherwise the test is skipped."""
    if interpreting():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device (TRITON_INTERPRET=1 runs these tests in the interpreter)")
    return torch.device("cuda")


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan() -> Iterator[None]:
    """``torch.empty`` gives NaN, so that an output that a kernel leaves out cannot pass."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
