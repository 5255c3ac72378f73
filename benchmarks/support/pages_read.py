"""Drop a mapped file's pages from memory, and count those that come back.

Only on Linux. While another process has the file mapped its pages cannot be dropped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

from torch import Tensor

PAGE = mmap.PAGESIZE
_MADV_RANDOM, _MADV_DONTNEED = 1, 4
_libc = ctypes.CDLL(None, use_errno=True)


def forget(path: Path) -> None:
    """Drop the pages of a file that this process has mapped, and let a fault bring one page only.

    Raises ``OSError``.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            first, last = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
            for advice in (_MADV_RANDOM, _MADV_DONTNEED):
                _check(_libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), advice))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def whole_pages(tensor: Tensor) -> tuple[int, int]:
    """Return the address of the first whole page inside a mapped tensor, and the bytes of all."""
    first = -(-tensor.data_ptr() // PAGE) * PAGE
    return first, max(0, (tensor.data_ptr() + tensor.nbytes) // PAGE * PAGE - first)


def resident(tensor: Tensor) -> int:
    """Return how many bytes of a mapped tensor's whole pages are in memory. Raises ``OSError``."""
    first, size = whole_pages(tensor)
    found = (ctypes.c_ubyte * (size // PAGE))()
    _check(_libc.mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), found))
    return sum(page & 1 for page in found) * PAGE


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
