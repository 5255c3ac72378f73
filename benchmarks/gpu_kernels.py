"""Every Triton kernel on a CUDA device, beside its reference, its peers and the device's limits.

    python -m benchmarks.gpu_kernels [--model 27B] [--context 16384] [--out FILE.json]

One table: microseconds, the share of the memory bandwidth and of the matrix rate measured in the
same run that the least bytes and operations would need, and the time of a peer where one is
installed: torch's scaled_dot_product_attention, and fla-core's gated delta rule
(pip install fla-core in an environment of its own). First each kernel is compared with its
reference; a wrong one is reported and not timed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.support.gpu_measure import bandwidth, describe, matrix_rate, require_gpu, seconds


def compare_first() -> bool:
    """Tell whether the device tests pass: no speed is reported of a kernel that is wrong."""
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpu"])
    return done.returncode == 0


def peers(shape: Any, context: int) -> dict[str, Callable[[], object]]:
    """Calls of other libraries that do what the case of the same name does."""
    from benchmarks.support.kernel_cases import Maker

    make = Maker("cuda")
    found: dict[str, Callable[[], object]] = {}
    keys, values = (make(1, shape.kv_heads, context, shape.dim) for _ in range(2))
    for time in (1, 512):
        query = make(1, shape.heads, time, shape.dim)
        mask = torch.ones(time, context, dtype=torch.bool, device="cuda").tril(context - time)

        def attend(query: torch.Tensor = query, mask: torch.Tensor = mask) -> torch.Tensor:
            return F.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, enable_gqa=True
            )

        found[f"paged_attention {time} at {context}"] = attend
    try:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    except ImportError:
        print("fla-core is not installed: its column stays empty")
        return found
    heads, dim, f32 = shape.value_heads, shape.delta_dim, torch.float32
    # fla takes as many query as value heads.
    q, k, v = (make(1, 512, heads, dim) for _ in range(3))
    gates = -make(1, 512, heads, dtype=f32).abs(), make(1, 512, heads).sigmoid()
    state = make(1, heads, dim, dim, dtype=f32)
    found["gated_delta_rule 512"] = lambda: chunk_gated_delta_rule(
        q, k, v, *gates, initial_state=state, output_final_state=True, use_qk_l2norm_in_kernel=True
    )
    return found


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="27B")
    parser.add_argument("--context", type=int, default=16_384)
    parser.add_argument("--skip-tests", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    require_gpu()
    if not options.skip_tests and not compare_first():
        sys.exit("the device tests fail: nothing is timed (--skip-tests times anyway)")

    from benchmarks.support.kernel_cases import SHAPES, cases

    shape = next(one for one in SHAPES if one.name == options.model)
    rate, speed = matrix_rate(), bandwidth()
    print(describe())
    print(f"measured: {speed / 1e9:.0f} GB/s copied, {rate / 1e12:.0f} bfloat16 Tflop/s\n")
    print(f"{shape.name:<38}{'us':>9}{'of bandwidth':>14}{'of rate':>9}{'peer us':>10}")
    theirs, rows = peers(shape, options.context), []
    for case in cases(shape, "cuda", context=options.context):
        took = seconds(case.run)
        row = {
            "case": case.name,
            "us": took * 1e6,
            "of_bandwidth": case.least / took / speed,
            "of_rate": case.ops / took / rate,
            "peer_us": seconds(theirs[case.name]) * 1e6 if case.name in theirs else None,
        }
        rows.append(row)
        peer = f"{row['peer_us']:>10.1f}" if row["peer_us"] else ""
        print(
            f"{case.name:<38}{row['us']:>9.1f}{row['of_bandwidth']:>14.0%}{row['of_rate']:>9.0%}{peer}",
            flush=True,
        )
    if options.out:
        head = {"device": describe(), "bandwidth": speed, "rate": rate, "model": shape.name}
        options.out.write_text(json.dumps(head | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
