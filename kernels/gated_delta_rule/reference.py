"""Gated delta rule in plain torch, after Yang, Kautz and Hatamizadeh, "Gated Delta Networks:
Improving Mamba2 with Delta Rule" (2024).

For each value head, with keys and queries scaled to unit length (and queries by key_dim ** -0.5):

    S <- exp(g) S;   d = beta (v - S^T k);   S <- S + k d^T;   o = S^T q

``recurrent`` is that definition, ``chunked`` the same sum reordered so that most of the work is
matrix products. Both work in float32 whatever the inputs are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.backend import KernelError

CHUNK = 64
_EPS = 1e-6


def _unit(x: Tensor) -> Tensor:
    """Return ``x`` in float32 with its last dimension scaled to length one (zero stays zero)."""
    x = x.float()
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _EPS)


def _zero_state(key: Tensor, value: Tensor) -> Tensor:
    shape = (value.shape[0], value.shape[2], key.shape[3], value.shape[3])
    return torch.zeros(shape, dtype=torch.float32, device=value.device)


def recurrent(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Token by token; arguments and results as in ``kernels.gated_delta_rule``."""
    batch, time, key_heads, key_dim = key.shape
    value_heads, value_dim = value.shape[2:]
    group, rows = value_heads // key_heads, batch * value_heads

    q = (_unit(query) * key_dim**-0.5).repeat_interleave(group, dim=2)
    k = _unit(key).repeat_interleave(group, dim=2)
    decay = log_decay.float().exp()
    s = (_zero_state(key, value) if state is None else state.float()).reshape(
        rows, key_dim, value_dim
    )
    outputs = []
    for t in range(time):
        k_t = k[:, t].reshape(rows, 1, key_dim)
        v_t = value[:, t].reshape(rows, 1, value_dim).float()
        s = s * decay[:, t].reshape(rows, 1, 1)
        delta = (v_t - torch.bmm(k_t, s)) * beta[:, t].reshape(rows, 1, 1).float()
        s = torch.baddbmm(s, k_t.mT, delta)
        outputs.append(torch.bmm(q[:, t].reshape(rows, 1, key_dim), s))
    out = torch.stack(outputs, dim=1) if time != 1 else outputs[0]
    out = out.reshape(batch, value_heads, time, value_dim).transpose(1, 2)
    return out.to(value.dtype), s.reshape(batch, value_heads, key_dim, value_dim)


def chunked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
    *,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor]:
    """In chunks of at most ``chunk`` tokens; arguments, results as in ``kernels.gated_delta_rule``.

    With c the running sum of log-decays in a chunk and D[i, j] = exp(c_i - c_j) for i >= j, the
    corrections d of one chunk solve a unit lower triangular system:

        (I + strict_lower(beta k k^T * D)) d = beta v - beta exp(c) k S

    so d = u - w S, where u and w are solved for all chunks at once and only S is carried.
    """
    batch, time, key_heads, key_dim = key.shape
    value_heads, value_dim = value.shape[2:]
    group = value_heads // key_heads
    size = max(1, min(chunk, time))
    pad = -time % size
    count = (time + pad) // size

    def heads(x: Tensor, per_key: int) -> Tensor:
        # [batch, time, heads, dim] -> [batch, key_heads, per_key, count, size, dim]. Padding is
        # inert: beta 0 writes nothing, log-decay 0 forgets nothing.
        x = F.pad(x, (0, 0, 0, 0, 0, pad))
        x = x.reshape(batch, count, size, key_heads, per_key, x.shape[-1])
        return x.permute(0, 3, 4, 1, 2, 5).contiguous()

    q = heads(_unit(query) * key_dim**-0.5, 1)
    k = heads(_unit(key), 1)
    v = heads(value.float(), group)
    b = heads(beta.float().unsqueeze(-1), group)
    c = heads(log_decay.float().unsqueeze(-1), group).cumsum(dim=-2)
    grow = c.exp()

    above = torch.ones(size, size, dtype=torch.bool, device=key.device).triu(1)
    # Masked before exp: above the diagonal the difference is positive and could overflow.
    decay = (c - c.mT).masked_fill(above, float("-inf")).exp()
    system = (k @ k.mT) * decay * b
    # Solved rather than inverted by powers: those grow like binomials when keys repeat.
    solved = torch.linalg.solve_triangular(
        system, torch.cat([b * v, (b * grow) * k], dim=-1), upper=False, unitriangular=True
    )
    u, w = solved.split([value_dim, key_dim], dim=-1)
    attend = (q @ k.mT) * decay
    q_in = q * grow
    end = c[..., -1:, :]
    k_out = k * (end - c).exp()
    keep = end.exp()

    s = _zero_state(key, value) if state is None else state.float()
    s = s.reshape(batch, key_heads, group, key_dim, value_dim)
    outputs = []
    for n in range(count):
        d = u[:, :, :, n] - w[:, :, :, n] @ s
        outputs.append(q_in[:, :, :, n] @ s + attend[:, :, :, n] @ d)
        s = s * keep[:, :, :, n] + k_out[:, :, :, n].mT @ d
    if outputs:
        out = torch.stack(outputs, dim=3).reshape(batch, value_heads, count * size, value_dim)
        out = out[:, :, :time].transpose(1, 2)
    else:
        out = value.float()
    return out.to(value.dtype), s.reshape(batch, value_heads, key_dim, value_dim)


def check_positions(positions: Sequence[int], time: int) -> None:
    """Raise ``KernelError`` unless these are rising multiples of ``CHUNK`` up to ``time``."""
    last = 0
    for position in positions:
        if position <= last or position > time or position % CHUNK:
            raise KernelError(
                f"gated_delta_rule: states can be had at rising multiples of {CHUNK} up to {time},"
                f" not at {list(positions)}"
            )
        last = position


def gated_delta_rule_at(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    state: Tensor | None,
    positions: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``chunked``, and the states after some of the tokens.

    ``positions`` count the tokens of this input: rising multiples of ``CHUNK`` up to ``time``. The
    third result holds the state after each, ``[positions, batch, value_heads, key_dim, value_dim]``
    in float32.
    """
    check_positions(positions, key.shape[1])
    outputs, kept, start = [], [], 0
    for end in (*positions, key.shape[1]):
        q, k, v, g, b = (x[:, start:end] for x in (query, key, value, log_decay, beta))
        out, state = chunked(q, k, v, g, b, state)
        outputs.append(out)
        kept.append(state)
        start = end
    states = torch.stack(kept)
    return torch.cat(outputs, dim=1), states[-1], states[:-1]
