"""A DeltaNet layer between its two projections, for one or a few tokens of each of many
sequences, built from the other operations' references.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.causal_conv1d.reference import causal_conv1d
from kernels.gated_delta_rule.reference import recurrent
from kernels.rms_norm.reference import gated_rms_norm

SlotTensors = tuple[Tensor, Tensor]
"""One sequence's convolution inputs ``[width - 1, conv_dim]`` and delta rule's state
``[value_heads, key_dim, value_dim]``, the latter in float32."""


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
    """Convolution, gates, delta rule and gated norm of a few tokens.

    Args:
        projected: ``[batch, time, conv_dim + value_heads * value_dim + 2 * value_heads]``: queries,
            keys and values before the convolution, the output gate, beta's and the decay's inputs.
        conv: ``[width, conv_dim]``, see ``kernels.causal_conv1d``.
        decay_rate: ``[value_heads]``, float32, not positive.
        dt_bias: ``[value_heads]``, float32.
        norm: ``[value_dim]``, the weight of the output's RMSNorm.
        eps: of that norm.
        sources: what each sequence remembers; None is all zeros.
        targets: where what it remembers after the tokens is written. No target is a source.

    Returns:
        ``[batch, time, value_heads * value_dim]`` in the dtype of ``projected``.
    """
    batch, time, _ = projected.shape
    heads, key_dim, value_dim = targets[0][1].shape
    conv_dim, width = conv.shape[1], heads * value_dim
    key_width = (conv_dim - width) // 2
    before = [
        tuple(map(torch.zeros_like, target)) if source is None else source
        for source, target in zip(sources, targets, strict=True)
    ]
    mixed, z, b, a = projected.split_with_sizes([conv_dim, width, heads, heads], dim=-1)
    mixed, inputs = causal_conv1d(mixed, conv, torch.stack([conv for conv, _ in before]))
    q, k, v = mixed.split_with_sizes([key_width, key_width, width], dim=-1)
    out, states = recurrent(
        q.reshape(batch, time, -1, key_dim),
        k.reshape(batch, time, -1, key_dim),
        v.reshape(batch, time, heads, value_dim),
        decay_rate * F.softplus(a.float() + dt_bias),
        b.float().sigmoid(),
        torch.stack([state for _, state in before]),
    )
    for row, (own_inputs, own_state) in enumerate(targets):
        own_inputs.copy_(inputs[row])
        own_state.copy_(states[row])
    z = z.reshape(batch, time, heads, value_dim)
    return gated_rms_norm(out, z, norm, eps).reshape(batch, time, width)
