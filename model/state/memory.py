"""Memory for model state: blocks of tensors under one budget, the coldest parked when it is short.

A block (a page of keys and values, a DeltaNet slot) is taken from the budget when it is made and
given back when the last state that names it is gone: Python's own reference counts are the page
table's. When the budget is used up, the blocks that were used longest ago are written to a swap
file, or to the host's memory if they were on a GPU, and read back bit for bit at their next use.
"""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from kernels.storage import make_private
from model.errors import MemoryFull, StateError

_SHARE = 0.5
"""The part of the memory that is free at the start that state may fill by default."""

_SPARE = 2
_WORTH_REUSE = 1 << 20
"""Every step makes a slot and lets go of one. Fresh memory of a megabyte and more costs a page
fault every 4 KiB, more than the step itself takes in a small model: the last few are used again."""

Tensors = tuple[Tensor, ...]


class Block:
    """Tensors that live and are parked together. Made by ``StateMemory.take``."""

    def __init__(self, memory: StateMemory, tensors: Tensors, kind: str = "") -> None:
        self._kind = kind
        self.size = sum(t.nbytes for t in tensors)
        self.used_at = 0
        self.needed_at = 0
        self._memory = memory
        self._tensors: Tensors | None = tensors
        self._parked: Parked | None = None

    @property
    def tensors(self) -> Tensors:
        """The tensors, brought back first if they are parked. Valid while the block is held.

        Raises ``MemoryFull`` if there is no room for them.
        """
        return self._memory._bring(self)

    @property
    def parked(self) -> bool:
        """True while the block is out of memory."""
        return self._tensors is None

    def __del__(self) -> None:
        # Anything may be going on in any thread: only leave a note.
        self._memory._gone.append((self._kind, self._tensors, self._parked))


class StateMemory:
    """A budget of ``limit`` bytes (None: no limit) for the blocks on one device.

    ``swap`` is the folder for the swap file, which is made at first need and has no name there, so
    that nothing is left of it however the process ends.
    """

    def __init__(self, limit: int | None = None, *, swap: Path | None = None) -> None:
        self.limit = limit
        self.parked_bytes = 0
        self._swap = Swap(swap)
        self._used = 0
        self._clock = 0
        self._passes: dict[int, int] = {}
        self._lock = threading.RLock()
        self._passed = threading.Condition(self._lock)
        self._blocks: weakref.WeakSet[Block] = weakref.WeakSet()
        self._gone: deque[tuple[str, Tensors | None, Parked | None]] = deque()
        self._spare: list[tuple[str, Tensors]] = []

    @property
    def used(self) -> int:
        """Bytes of state in memory now."""
        with self._lock:
            self._settle()
            return self._used

    @contextmanager
    def passing(self) -> Iterator[None]:
        """While it lasts, no block that this thread uses from now on is parked.

        Threads may overlap. Who needs room outside of a pass waits for those under way.
        """
        thread = threading.get_ident()
        with self._lock:
            self._clock += 1
            self._passes[thread] = self._clock
        try:
            yield
        finally:
            with self._lock:
                del self._passes[thread]
                self._passed.notify_all()

    def take(self, make: Callable[[], Tensors], size: int, kind: str = "") -> Block:
        """Make a new block of the tensors that ``make`` allocates, ``size`` bytes in all.

        Blocks of one ``kind`` are alike: a new one may take over the tensors of one that is gone.

        Raises ``MemoryFull`` if nothing more can be parked to make room.
        """
        with self._lock:
            self._room(size)
            block = Block(self, self._reused(kind) or make(), kind)
            self._touch(block)
            self._used += block.size
            self._blocks.add(block)
            return block

    def park(self, blocks: Sequence[Block]) -> None:
        """Park those of ``blocks`` that no pass is using. Raises ``MemoryFull`` (disk full)."""
        with self._lock:
            for block in blocks:
                if not block.parked and self._idle(block):
                    self._park(block)

    def _touch(self, block: Block) -> None:
        self._clock += 1
        block.used_at = self._clock
        if threading.get_ident() in self._passes:
            block.needed_at = self._clock

    def _idle(self, block: Block) -> bool:
        """Tell whether no pass under way can be using it.

        Who uses one outside of a pass only reads, and holds the tensors until it has.
        """
        return block.needed_at < min(self._passes.values(), default=block.needed_at + 1)

    def _bring(self, block: Block) -> Tensors:
        with self._lock:
            self._touch(block)
            if block._tensors is None:
                self._room(block.size)
            # While this waited for room, another thread may have brought it.
            if block._tensors is None:
                assert block._parked is not None
                block._tensors = block._parked.load()
                block._parked.drop()
                block._parked = None
                self._used += block.size
                self.parked_bytes -= block.size
            return block._tensors

    def _park(self, block: Block) -> None:
        assert block._tensors is not None
        on_host = block._tensors[0].device.type == "cpu"
        block._parked = Parked(block._tensors, self._swap if on_host else None)
        block._tensors = None
        self._used -= block.size
        self.parked_bytes += block.size

    def _room(self, size: int) -> None:
        """Park the coldest blocks until ``size`` more bytes fit; outside of a pass, wait for them.

        The lock is held, and let go while waiting.
        """
        while not self._made_room(size):
            alone = not self._passes or threading.get_ident() in self._passes
            if alone or (self.limit is not None and size > self.limit):
                raise MemoryFull(
                    f"the model's state needs more than the {(self.limit or 0) / 2**20:,.0f} MiB "
                    "it may have; raise kv_memory (--kv-memory) or work on shorter or fewer "
                    "sessions"
                )
            self._passed.wait()

    def _made_room(self, size: int) -> bool:
        """Park what is idle until ``size`` more bytes fit; False if they do not."""
        self._settle()
        if self.limit is None or self._used + size <= self.limit:
            return True
        idle = [b for b in self._blocks if not b.parked and self._idle(b)]
        for block in sorted(idle, key=lambda b: b.used_at):
            self._park(block)
            if self._used + size <= self.limit:
                return True
        return False

    def _reused(self, kind: str) -> Tensors | None:
        """Spare tensors for a block of ``kind``."""
        for index, (own, tensors) in enumerate(self._spare):
            if own == kind:
                del self._spare[index]
                return tensors
        return None

    def _settle(self) -> None:
        """Account for the blocks that are gone."""
        while self._gone:
            kind, tensors, parked = self._gone.popleft()
            if tensors is not None:
                size = sum(t.nbytes for t in tensors)
                self._used -= size
                if kind and size >= _WORTH_REUSE:
                    self._spare = [(kind, tensors), *self._spare[: _SPARE - 1]]
            if parked is not None:
                self.parked_bytes -= parked.size
                parked.drop()


