"""The kernels at the shapes of the 27B and the 0.8B model, and what each moves and computes.

A case makes its tensors on a device (``meta`` to compile only), so that the compile report and the
measurements on a GPU run the same calls. ``least`` counts every input read once and every output
written once; ``moved`` what the programs ask of memory before any cache, workspaces included; both
in bytes. ``ops`` counts the multiplications and additions of the operation's definition, ``done``
those of the matrix units and reductions as launched, padding and split products included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kernels.attention.triton import SPLITS, append_at, paged_attention_at
from kernels.backend import addresses
from kernels.delta_step.triton import delta_step_at
from kernels.experts import DeviceStack, ExpertWeight
from kernels.experts.triton import MOST_GATHERED
from kernels.experts.triton import product as experts_product
from kernels.fp8_linear import Fp8Weight, fp8_linear
from kernels.gated_delta_rule import gated_delta_rule_at
from kernels.linear import BLOCK, Code, QuantizedWeight
from kernels.linear.rounding import LEVELS
from kernels.linear.triton import coded_linear, per_program
from kernels.qk_norm_rope import qk_norm_rope
from kernels.rms_norm import add_rms_norm, gated_rms_norm
from kernels.sampling.triton import sample_batch_at
from kernels.swiglu import swiglu

PAGE = 256
FORMS = {
    "int4": (LEVELS, 16, 512, False),
    "Q4_K": (Code(4), 32, 256, True),
    "Q5_K": (Code(5), 32, 256, True),
    "Q6_K": (Code(6, 32), 16, 256, False),
    "int8": (Code(8, 128), 128, 0, False),
}
"""The code, group, inputs that share a top (0: none) and presence of terms of the forms timed."""
VOCABULARY = 248_320


@dataclass(frozen=True)
class Shape:
    """The dimensions of a model that kernels see."""

    name: str
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    key_heads: int
    value_heads: int
    dim: int = 256
    delta_dim: int = 128
    width: int = 4

    @property
    def conv_dim(self) -> int:
        """Channels of the short convolution."""
        return (2 * self.key_heads + self.value_heads) * self.delta_dim


SHAPES = (
    Shape("27B", 5120, 17408, 24, 4, 16, 48),
    Shape("0.8B", 1024, 3584, 8, 2, 16, 16),
)


@dataclass(frozen=True)
class KernelCase:
    """One call: ``run()`` makes it, on tensors made once."""

    name: str
    run: Callable[[], object]
    least: float
    moved: float
    ops: float
    done: float


class Maker:
    """Makes random tensors on one device; on ``meta`` only their shapes."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def __call__(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        if self.device.type == "meta":
            return torch.empty(*shape, dtype=dtype, device="meta")
        if dtype in (torch.int8, torch.uint8):
            low = 0 if dtype == torch.uint8 else -127
            return torch.randint(low, 120, shape, dtype=dtype, device=self.device)
        return torch.randn(*shape, device=self.device).to(dtype)

    def lengths(self, length: int) -> Tensor:
        """One sequence's length."""
        return torch.full((1,), length, dtype=torch.int32, device=self.device)


def cases(shape: Shape, device: str, *, context: int = 16_384) -> Iterator[KernelCase]:
    """Yield every kernel, for one step of decode and for a prefill chunk of 512 tokens."""
    make = Maker(device)
    for rows in (1, 512):
        yield from _elementwise(shape, make, rows)
    yield _delta_prefill(shape, make, 512)
    yield _delta_prefill(shape, make, 512, kept=False)
    for time in (1, 2, 4, 8):
        yield _delta_step(shape, make, time)
    for time in (1, 2, 4, 8, 512):
        yield _attention(shape, make, time, context)
    for kind in (*FORMS, "fp8"):
        for rows in (1, 8, 64, 512):
            yield _linear(shape, make, kind, rows)
    for kind in ("plain", "int4", "Q4_K", "fp8"):
        for rows in (1, 8, 512):
            yield _experts(make, kind, rows)
    logits, options = make(1, VOCABULARY), make(4, 1, dtype=torch.float32)
    found = 2 * 61 * 64 * 8
    yield KernelCase(
        "sample",
        partial(sample_batch_at, logits, make(1, dtype=torch.float32), options),
        2 * VOCABULARY,
        2 * VOCABULARY + found,
        VOCABULARY,
        VOCABULARY,
    )


