"""The Gated DeltaNet layer: linear attention with a state of fixed size."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from kernels.causal_conv1d import causal_conv1d
from kernels.gated_delta_rule import gated_delta_rule
from kernels.linear import Weight, linear
from kernels.rms_norm import gated_rms_norm
from model.checkpoint.config import ModelConfig
from model.hybrid.layers import Rotation, Take
from model.state.passes import DeltaMemory, LayerMemory


@dataclass(frozen=True)
class DeltaNet:
    """One layer's weights.

    ``in_proj`` is the checkpoint's four input projections in one matrix: queries, keys and values
    for the convolution, then the output gate z, then beta, then the decay input a. ``conv`` is
    ``[width, conv_dim]``. ``decay_rate`` is ``-exp(A_log)``; it, ``dt_bias`` and ``norm`` are
    float32.
    """

    config: ModelConfig
    in_proj: Weight
    conv: Tensor
    decay_rate: Tensor
    dt_bias: Tensor
    norm: Tensor
    out_proj: Weight

    @classmethod
    def build(cls, config: ModelConfig, take: Take) -> DeltaNet:
        """From the checkpoint's tensors of one layer."""
        qkv, z, b, a = (f"linear_attn.in_proj_{part}.weight" for part in ("qkv", "z", "b", "a"))
        return cls(
            config,
            # The gates' inputs are few rows that all else hangs on: never quantised.
            in_proj=take.matrix(qkv, z, plain=(b, a)),
            conv=take("linear_attn.conv1d.weight").squeeze(1).T.to(take.dtype).contiguous(),
            decay_rate=-take.floats("linear_attn.A_log").exp(),
            dt_bias=take.floats("linear_attn.dt_bias"),
            norm=take.floats("linear_attn.norm.weight"),
            out_proj=take.matrix("linear_attn.out_proj.weight"),
        )

    def __call__(self, x: Tensor, rotation: Rotation, memory: LayerMemory | None) -> Tensor:
        """Mix ``x [batch, time, hidden]`` along time; order needs no ``rotation`` here."""
        assert memory is None or isinstance(memory, DeltaMemory)
        c = self.config
        batch, time, _ = x.shape
        keys = (batch, time, c.linear_num_key_heads, c.linear_key_head_dim)
        values = (batch, time, c.linear_num_value_heads, c.linear_value_head_dim)

        before_conv, before = memory.read() if memory else (None, None)
        mixed, z, b, a = linear(x, self.in_proj).split_with_sizes(
            [c.conv_dim, c.linear_value_dim, c.linear_num_value_heads, c.linear_num_value_heads],
            dim=-1,
        )
        mixed, conv = causal_conv1d(mixed, self.conv, before_conv)
        q, k, v = mixed.split_with_sizes(
            [c.linear_key_dim, c.linear_key_dim, c.linear_value_dim], dim=-1
        )
        out, recurrent = gated_delta_rule(
            q.reshape(keys),
            k.reshape(keys),
            v.reshape(values),
            self.decay_rate * F.softplus(a.float() + self.dt_bias),
            b.float().sigmoid(),
            before,
        )
        if memory is not None:
            memory.write(conv, recurrent)
        out = gated_rms_norm(out, z.reshape(values), self.norm, c.rms_norm_eps)
        return linear(out.reshape(batch, time, -1), self.out_proj)