class Parked:
    """The content of a parked block: in a swap file, or as tensors on the host."""

    def __init__(self, tensors: Tensors, swap: Swap | None) -> None:
        self.size = sum(t.nbytes for t in tensors)
        self._device = tensors[0].device
        self._shapes = [(t.shape, t.dtype) for t in tensors]
        self._swap = swap
        self._host = () if swap else tuple(t.cpu() for t in tensors)
        self._at = swap.write([_bytes(t) for t in tensors], self.size) if swap else 0

    def load(self) -> Tensors:
        """Return the tensors again, on the device they came from."""
        if self._swap is None:
            return tuple(t.to(self._device) for t in self._host)
        tensors, at = [], self._at
        for shape, dtype in self._shapes:
            tensor = torch.empty(shape, dtype=dtype)
            self._swap.read(at, _bytes(tensor))
            tensors.append(tensor)
            at += tensor.nbytes
        return tuple(tensors)

    def drop(self) -> None:
        """Give its place back."""
        if self._swap is not None:
            self._swap.free(self._at, self.size)
        self._host = ()


class Swap:
    """A nameless file of places; a place that is given back is used again for the same size."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._file: int | None = None
        self._end = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)

    def write(self, parts: Sequence[memoryview], size: int) -> int:
        """Write ``parts`` (``size`` bytes) end to end; returns where. Raises ``MemoryFull``."""
        at = self._free[size].pop() if self._free[size] else self._end
        offset = at
        try:
            file = self._open()
            for part in parts:
                while part:
                    done = os.pwrite(file, part, offset)
                    part, offset = part[done:], offset + done
        except OSError as error:
            if at != self._end:
                self._free[size].append(at)
            raise MemoryFull(
                f"the model's idle state cannot be parked in {self._folder}: {error.strerror}; "
                "free some space there or raise kv_memory (--kv-memory)"
            ) from error
        self._end = max(self._end, offset)
        return at

    def read(self, at: int, into: memoryview) -> None:
        """Fill ``into`` from place ``at``."""
        file = self._open()
        while into:
            done = os.preadv(file, [into], at)
            if done == 0:
                raise StateError("the swap file was cut short; start the session again")
            into, at = into[done:], at + done

    def free(self, at: int, size: int) -> None:
        """Give a place back."""
        self._free[size].append(at)

    def _open(self) -> int:
        if self._file is None:
            make_private(self._folder)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                self._file = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._file)
        return self._file


def _bytes(tensor: Tensor) -> memoryview:
    """View the memory of a contiguous tensor on the CPU."""
    return tensor.detach().view(-1).view(torch.uint8).numpy().data


def default_limit(device: torch.device) -> int:
    """Return how many bytes state may fill on ``device`` by default: half of what is free now."""
    return int(max(free_memory(device), 1 << 28) * _SHARE)


def free_memory(device: torch.device) -> int:
    """Return how many bytes are free on ``device``; on the CPU within this process's cgroup."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [_meminfo("MemAvailable")]
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            root = Path("/sys/fs/cgroup")
            free.append(int((root / limit).read_text()) - int((root / usage).read_text()))
        except (OSError, ValueError):
            continue
    return min(free)


def _meminfo(name: str) -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # macOS has none
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in lines:
        key, _, rest = line.partition(":")
        if key == name:
            return int(rest.split()[0]) * 1024
    return 1 << 32