def _elementwise(s: Shape, make: Maker, rows: int) -> Iterator[KernelCase]:
    f32 = torch.float32
    x, y, weight = make(1, rows, s.hidden), make(1, rows, s.hidden), make(s.hidden, dtype=f32)
    run: Callable[[], object]
    run = partial(add_rms_norm, x, y, weight, 1e-6, zero_centred=True, backend="triton")
    size = rows * s.hidden
    yield KernelCase(f"add_rms_norm {rows}", run, 8 * size, 8 * size, 5 * size, 5 * size)
    wide = make(1, rows, 2 * s.intermediate)
    size = rows * s.intermediate
    run = partial(swiglu, wide, backend="triton")
    yield KernelCase(f"swiglu {rows}", run, 6 * size, 6 * size, 5 * size, 5 * size)
    projected = make(1, rows, (2 * s.heads + 2 * s.kv_heads) * s.dim)
    angles = make(rows, 32, dtype=f32), make(rows, 32, dtype=f32)
    norms = make(s.dim, dtype=f32), make(s.dim, dtype=f32)
    run = partial(
        qk_norm_rope,
        projected,
        *norms,
        *angles,
        1e-6,
        heads=s.heads,
        kv_heads=s.kv_heads,
        backend="triton",
    )
    size = rows * (s.heads + s.kv_heads) * s.dim
    yield KernelCase(f"qk_norm_rope {rows}", run, 4 * size, 6 * size, 8 * size, 12 * size)
    if rows > 1:
        x, z = (make(1, rows, s.value_heads, s.delta_dim) for _ in range(2))
        run = partial(gated_rms_norm, x, z, make(s.delta_dim, dtype=f32), 1e-6, backend="triton")
        size = rows * s.value_heads * s.delta_dim
        yield KernelCase(f"gated_rms_norm {rows}", run, 6 * size, 6 * size, 8 * size, 8 * size)


def _delta_prefill(s: Shape, make: Maker, time: int, *, kept: bool = True) -> KernelCase:
    """With a start state and the state at the end kept; or from nothing, as a prompt begins."""
    f32, dim, chunk = torch.float32, s.delta_dim, 64
    mixed = make(1, time, s.conv_dim)
    sizes = [s.key_heads * dim, s.key_heads * dim, s.value_heads * dim]
    q, k, v = mixed.split_with_sizes(sizes, dim=-1)
    gates = [make(1, time, s.value_heads, dtype=f32) for _ in range(2)]
    decay, beta = -gates[0].abs(), gates[1].sigmoid()
    run = partial(
        gated_delta_rule_at,
        q.view(1, time, s.key_heads, dim),
        k.view(1, time, s.key_heads, dim),
        v.view(1, time, s.value_heads, dim),
        decay,
        beta,
        make(1, s.value_heads, dim, dim, dtype=f32) if kept else None,
        (time,) if kept else (),
        backend="triton",
    )
    state = s.value_heads * dim * dim * 4 * (3 if kept else 1)
    least = 2 * time * (s.conv_dim + s.value_heads * dim) + 8 * time * s.value_heads + state
    # Each chunk of each value head: prepared once, then read by each of the state's slices.
    slices = dim // 16
    tables = 3 * chunk * chunk * 2 + 4 * chunk * 4
    one = 2 * chunk * dim * 2
    per_chunk = one + tables + slices * (one + tables) + 2 * chunk * dim * 2
    chunks = s.value_heads * time / chunk
    products = (
        2 * chunk * chunk * dim
        + 10 * 3 * chunk**3
        + 3 * 2 * chunk * dim * dim
        + 5 * chunk * chunk * dim
    )
    return KernelCase(
        f"gated_delta_rule {time}" + ("" if kept else " from nothing"),
        run,
        least,
        chunks * per_chunk + 8 * time * s.value_heads + state,
        6.0 * dim * dim * s.value_heads * time,
        2.0 * products * chunks,
    )


