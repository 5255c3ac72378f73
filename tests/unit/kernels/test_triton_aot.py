"""Compiling Triton kernels for a GPU that is not there: the machine code of a 27B decode step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from benchmarks.support.aot_compile import SHARED_LIMIT, compile_launch, recorded
from benchmarks.support.kernel_cases import FORMS, SHAPES, cases
from kernels.attention.triton import append_at, paged_attention_at
from kernels.delta_step.triton import delta_step_at


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_a_decode_step_compiles_for_h100_without_spills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    query, gate = meta(1, 1, 24, 512).chunk(2, dim=-1)
    table, lengths = meta(1, 64, dtype=torch.int64), meta(1, dtype=torch.int32)
    heads = meta(48, dtype=torch.float32)
    norm = meta(128, dtype=torch.float32)
    with recorded(90) as launches:
        paged_attention_at(query, table, 3, lengths, gate, page=256, kv_heads=4)
        places = meta(5, 1, dtype=torch.int64)
        projected, conv = meta(1, 1, 10240 + 6144 + 96), meta(4, 10240)
        delta_step_at(projected, conv, heads, heads, norm, 1e-6, places, 3, 128)
    compiled = {one.kernel: one for one in (compile_launch(launch, 90) for launch in launches)}
    assert set(compiled) == {"_split", "_join", "_delta_step"}
    for one in compiled.values():
        assert one.spills == one.stack_bytes == 0
        assert one.shared_bytes <= SHARED_LIMIT[90]
        assert one.blocks_per_sm >= 1
    # The group's query heads are rows of one product with the keys, on the matrix units.
    assert "HMMA" in compiled["_split"].tensor_cores
    assert compiled["_split"].grid == (64, 4, 1)


@pytest.mark.parametrize("kv", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_attention_over_eight_bits_compiles_for_h100_without_spills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kv: torch.dtype
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    table, lengths = meta(1, 64, dtype=torch.int64), meta(1, dtype=torch.int32)
    with recorded(90) as launches:
        for time in (1, 512):
            query, gate = meta(1, time, 24, 512).chunk(2, dim=-1)
            paged_attention_at(query, table, 3, lengths, gate, page=256, kv_heads=4, kv=kv)
        keys = meta(1, 1, 4, 256)
        append_at(keys, keys, table, 3, lengths, page=256, kv=kv)
    compiled = [compile_launch(launch, 90) for launch in launches]
    assert {one.kernel for one in compiled} == {"_split", "_join", "_prefill", "_append"}
    for one in compiled:
        assert one.spills == one.stack_bytes == 0, one.kernel
        assert one.shared_bytes <= SHARED_LIMIT[90]


@pytest.mark.parametrize(("kind", "arch"), [("int4", 80), ("Q5_K", 120), ("fp8", 89)])
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
def test_quantised_products_compile_without_spills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, arch: int
) -> None:
    """One row and many; ``benchmarks.aot`` compiles every form for every chip."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with recorded(arch) as launches:
        for case in cases(SHAPES[0], "meta"):
            if case.name in (f"linear {kind} 1", f"linear {kind} 512", f"experts {kind} 8"):
                case.run()
    assert len(launches) == (2 if kind == "Q5_K" else 3)
    for launch in launches:
        one = compile_launch(launch, arch)
        assert one.spills == one.stack_bytes == 0, (one.kernel, one.warps)
        assert one.shared_bytes <= SHARED_LIMIT[arch]


@pytest.mark.parametrize("kind", [*FORMS, "fp8"])
def test_one_row_asks_for_little_more_than_the_weights(kind: str) -> None:
    for shape in SHAPES:
        [case] = [one for one in cases(shape, "meta") if one.name == f"linear {kind} 1"]
        assert case.moved <= 1.1 * case.least
