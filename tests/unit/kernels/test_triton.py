"""The Triton kernels without a GPU: the comparisons of tests/gpu in Triton's interpreter, in a
process of their own (the interpreter must be chosen before Triton is imported), and the refusals.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kernels.backend import KernelError
from kernels.rms_norm import rms_norm
from kernels.swiglu import swiglu

TARGETS = ("tests/gpu",)
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kernels_equal_the_reference_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--timeout=600",
            "tests/gpu",
        ],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=880,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert "failed" not in done.stdout
    assert int(passed[1]) >= 40


def test_a_cpu_tensor_is_refused_with_the_way_out() -> None:
    with pytest.raises(KernelError, match=r"needs a CUDA device, not cpu; use backend='torch'"):
        rms_norm(torch.ones(4), torch.ones(4), 1e-6, backend="triton")


def test_without_triton_the_message_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(KernelError, match=r"Triton is not installed.*use backend='torch'"):
        swiglu(torch.ones(4), backend="triton")