def _delta_step(s: Shape, make: Maker, time: int) -> KernelCase:
    f32, dim, values = torch.float32, s.delta_dim, s.value_heads * s.delta_dim
    projected = make(1, time, s.conv_dim + values + 2 * s.value_heads)
    conv = make(s.width, s.conv_dim)
    # Two layers, of which the second is used: Triton treats an argument of 1 as no other.
    kept = [make(2, s.width - 1, s.conv_dim) for _ in range(2)]
    states = [make(2, s.value_heads, dim, dim, dtype=f32) for _ in range(2)]
    table = addresses([[kept[0]], [states[0]], [kept[1]], [states[1]], [states[1]]])
    rate, bias = -make(s.value_heads, dtype=f32).abs(), make(s.value_heads, dtype=f32)
    norm = make(dim, dtype=f32)

    def run(keep: object = (kept, states)) -> Tensor:
        return delta_step_at(projected, conv, rate, bias, norm, 1e-6, table, 1, dim)

    state = 2 * s.value_heads * dim * dim * 4
    inputs = 2 * (projected.numel() + (2 * (s.width - 1) + s.width) * s.conv_dim + time * values)
    again = (s.value_heads // s.key_heads - 1) * 2 * s.key_heads * dim * 2 * s.width * time * 2
    ops = (7.0 * dim * dim * s.value_heads + 2 * s.width * s.conv_dim) * time
    return KernelCase(f"delta_step {time}", run, state + inputs, state + inputs + again, ops, ops)


def _attention(s: Shape, make: Maker, time: int, context: int) -> KernelCase:
    group = s.heads // s.kv_heads
    both = make(1, time, s.heads, 2 * s.dim)
    query, gate = both.chunk(2, dim=-1)
    count = -(-context // PAGE)
    pages = [make(2, 2, s.kv_heads, PAGE, s.dim) for _ in range(count)]
    table, lengths = addresses([pages]), make.lengths(context)
    keys, values = make(1, time, s.kv_heads, s.dim), make(1, time, s.kv_heads, s.dim)

    def run(keep: object = pages) -> Tensor:
        append_at(keys, values, table, 1, lengths, page=PAGE)
        return paged_attention_at(query, table, 1, lengths, gate, page=PAGE, kv_heads=s.kv_heads)

    cache = 2 * s.kv_heads * context * s.dim * 2
    own = 3 * time * s.heads * s.dim * 2 + 4 * time * s.kv_heads * s.dim * 2
    ops = 4.0 * s.dim * s.heads * time * (context - time / 2)
    if time * group > 64:
        blocks = -(-time * group // 64)
        moved, done = blocks * cache + own, 4.0 * s.dim * 64 * blocks * s.kv_heads * context
    else:
        rows = max(16, 1 << (time * group - 1).bit_length())
        moved = cache + own + 2 * time * s.heads * SPLITS * (s.dim + 2) * 4
        done = 4.0 * s.dim * rows * s.kv_heads * context
    return KernelCase(f"paged_attention {time} at {context}", run, cache + own, moved, ops, done)


def make_weight(make: Maker, kind: str, outputs: int, inputs: int) -> QuantizedWeight | Fp8Weight:
    """Make a random weight in a form of ``FORMS``, or in fp8."""
    if kind == "fp8":
        scales = make(-(-outputs // 128), inputs // 128, dtype=torch.float32)
        return Fp8Weight(make(outputs, inputs, dtype=torch.uint8), scales)
    code, group, span, terms = FORMS[kind]
    blocks, width = -(-outputs // BLOCK), BLOCK * (2 if terms else 1)
    data = make(blocks, inputs * 2 * code.bits, dtype=torch.uint8)
    dtype = torch.int8 if span else torch.bfloat16
    scales = make(blocks, inputs // group, width, dtype=dtype)
    tops = make(blocks, inputs // span, width, dtype=torch.float16) if span else None
    return QuantizedWeight(code, group, outputs, inputs, data, scales, tops)


def _experts(make: Maker, kind: str, rows: int) -> KernelCase:
    """Gate and up of 35B-A3B's experts, of which each row runs eight; an even load is counted."""
    count, per, outputs, inputs = 256, 8, 1024, 2048
    weight: ExpertWeight
    if kind == "plain":
        weight = make(count, outputs, inputs)
    else:
        weight = DeviceStack(count, make_weight(make, kind, count * outputs, inputs))
    x, slots = make(rows, inputs), rows * per
    chosen = torch.arange(slots, device=make.device) % count
    few = rows <= MOST_GATHERED
    run = partial(experts_product, x, chosen, weight, per=per, gathered=few)
    each, used = weight.nbytes // count, min(count, slots)
    ends = 2 * rows * inputs + 2 * slots * outputs
    read = slots * each if few else used * each
    own = {"plain": 4, "fp8": 8}.get(kind, 64) if few else 64
    ops = 2.0 * slots * inputs * outputs
    return KernelCase(
        f"experts {kind} {rows}",
        run,
        used * each + ends,
        read + 2 * slots * inputs * -(-outputs // own) + 2 * slots * outputs,
        ops,
        ops,
    )


def _linear(s: Shape, make: Maker, kind: str, rows: int) -> KernelCase:
    outputs, inputs = 2 * s.intermediate, s.hidden
    weight, x = make_weight(make, kind, outputs, inputs), make(rows, inputs)
    run: Callable[[], object]
    if isinstance(weight, Fp8Weight):
        run = partial(fp8_linear, x, weight, backend="triton")
        tile, columns = 1, 32 if outputs > 4096 else 8
    else:
        run = partial(coded_linear, x, weight)
        tile, columns = 1, BLOCK * per_program(weight)
    if rows > 1:
        tile, columns = (16, 32)
    if rows > 16:
        tile, columns = (64, 64) if rows <= 64 else (128, 64)
    moved = weight.nbytes * -(-rows // tile) + 2 * rows * inputs * -(-outputs // columns)
    ops = 2.0 * rows * inputs * outputs
    return KernelCase(
        f"linear {kind} {rows}",
        run,
        weight.nbytes + 2 * rows * (inputs + outputs),
        moved + 2 * rows * outputs,
        ops,
        ops * max(1, -(-rows // tile) * tile / rows),
    )
