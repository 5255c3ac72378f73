"""The chunked gated delta rule in Triton, in two kernels; formulas as in ``reference``.

For each chunk and value head, in parallel, ``_prepare`` finds what does not depend on the state:

    T = (I + strict_lower(beta k k^T * D))^-1      M = lower(q k^T * D)

and the factors by which each token's products with the state are scaled. ``_scan`` then carries the
state through the chunks, one program for each head and slice of its values:

    d = T (beta v - beta exp(c) k S)       o = exp(c) q S + M d
    S <- exp(c_end) S + (exp(c_end - c) k)^T d

So neither the corrections nor the chunks' states are written to memory. Keys and queries enter the
products as they are; their lengths are among the factors. The state is float32 throughout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels import backend
from kernels.backend import interpreting, require_power_of_two
from kernels.gated_delta_rule.reference import CHUNK, check_positions

_FACTORS = 4


@triton.jit
def _high_low(x, NARROW: tl.constexpr):
    """Return ``x`` as a sum of two bfloat16 numbers, which keep 16 of its 24 bits."""
    high = x.to(tl.bfloat16)
    return high.to(NARROW), (x - high.to(tl.float32)).to(tl.bfloat16).to(NARROW)


@triton.jit
def _by_wide(narrow, wide, SPLIT: tl.constexpr, NARROW: tl.constexpr):
    """Return ``narrow @ wide``. With SPLIT the left one is bfloat16 and the right one goes in two
    parts: more exact than TF32 at the same cost, and the left one needs no conversion.
    """
    if SPLIT:
        high, low = _high_low(wide, NARROW)
        result = tl.dot(narrow.to(NARROW), low)
        result = tl.dot(narrow.to(NARROW), high, result)
    else:
        result = tl.dot(narrow.to(tl.float32), wide, input_precision="tf32x3")
    return result


@triton.jit
def _both_wide(a, b, SPLIT: tl.constexpr, NARROW: tl.constexpr):
    """Return ``a @ b``, both float32; with SPLIT by their two parts each, without the smallest
    product.
    """
    if SPLIT:
        a_high, a_low = _high_low(a, NARROW)
        b_high, b_low = _high_low(b, NARROW)
        result = tl.dot(a_low, b_high)
        result = tl.dot(a_high, b_low, result)
        result = tl.dot(a_high, b_high, result)
    else:
        result = tl.dot(a, b, input_precision="tf32x3")
    return result


@triton.jit(do_not_specialize=["zero"])
def _prepare(
    query,
    key,
    log_decay,
    beta,
    solve,
    attend,
    factors,
    keep,
    time,
    zero,
    query_batch,
    query_token,
    key_batch,
    key_token,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    SLICE: tl.constexpr,
    CHUNK: tl.constexpr,
    LEVELS: tl.constexpr,
    SPLIT: tl.constexpr,
    NARROW: tl.constexpr,
):
    chunk, chunks = tl.program_id(0), tl.num_programs(0)
    sequence, head = tl.program_id(1) // HEADS, tl.program_id(1) % HEADS
    batch = sequence.to(tl.int64)
    row = tl.arange(0, CHUNK)
    token = chunk * CHUNK + row
    present = token < time
    inner = tl.arange(0, SLICE)
    # Places are counted from the chunk's first token, where they fit 32 bits.
    first = (chunk * CHUNK).to(tl.int64)
    own_q = query + batch * query_batch + first * query_token + (head // GROUP) * DIM
    own_k = key + batch * key_batch + first * key_token + (head // GROUP) * DIM
    at_q = row[:, None] * query_token + inner[None, :]
    at_k = row[:, None] * key_token + inner[None, :]
    between = tl.zeros([CHUNK, CHUNK], tl.float32)
    system = tl.zeros([CHUNK, CHUNK], tl.float32)
    q_squares = tl.zeros([CHUNK], tl.float32)
    k_squares = tl.zeros([CHUNK], tl.float32)
    for start in range(0, DIM, SLICE):
        k = tl.load(own_k + at_k + start, mask=present[:, None], other=0.0)
        wide = k.to(tl.float32)
        k_squares += tl.sum(wide * wide, axis=1)
        turned = tl.trans(k.to(NARROW))
        system = tl.dot(k.to(NARROW), turned, system, input_precision="tf32x3")
        q = tl.load(own_q + at_q + start, mask=present[:, None], other=0.0)
        wide = q.to(tl.float32)
        q_squares += tl.sum(wide * wide, axis=1)
        between = tl.dot(q.to(NARROW), turned, between, input_precision="tf32x3")
    # Absent tokens are inert: beta 0 writes nothing, log-decay 0 forgets nothing.
    at = (batch * time + token) * HEADS + head
    b = tl.load(beta + at, mask=present, other=0.0).to(tl.float32)
    c = tl.cumsum(tl.load(log_decay + at, mask=present, other=0.0).to(tl.float32), axis=0)

    q_scale = tl.rsqrt(q_squares + 1e-6) * (DIM**-0.5)
    k_scale = tl.rsqrt(k_squares + 1e-6)
    i, j = row[:, None], row[None, :]
    # Masked before exp: above the diagonal the difference is positive and could overflow.
    decay = tl.exp(tl.where(i >= j, c[:, None] - c[None, :], float("-inf"))) * k_scale[None, :]
    place = tl.program_id(1).to(tl.int64) * chunks + chunk
    square = i * CHUNK + j
    attend += place * (CHUNK * CHUNK)
    between = between * decay * q_scale[:, None]
    tl.store(attend + square, between.to(attend.dtype.element_ty))
    system = tl.where(i > j, system * decay * (b * k_scale)[:, None], 0.0)

    end = tl.sum(tl.where(row == CHUNK - 1, c, 0.0), axis=0)
    grow = tl.exp(c)
    start = factors + place * (4 * CHUNK) + row
    tl.store(start, b)
    tl.store(start + CHUNK, b * grow * k_scale)
    tl.store(start + 2 * CHUNK, grow * q_scale)
    tl.store(start + 3 * CHUNK, tl.exp(end - c) * k_scale)
    tl.store(keep + place, tl.exp(end))

    # The inverse by halves: with both diagonal blocks of a block inverted in X and L the block
    # below them, the block's inverse is X - X L X. This is substitution by blocks, as stable as
    # row by row (unlike powers of the system), and all of it matrix products.
    inverse = tl.where(i == j, 1.0, 0.0) - tl.where(i // 2 == j // 2, system, 0.0)
    for level in range(1, LEVELS):
        together = (i >> (level + 1)) == (j >> (level + 1))
        below = tl.where(together & ((i >> level) != (j >> level)), system, 0.0)
        step = _both_wide(inverse, below, SPLIT, NARROW)
        inverse -= _both_wide(step, inverse, SPLIT, NARROW)

    # The places once more, from a 0 that the compiler does not know to be one: kept through the
    # loop they would not fit the registers.
    row = tl.arange(0, CHUNK) + zero
    square = row[:, None] * CHUNK + row[None, :]
    solve += (tl.program_id(1) + zero).to(tl.int64) * chunks * (2 * CHUNK * CHUNK)
    solve += (tl.program_id(0) + zero) * (2 * CHUNK * CHUNK)
    high = inverse.to(solve.dtype.element_ty)
    low = (inverse - high.to(tl.float32)).to(solve.dtype.element_ty)
    tl.store(solve + square, high)
    tl.store(solve + CHUNK * CHUNK + square, low)


@triton.jit
def _scan(
    query,
    key,
    value,
    solve,
    attend,
    factors,
    keep,
    initial,
    out,
    final,
    kept,
    kept_at,
    time,
    chunks,
    states,
    query_batch,
    query_token,
    key_batch,
    key_token,
    value_batch,
    value_token,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
    INITIAL: tl.constexpr,
    KEPT: tl.constexpr,
    SPLIT: tl.constexpr,
    NARROW: tl.constexpr,
):
    program = tl.program_id(1).to(tl.int64)
    sequence, head = program // HEADS, program % HEADS
    row = tl.arange(0, CHUNK)
    across = tl.arange(0, KEY_DIM)
    slice_ = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_state = across[:, None] * VALUE_DIM + slice_[None, :]
    at_state = program * (KEY_DIM * VALUE_DIM) + in_state
    state = tl.load(initial + at_state) if INITIAL else tl.zeros([KEY_DIM, BLOCK], tl.float32)

    own_q = query + sequence * query_batch + (head // GROUP) * KEY_DIM
    own_k = key + sequence * key_batch + (head // GROUP) * KEY_DIM
    own_v = value + sequence * value_batch + head * VALUE_DIM
    own_out = out + (sequence * time * HEADS + head) * VALUE_DIM
    # Within a chunk places fit 32 bits; the chunk's first token moves on.
    at_q = row[:, None] * query_token + across[None, :]
    at_k = row[:, None] * key_token + across[None, :]
    at_v = row[:, None] * value_token + slice_[None, :]
    at_out = row[:, None] * (HEADS * VALUE_DIM) + slice_[None, :]
    square = row[:, None] * CHUNK + row[None, :]
    for chunk in range(chunks):
        present = (chunk * CHUNK + row)[:, None] < time
        place = program * chunks + chunk
        start = factors + place * (4 * CHUNK) + row
        k = tl.load(own_k + at_k, mask=present, other=0.0)
        v = tl.load(own_v + at_v, mask=present, other=0.0).to(tl.float32)
        written = tl.load(start)[:, None] * v
        written -= tl.load(start + CHUNK)[:, None] * _by_wide(k, state, SPLIT, NARROW)
        high = tl.load(solve + place * (2 * CHUNK * CHUNK) + square)
        d = _by_wide(high, written, SPLIT, NARROW)
        if SPLIT:
            low = tl.load(solve + (2 * place + 1) * (CHUNK * CHUNK) + square)
            d = tl.dot(low.to(NARROW), written.to(tl.bfloat16).to(NARROW), d)

        q = tl.load(own_q + at_q, mask=present, other=0.0)
        o = tl.load(start + 2 * CHUNK)[:, None] * _by_wide(q, state, SPLIT, NARROW)
        o += _by_wide(tl.load(attend + place * (CHUNK * CHUNK) + square), d, SPLIT, NARROW)
        tl.store(own_out + at_out, o.to(out.dtype.element_ty), mask=present)

        d *= tl.load(start + 3 * CHUNK)[:, None]
        state *= tl.load(keep + place)
        state += _by_wide(tl.trans(k), d, SPLIT, NARROW)
        if KEPT:
            index = tl.load(kept_at + chunk)
            if index >= 0:
                # kept is [positions, batch * heads, key_dim, value_dim]; states = batch * heads.
                base = (index.to(tl.int64) * states + program) * (KEY_DIM * VALUE_DIM)
                tl.store(kept + base + in_state, state)
        own_q += CHUNK * query_token.to(tl.int64)
        own_k += CHUNK * key_token.to(tl.int64)
        own_v += CHUNK * value_token.to(tl.int64)
        own_out += CHUNK * HEADS * VALUE_DIM
    tl.store(final + at_state, state)


def _slice(capability: int, states: int, value_dim: int) -> tuple[int, int]:
    """Return how many values a program of ``_scan`` takes, and its warps: as many as the registers
    hold without spills, unless that would leave many multiprocessors idle.
    """
    widest = {90: 32, 100: 64, 103: 64}.get(capability, 16)
    if widest > 16 and states * value_dim >= 32 * 128 and value_dim >= widest:
        return widest, 8
    return min(16, value_dim), 4


def _rows(x: Tensor) -> Tensor:
    """Return ``x [batch, time, heads, dim]`` whose heads lie one after the other within a token."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def gated_delta_rule_at(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None,
    positions: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``reference.gated_delta_rule_at``; dimensions are powers of two from 16 to 256.

    Queries, keys and values may be slices of one wider tensor: they are read where they lie.
    """
    batch, time, key_heads, key_dim = key.shape
    heads, value_dim = value.shape[2:]
    require_power_of_two("gated_delta_rule", "key dimension", key_dim, 16, 256)
    require_power_of_two("gated_delta_rule", "value dimension", value_dim, 16, 256)
    check_positions(positions, time)
    kept_at = [-1] * (-(-time // CHUNK))
    for index, position in enumerate(positions):
        kept_at[position // CHUNK - 1] = index

    query, key, value = _rows(query), _rows(key), _rows(value)
    log_decay, beta = log_decay.contiguous(), beta.contiguous()
    chunks, states = len(kept_at), batch * heads
    out = value.new_empty(batch, time, heads, value_dim)
    shape = (batch, heads, key_dim, value_dim)
    kept = value.new_empty(len(positions), *shape, dtype=torch.float32)
    if time == 0 or states == 0:
        end = torch.zeros(shape, dtype=torch.float32, device=value.device)
        return out, end if state is None else state.float().clone(), kept
    final = value.new_empty(shape, dtype=torch.float32)
    solve = value.new_empty(states, chunks, 2, CHUNK, CHUNK)
    attend = value.new_empty(states, chunks, CHUNK, CHUNK)
    factors = value.new_empty(states, chunks, _FACTORS, CHUNK, dtype=torch.float32)
    keep = value.new_empty(states, chunks, dtype=torch.float32)
    strides = (query.stride(0), query.stride(1), key.stride(0), key.stride(1))
    wide = value.dtype == torch.float32
    narrow = tl.float32 if wide or interpreting() else tl.bfloat16
    _prepare[(chunks, states)](
        query,
        key,
        log_decay,
        beta,
        solve,
        attend,
        factors,
        keep,
        time,
        0,
        *strides,
        HEADS=heads,
        GROUP=heads // key_heads,
        DIM=key_dim,
        SLICE=min(32, key_dim),
        CHUNK=CHUNK,
        LEVELS=CHUNK.bit_length() - 1,
        SPLIT=not wide,
        NARROW=narrow,
        num_warps=4,
        num_stages=1,
    )
    block, warps = _slice(backend.capability(value.device), states, value_dim)
    _scan[(value_dim // block, states)](
        query,
        key,
        value,
        solve,
        attend,
        factors,
        keep,
        final if state is None else state.float().contiguous(),
        out,
        final,
        kept,
        torch.tensor(kept_at, dtype=torch.int32).to(value.device) if positions else keep,
        time,
        chunks,
        states,
        *strides,
        value.stride(0),
        value.stride(1),
        HEADS=heads,
        GROUP=heads // key_heads,
        KEY_DIM=key_dim,
        VALUE_DIM=value_dim,
        CHUNK=CHUNK,
        BLOCK=block,
        INITIAL=state is not None,
        KEPT=bool(positions),
        SPLIT=not wide,
        NARROW=narrow,
        num_warps=warps,
        num_stages=2,
    )
    return out, final, kept


def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute ``kernels.gated_delta_rule``; dimensions are powers of two from 16 to 256. Inference
    only."""
    return gated_delta_rule_at(query, key, value, log_decay, beta, state, ())[:2]
