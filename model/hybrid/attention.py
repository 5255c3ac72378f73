"""The full-attention layer: grouped queries, normalised heads, partial rotation, an output gate."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from kernels.attention import attention, paged_attention
from kernels.linear import Weight, linear
from kernels.rope import rope
from model.checkpoint.config import ModelConfig
from model.hybrid.layers import Norm, Rotation, Take
from model.state.passes import AttentionMemory, LayerMemory


@dataclass(frozen=True)
class Attention:
    """One layer's weights.

    ``in_proj`` is the checkpoint's q, k and v projections in one matrix; its q rows hold, head by
    head, first the query and then the gate.
    """

    config: ModelConfig
    in_proj: Weight
    q_norm: Norm
    k_norm: Norm
    o_proj: Weight

    @classmethod
    def build(cls, config: ModelConfig, take: Take) -> Attention:
        """From the checkpoint's tensors of one layer."""
        parts = [f"self_attn.{part}_proj.weight" for part in ("q", "k", "v")]
        return cls(
            config,
            in_proj=take.matrix(*parts),
            q_norm=Norm(take.floats("self_attn.q_norm.weight"), config.rms_norm_eps),
            k_norm=Norm(take.floats("self_attn.k_norm.weight"), config.rms_norm_eps),
            o_proj=take.matrix("self_attn.o_proj.weight"),
        )

    def __call__(self, x: Tensor, rotation: Rotation, memory: LayerMemory | None) -> Tensor:
        """Let ``x [batch, time, hidden]`` attend to itself and to what is in ``memory``."""
        assert memory is None or isinstance(memory, AttentionMemory)
        c = self.config
        batch, time, _ = x.shape
        kv_dim = c.num_key_value_heads * c.head_dim
        queries, k, v = linear(x, self.in_proj).split_with_sizes(
            [2 * c.num_attention_heads * c.head_dim, kv_dim, kv_dim], dim=-1
        )
        q, gate = queries.reshape(batch, time, c.num_attention_heads, -1).chunk(2, dim=-1)
        k = k.reshape(batch, time, c.num_key_value_heads, c.head_dim)
        v = v.reshape(batch, time, c.num_key_value_heads, c.head_dim)
        q = rope(self.q_norm(q), rotation.cos, rotation.sin)
        k = rope(self.k_norm(k), rotation.cos, rotation.sin)
        if memory is None:
            out = attention(q, k.transpose(1, 2), v.transpose(1, 2), gate)
        else:
            memory.append(k, v)
            out = paged_attention(q, memory.pages, memory.layer, memory.lengths, gate)
        return linear(out.reshape(batch, time, -1), self.o_proj)
