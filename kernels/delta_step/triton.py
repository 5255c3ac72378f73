"""A DeltaNet step in one Triton kernel: a program runs one value head of one sequence.

It holds the head's state in registers from the first token to the last: read once, written once,
to another place. Where each sequence's memory lies comes from a table of addresses, so a captured
step can be replayed on other memory by filling the table anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.backend import KernelError, addresses, require_power_of_two
from kernels.delta_step.reference import SlotTensors

MOST_TOKENS = 8


@triton.jit
def _place(entry, TYPE: tl.constexpr):
    """Return the pointer in a table's ``entry``. It is a multiple of 16, without which a load would
    go element by element.
    """
    return tl.multiple_of(tl.load(entry).to(tl.pointer_type(TYPE)), 16)


@triton.jit
def _input(projected, inputs, known, channel, at, token_stride, conv_dim, WIDTH: tl.constexpr):
    """Return the convolution's input ``at`` for ``channel``: before 0 it is a remembered one, or
    zero.
    """
    at += tl.zeros([1], tl.int32)
    new = tl.load(projected + at * token_stride + channel, mask=at >= 0, other=0.0)
    old = tl.load(inputs + (at + WIDTH - 1) * conv_dim + channel, mask=at < 0, other=0.0)
    return tl.where(at >= 0, new, tl.where(known, old, 0.0))


@triton.jit
def _convolve(
    projected, inputs, known, weight, channel, t, token_stride, conv_dim, WIDTH: tl.constexpr
):
    """Return the convolution's output for ``channel`` at token ``t``, in the dtype of the
    projection.
    """
    total = tl.zeros(channel.shape, tl.float32)
    for i in tl.static_range(WIDTH):
        at = t + i - (WIDTH - 1)
        x = _input(projected, inputs, known, channel, at, token_stride, conv_dim, WIDTH)
        total += x.to(tl.float32) * tl.load(weight + i * conv_dim + channel).to(tl.float32)
    return (total * tl.sigmoid(total)).to(projected.dtype.element_ty).to(tl.float32)


@triton.jit
def _keep_inputs(
    projected, inputs, known, target, channel, time, token_stride, conv_dim, WIDTH: tl.constexpr
):
    """Write the last ``WIDTH - 1`` inputs of ``channel``."""
    for i in tl.static_range(WIDTH - 1):
        at = time + i - (WIDTH - 1)
        x = _input(projected, inputs, known, channel, at, token_stride, conv_dim, WIDTH)
        tl.store(target + i * conv_dim + channel, x)


@triton.jit(do_not_specialize=["layer"])
def _delta_step(
    projected,
    weight,
    decay_rate,
    dt_bias,
    norm,
    table,
    out,
    time,
    layer,
    batch,
    token_stride,
    eps,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
):
    head, row = tl.program_id(0), tl.program_id(1)
    key_head = head // GROUP
    keys: tl.constexpr = HEADS // GROUP * KEY_DIM
    values: tl.constexpr = HEADS * VALUE_DIM
    conv_dim: tl.constexpr = 2 * keys + values
    narrow = projected.dtype.element_ty
    across, along = tl.arange(0, KEY_DIM), tl.arange(0, VALUE_DIM)

    # The table: where each sequence's inputs and state are read, where they are written, and
    # whether what is read is known; if not, those are places whose content does not matter.
    at_inputs = layer.to(tl.int64) * ((WIDTH - 1) * conv_dim)
    at_state = (layer.to(tl.int64) * HEADS + head) * (KEY_DIM * VALUE_DIM)
    known = tl.load(table + 4 * batch + row) != 0
    inputs = _place(table + row, narrow) + at_inputs
    before = _place(table + batch + row, tl.float32) + at_state
    target = _place(table + 2 * batch + row, narrow) + at_inputs
    after = _place(table + 3 * batch + row, tl.float32) + at_state

    projected += row.to(tl.int64) * time * token_stride
    out += row.to(tl.int64) * time * values + head * VALUE_DIM
    q_channel = key_head * KEY_DIM + across
    k_channel = keys + q_channel
    v_channel = 2 * keys + head * VALUE_DIM + along
    in_state = across[:, None] * VALUE_DIM + along[None, :]
    state = tl.where(known, tl.load(before + in_state), 0.0)
    rate = tl.load(decay_rate + head)
    bias = tl.load(dt_bias + head)
    scale = tl.load(norm + along).to(tl.float32)

    for t in range(time):
        q = _convolve(projected, inputs, known, weight, q_channel, t, token_stride, conv_dim, WIDTH)
        k = _convolve(projected, inputs, known, weight, k_channel, t, token_stride, conv_dim, WIDTH)
        v = _convolve(projected, inputs, known, weight, v_channel, t, token_stride, conv_dim, WIDTH)
        q *= tl.rsqrt(tl.sum(q * q, axis=0) + 1e-6) * (KEY_DIM**-0.5)
        k *= tl.rsqrt(tl.sum(k * k, axis=0) + 1e-6)

        own = projected + t * token_stride + conv_dim
        z = tl.load(own + head * VALUE_DIM + along).to(tl.float32)
        beta = tl.sigmoid(tl.load(own + values + head).to(tl.float32))
        x = tl.load(own + values + HEADS + head).to(tl.float32) + bias
        # softplus; from 20 on it is its argument, in float32.
        soft = tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(tl.minimum(x, 20.0))))
        state *= tl.exp(rate * soft)
        d = beta * (v - tl.sum(k[:, None] * state, axis=0))
        state += k[:, None] * d[None, :]
        o = tl.sum(q[:, None] * state, axis=0).to(narrow).to(tl.float32)
        o *= tl.rsqrt(tl.sum(o * o, axis=0) / VALUE_DIM + eps) * scale
        tl.store(out + t * values + along, (o * z * tl.sigmoid(z)).to(narrow))

    tl.store(after + in_state, state)
    _keep_inputs(projected, inputs, known, target, v_channel, time, token_stride, conv_dim, WIDTH)
    # Value heads that share a key head would all write the same: the first one does.
    if head % GROUP == 0:
        _keep_inputs(
            projected, inputs, known, target, q_channel, time, token_stride, conv_dim, WIDTH
        )
        _keep_inputs(
            projected, inputs, known, target, k_channel, time, token_stride, conv_dim, WIDTH
        )


def table_of(sources: Sequence[SlotTensors | None], targets: Sequence[SlotTensors]) -> Tensor:
    """Return what ``delta_step_at`` reads, ``[5, batch]``: the addresses of the sources' parts and
    of the targets', and 1 where there is a source.
    """
    rows: list[list[Tensor]] = [[], [], [], []]
    for source, target in zip(sources, targets, strict=True):
        for index in range(2):
            rows[index].append(target[index] if source is None else source[index])
            rows[2 + index].append(target[index])
    known = torch.tensor([[source is not None for source in sources]]).long()
    places = addresses(rows)
    return torch.cat([places, known.to(places.device)])


def delta_step_at(
    projected: Tensor,
    conv: Tensor,
    decay_rate: Tensor,
    dt_bias: Tensor,
    norm: Tensor,
    eps: float,
    table: Tensor,
    layer: int,
    key_dim: int,
) -> Tensor:
    """Run ``delta_step`` on memory whose ``table_of`` addresses is on the device already.

    Each address is that of a whole slot, ``[layers, ...]`` of a tensor of ``SlotTensors``, of which
    ``layer`` is used. Reads nothing on the host, so it can be captured in a CUDA graph.
    """
    batch, time, _ = projected.shape
    heads, value_dim, (width, conv_dim) = decay_rate.shape[0], norm.shape[0], conv.shape
    require_power_of_two("delta_step", "key dimension", key_dim, 16, 256)
    require_power_of_two("delta_step", "value dimension", value_dim, 16, 256)
    if time > MOST_TOKENS:
        raise KernelError(
            f"delta_step: at most {MOST_TOKENS} tokens a step, not {time}; use backend='torch', or"
            " kernels.gated_delta_rule for long inputs"
        )
    key_heads = (conv_dim - heads * value_dim) // (2 * key_dim)
    projected = projected.contiguous()
    out = projected.new_empty(batch, time, heads * value_dim)
    if batch * time:
        _delta_step[(heads, batch)](
            projected,
            conv,
            decay_rate,
            dt_bias,
            norm,
            table,
            out,
            time,
            layer,
            batch,
            projected.stride(1),
            eps,
            HEADS=heads,
            GROUP=heads // key_heads,
            KEY_DIM=key_dim,
            VALUE_DIM=value_dim,
            WIDTH=width,
            # No more threads than channels: else the compiler works out the convolution in the
            # layout of the state, in every thread that holds part of it, and runs out of registers.
            num_warps=4 if value_dim >= 128 else 2,
        )
    return out


def delta_step(
    projected: Tensor,
    conv: Tensor,
    decay_rate: Tensor,
    dt_bias: Tensor,
    norm: Tensor,
    eps: float,
    sources: Sequence[SlotTensors | None],
    targets: Sequence[SlotTensors],
) -> Tensor:
    """Compute ``reference.delta_step``, for at most 8 tokens. Memory must be contiguous."""
    key_dim = targets[0][1].shape[1]
    table = table_of(sources, targets)
    return delta_step_at(projected, conv, decay_rate, dt_bias, norm, eps, table, 0, key_dim)
