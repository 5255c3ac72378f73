"""Compile every Triton kernel at real shapes for the chips there are, without a GPU: sm_80 (A100),
sm_89 (RTX 40), sm_90 (H100, H200), sm_100 (B200) and sm_120 (RTX 50).

    python -m benchmarks.aot [--arch 80 89 90 100 120] [--record]

For each kernel: registers, spills, shared memory and matrix instructions from the cubin, and how
many blocks fit a multiprocessor. For each call: bytes and operations against the least possible.
Takes minutes; nothing here says how fast a kernel is.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import asdict
from typing import Any

from benchmarks.support.aot_compile import (
    SHARED_LIMIT,
    CompiledKernel,
    Launch,
    compile_launch,
    key,
    recorded,
)
from benchmarks.support.kernel_cases import SHAPES, cases
from benchmarks.support.recording import machine, record


def compile_all(arch: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Compile each distinct launch of all cases for ``sm_{arch}``, and what the cases move."""
    seen: dict[str, tuple[Launch, list[str]]] = {}
    counts = []
    for shape in SHAPES:
        with recorded(arch) as launches:
            for case in cases(shape, "meta"):
                before = len(launches)
                case.run()
                label = f"{shape.name} {case.name}"
                for launch in launches[before:]:
                    seen.setdefault(key(launch), (launch, []))[1].append(label)
                numbers = {n: getattr(case, n) for n in ("least", "moved", "ops", "done")}
                counts.append({"case": label} | numbers)
    rows = []
    for launch, labels in seen.values():
        compiled = compile_launch(launch, arch)
        rows.append(asdict(compiled) | _derived(compiled) | {"cases": labels})
        print(_line(rows[-1]), flush=True)
    return rows, counts


def _derived(compiled: CompiledKernel) -> dict[str, Any]:
    return {"blocks_per_sm": compiled.blocks_per_sm, "occupancy": compiled.occupancy}


def _line(row: dict[str, Any]) -> str:
    return (
        f"sm_{row['arch']:<4}{row['kernel']:<16}{row['warps']:>3} warps {row['registers']:>4} regs"
        f" {row['spills']:>3} spills {row['shared_bytes']:>7} B shared {row['blocks_per_sm']:>3}"
        f" blocks/SM {row['tensor_cores']:<12} {row['cases'][0]}"
    )


def main() -> None:
    """Print a line a kernel, write all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arch", type=int, nargs="+", default=[80, 89, 90, 100, 120])
    parser.add_argument("--record", action="store_true", help="write benchmarks/results/aot.json")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="triton")
    report: dict[str, Any] = {**machine("triton"), "kernels": []}
    for arch in options.arch:
        rows, report["counts"] = compile_all(arch)
        report["kernels"] += rows
    print()
    for count in report["counts"]:
        print(
            f"{count['case']:<42}{count['least'] / 1e6:>10.2f} MB least"
            f" {count['moved'] / count['least']:>6.2f} x asked of memory"
            f" {count['ops'] / 1e9:>9.3f} Gop {count['done'] / count['ops']:>6.2f} x done"
        )
    worst = [row for row in report["kernels"] if row["spills"]]
    print(f"\n{len(report['kernels'])} kernels, {len(worst)} with spills")
    over = [r for r in report["kernels"] if r["shared_bytes"] > SHARED_LIMIT[r["arch"]]]
    print(f"{len(over)} beyond the chip's shared memory")
    if options.record:
        record("aot", report)


if __name__ == "__main__":
    main()
