"""Finding and calling the compiled CPU path.

The library has no state of its own, and ctypes lets go of the interpreter during a call. Tensors
go in as addresses: whoever calls keeps them alive, contiguous, and of the dtype that the C++ side
names.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernels.storage import cache_dir

LEVELS = ("plain", "avx2", "avx512", "avx512-bf16")
"""What the sources are compiled for, from any processor to AVX-512 with VNNI and BF16."""

SOURCES = Path(__file__).resolve().parent / "src"
SWITCH = "TENUTO_NATIVE"
"""Environment variable: a level not to go beyond, or ``off`` for torch alone."""

_I64, _PTR = ctypes.c_int64, ctypes.c_void_p
_SIGNATURES: Mapping[str, tuple[type | None, Sequence[type]]] = {
    "tenuto_level": (_I64, []),
    "tenuto_product_scratch": (_I64, [_PTR, _I64, _I64]),
    "tenuto_product": (None, [_PTR, _PTR, _I64, _PTR, _I64, _PTR, _I64]),
    "tenuto_unpack": (None, [_PTR, _I64, _I64, _I64, _PTR]),
    "tenuto_experts_scratch": (_I64, [_PTR, _I64, _I64]),
    "tenuto_experts": (None, [_PTR, _PTR, _I64, _PTR, _I64, _PTR, _I64]),
    "tenuto_forward_scratch": (_I64, [_PTR, _PTR]),
    "tenuto_forward": (None, [_PTR, _PTR]),
    "tenuto_mtp_scratch": (_I64, [_PTR, _PTR]),
    "tenuto_mtp": (None, [_PTR, _PTR, _PTR]),
    "tenuto_replay": (None, [_PTR, _PTR]),
    "tenuto_delta_scratch": (_I64, [_I64] * 3),
    "tenuto_delta": (None, [_PTR] * 8 + [_I64] * 7 + [_PTR, _I64]),
    "tenuto_read": (_I64, [_PTR, _I64, _I64]),
    "tenuto_quantize_table": (None, [_PTR, *[_I64] * 4, *[_PTR] * 5, _I64]),
    "tenuto_repack_scratch": (_I64, [_PTR, _I64]),
    "tenuto_repack": (None, [_PTR, _PTR, _I64]),
    "tenuto_lay_out": (None, [_PTR, _I64, _I64, _I64, _PTR, _I64]),
    "tenuto_quantize": (None, [_PTR, _I64, _I64, _I64, _I64, _PTR, _PTR, _PTR, _I64]),
}


@dataclass(frozen=True)
class Native:
    """The library at one level. ``call`` has the C functions of ``src/native.cpp`` by name."""

    level: str
    path: Path
    call: ctypes.CDLL


def places() -> list[Path]:
    """Return where libraries lie: in this Python's environment, the user's cache, or a wheel."""
    own = Path(sys.prefix) / "lib" / "tenuto-native"
    return [own, cache_dir() / "native", SOURCES.parent / "lib"]


@cache
def _sources_hash() -> str:
    digest = hashlib.sha256(platform.machine().encode())
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def file_name(level: str) -> str:
    """Return the name of the library for ``level``, which changes with the sources."""
    return f"{_sources_hash()}-{level}.so"


@cache
def _load(level: str) -> Native | None:
    # torch first: its OpenMP, already loaded, then serves both, and there is one pool of threads.
    import torch  # noqa: F401

    for place in places():
        path = place / file_name(level)
        if path.is_file():
            try:
                library = ctypes.CDLL(str(path))
            except OSError:
                continue
            for name, (result, arguments) in _SIGNATURES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
            return Native(level, path, library)
    return None


def native(level: str | None = None) -> Native | None:
    """Return the library at the best level that this machine runs, at most ``level``; None if not
    built.

    Without ``level``, the variable ``TENUTO_NATIVE`` may name it, or be ``off``.
    """
    level = level or os.environ.get(SWITCH) or LEVELS[-1]
    plain = None if level == "off" else _load(LEVELS[0])
    if plain is None:
        return None
    highest = LEVELS.index(level) if level in LEVELS else len(LEVELS) - 1
    for number in range(min(highest, plain.call.tenuto_level()), -1, -1):
        found = _load(LEVELS[number])
        if found is not None:
            return found
    return None
