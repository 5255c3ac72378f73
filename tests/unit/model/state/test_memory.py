"""The budget: what is taken and given back, what is parked first, and that it comes back whole."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
import torch

from model.errors import MemoryFull
from model.state.memory import Block, StateMemory, Swap, default_limit


def block(memory: StateMemory, value: float, count: int = 256) -> Block:
    return memory.take(lambda: (torch.full((count,), value), torch.full((2,), -value)), 4 * count)


def values(block: Block) -> tuple[float, float]:
    first, second = block.tensors
    assert bool((first == first[0]).all())
    return float(first[0]), float(second[1])


def test_blocks_are_counted_while_they_are_held() -> None:
    memory = StateMemory()
    one, two = block(memory, 1.0), block(memory, 2.0)
    assert memory.used == one.size + two.size == 2 * (1024 + 8)
    del one
    assert memory.used == two.size
    del two
    assert memory.used == 0


def test_the_coldest_is_parked_and_comes_back_whole(tmp_path: Path) -> None:
    memory = StateMemory(3 * 1032, swap=tmp_path)
    blocks = []
    for number in range(3):
        with memory.passing():
            blocks.append(block(memory, float(number)))
    with memory.passing():
        assert values(blocks[0]) == (0.0, -0.0)
        blocks.append(block(memory, 3.0))
        assert [b.parked for b in blocks] == [False, True, False, False]
    assert memory.used == 3 * 1032
    assert memory.parked_bytes == 1032
    for number, each in enumerate(blocks):
        with memory.passing():
            assert values(each) == (float(number), -float(number))
    assert list(tmp_path.iterdir()) == []
    del blocks, each
    gc.collect()
    assert (memory.used, memory.parked_bytes) == (0, 0)


def test_what_a_pass_uses_is_never_parked() -> None:
    memory = StateMemory(2 * 1032)
    with memory.passing():
        held = [block(memory, 1.0), block(memory, 2.0)]
        with pytest.raises(MemoryFull, match="--kv-memory"):
            block(memory, 3.0)
        assert not any(b.parked for b in held)
        memory.park(held)
        assert not any(b.parked for b in held)
    memory.park(held)
    assert all(b.parked for b in held)
    assert memory.used == 0
    assert values(held[1]) == (2.0, -2.0)


def test_places_in_the_swap_file_are_used_again(tmp_path: Path) -> None:
    memory = StateMemory(swap=tmp_path)
    for number in range(50):
        each = block(memory, float(number))
        with memory.passing():
            pass
        memory.park([each])
        assert each.parked
        if number % 2:
            assert values(each) == (float(number), -float(number))
    assert memory._swap._end <= 2 * 1032


def test_a_swap_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    memory = StateMemory(1100, swap=tmp_path / "file" / "swap")
    first = block(memory, 1.0)
    with memory.passing():
        with pytest.raises(MemoryFull, match="cannot be parked"):
            block(memory, 2.0)
        assert values(first) == (1.0, -1.0)
        assert memory.used == 1032


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = StateMemory(1100, swap=tmp_path)
    first = block(memory, 1.0)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with memory.passing():
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(MemoryFull, match="No space left"):
                block(memory, 2.0)
        assert values(first) == (1.0, -1.0)
    with memory.passing():
        second = block(memory, 2.0)
    assert (values(second), first.parked) == ((2.0, -2.0), True)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_swap_file_is_closed_with_its_owner(tmp_path: Path) -> None:
    before = descriptors()
    swap = Swap(tmp_path)
    swap.write([memoryview(b"abc")], 3)
    assert descriptors() == before + 1
    del swap
    assert descriptors() == before


def test_the_default_is_within_what_the_machine_has() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1 << 27 <= default_limit(torch.device("cpu")) <= total // 2


def test_who_needs_room_outside_of_a_pass_waits_for_those_under_way() -> None:
    memory = StateMemory(2 * 1032)
    with ThreadPoolExecutor(1) as thread:
        with memory.passing():
            held = [block(memory, 1.0), block(memory, 2.0)]
            later = thread.submit(block, memory, 3.0)
            assert not wait([later], timeout=0.2).done
            assert not any(b.parked for b in held)
        assert values(later.result(20)) == (3.0, -3.0)
        assert held[0].parked
        with memory.passing():
            assert held[1].tensors is not None
            again = thread.submit(values, held[0])
            assert again.result(20) == (1.0, -1.0), "only what the pass uses stays"
    assert memory.used == 2 * 1032


def test_more_than_the_budget_is_not_waited_for() -> None:
    memory = StateMemory(1032)
    with ThreadPoolExecutor(1) as thread, memory.passing():
        later = thread.submit(block, memory, 1.0, 512)
        with pytest.raises(MemoryFull):
            later.result(20)


def test_what_is_only_read_meanwhile_makes_room_for_a_pass() -> None:
    memory = StateMemory(2 * 1032)
    first, second = block(memory, 1.0), block(memory, 2.0)
    with memory.passing(), ThreadPoolExecutor(1) as thread:
        tensors = thread.submit(lambda: first.tensors).result(20)
        assert second.tensors is not None
        third = block(memory, 3.0)
        assert first.parked
        assert not second.parked
        assert float(tensors[0][0]) == 1.0, "what is read is held by its reader"
    assert values(third) == (3.0, -3.0)
