"""The compiled CPU path: C++ kernels, built by ``kernels.native.build``, called through ctypes."""

from __future__ import annotations

from kernels.native.library import LEVELS, Native, native

__all__ = ["LEVELS", "Native", "native"]
