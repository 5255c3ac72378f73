"""Compile Triton launches without a GPU, and read from the machine code what they use.

``recorded`` notes the launches that the kernels' own host code makes on ``meta`` tensors, so what
is compiled is what a device would run: same specialisation, same constants, same warps.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

SHARED_SM = {80: 164 << 10, 89: 100 << 10, 90: 228 << 10, 100: 228 << 10, 120: 100 << 10}
"""Bytes of shared memory of a multiprocessor: CUDA programming guide, compute capabilities."""
SHARED_LIMIT = {arch: size - 1024 for arch, size in SHARED_SM.items()}
"""Bytes of it that one block may use."""
_WARPS = {80: 64, 89: 48, 90: 64, 100: 64, 120: 48}
_BLOCKS = {80: 32, 89: 24, 90: 32, 100: 32, 120: 24}
_REGISTERS = 65536


@dataclass(frozen=True)
class Launch:
    """One call of a kernel, not made: the function, its grid, and its arguments."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class CompiledKernel:
    """The figures that ptxas and the cubin give of one kernel on one chip."""

    kernel: str
    arch: int
    grid: tuple[int, ...]
    warps: int
    stages: int
    registers: int
    spills: int
    """Loads and stores of local memory in the machine code."""
    stack_bytes: int
    shared_bytes: int
    tensor_cores: str
    """The matrix instructions in the machine code, with how often each stands there."""

    @property
    def blocks_per_sm(self) -> int:
        """The blocks that fit a multiprocessor, by registers, shared memory and threads."""
        # Registers are handed out to a warp in lots of 256, shared memory has 1 KiB overhead.
        per_warp = -(-self.registers * 32 // 256) * 256
        by_registers = _REGISTERS // (per_warp * self.warps)
        by_shared = SHARED_SM[self.arch] // (self.shared_bytes + 1024)
        by_warps = _WARPS[self.arch] // self.warps
        return min(by_registers, by_shared, by_warps, _BLOCKS[self.arch])

    @property
    def occupancy(self) -> float:
        """The share of the warps that a multiprocessor holds at most."""
        return self.blocks_per_sm * self.warps / _WARPS[self.arch]


@contextmanager
def recorded(arch: int) -> Iterator[list[Launch]]:
    """Within it a launch of any Triton kernel is noted in the list instead of made, and host code
    that asks the device's capability is told ``arch``."""
    launches: list[Launch] = []

    def note(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        launches.append(Launch(self, tuple(grid), arguments, options))

    with (
        mock.patch.object(JITFunction, "run", note),
        mock.patch("kernels.backend.capability", return_value=arch),
    ):
        yield launches


def key(launch: Launch) -> str:
    """Return a key that differs where two launches need different machine code."""
    parts = [launch.kernel.fn.__qualname__]
    for argument in launch.arguments:
        parts.append(str(getattr(argument, "dtype", argument)))
    return " ".join([*parts, str(sorted((n, str(v)) for n, v in launch.options.items()))])


def compile_launch(launch: Launch, arch: int) -> CompiledKernel:
    """Compile for ``sm_{arch}`` as Triton's launcher would, and read the result."""
    target = GPUTarget("cuda", arch, 32)
    backend = make_backend(target)
    kernel = launch.kernel
    # Triton lets a kernel accept "debug" and the like besides its own options.
    options = {"debug": False, "instrumentation_mode": "", **launch.options}
    options["fpsan_homomorphic_casts"] = False
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, rest = binder(*launch.arguments, **options)
    parsed, signature, constexprs, attributes = kernel._pack_args(
        backend, options, bound, specialization, rest
    )
    source = ASTSource(kernel, signature, constexprs, attributes)
    compiled = triton.compile(source, target=target, options=parsed.__dict__)
    usage, code = _read(compiled.asm["cubin"])
    matrix = Counter(re.findall(r"\b(HMMA|HGMMA|UTCHMMA|IMMA|QGMMA)\b", code))
    metadata = compiled.metadata
    return CompiledKernel(
        kernel=kernel.fn.__name__,
        arch=arch,
        grid=launch.grid,
        warps=metadata.num_warps,
        stages=metadata.num_stages,
        registers=usage["REG"],
        spills=len(re.findall(r"\b(?:STL|LDL)\b", code)),
        stack_bytes=usage["STACK"],
        shared_bytes=max(metadata.shared, usage["SHARED"]),
        tensor_cores=" ".join(f"{name} {count}" for name, count in sorted(matrix.items())),
    )


def _read(cubin: bytes) -> tuple[dict[str, int], str]:
    """Return the resource usage and the disassembly of the one function in ``cubin``."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    printed = []
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        for flag in ("--dump-resource-usage", "--dump-sass"):
            done = subprocess.run(
                [str(tool), flag, file.name], check=True, capture_output=True, text=True
            )
            printed.append(done.stdout)
    found = re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", printed[0])
    return {name: int(number) for name, number in found}, printed[1]
