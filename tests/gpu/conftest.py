"""Where the Triton kernels run in these tests: a CUDA device, or Triton's interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kernels.backend import interpreting

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where nothing can run them, they are skipped by a mark: the summary has one line a file."""
    if interpreting() or torch.cuda.is_available():
        return
    without = pytest.mark.skip("no CUDA device (TRITON_INTERPRET=1: in Triton's interpreter)")
    for item in items:
        if HERE in item.path.parents and "device" in item.fixturenames:
            item.add_marker(without)


@pytest.fixture(scope="session")
def device() -> torch.device:
    """A CUDA device; the CPU under ``TRITON_INTERPRET=1``."""
    return torch.device("cpu" if interpreting() else "cuda")


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan() -> Iterator[None]:
    """``torch.empty`` gives NaN, so that an output that a kernel leaves out cannot pass."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
