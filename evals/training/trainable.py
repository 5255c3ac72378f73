"""The hybrid model as a trainable module: the checkpoint's parameter names, whole rows at once.

Inference (``model/hybrid/model.py``) carries state from call to call; training wants padded rows
from an empty state and gradients. The arithmetic is the same, and a test holds the two against each
other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.gated_delta_rule import chunked
from model.checkpoint.config import ModelConfig


class RMSNorm(nn.Module):
    """Zero-centred RMSNorm: the weight is stored as an offset from one."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] → [..., width]."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (scaled * (1 + self.weight)).to(x.dtype)


class GatedRMSNorm(nn.Module):
    """RMSNorm with a plain weight, times SiLU of a gate."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        """[..., width] and its gate → [..., width]."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (scaled * self.weight * F.silu(gate.float())).to(gate.dtype)


class Mlp(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, time, hidden] → [rows, time, hidden]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class ShortConv(nn.Module):
    """Causal depthwise convolution, then SiLU."""

    def __init__(self, channels: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, taps).uniform_(-0.5, 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """[rows, time, channels] → [rows, time, channels]."""
        taps = self.weight.squeeze(1).to(x.dtype)
        count = taps.shape[1]
        padded = F.pad(x, (0, 0, count - 1, 0))
        # Shifted sums: as a grouped convolution this is slower on a CPU.
        total = padded[:, : x.shape[1]] * taps[:, 0]
        for i in range(1, count):
            total = total + padded[:, i : i + x.shape[1]] * taps[:, i]
        return F.silu(total)


class GatedDeltaNet(nn.Module):
    """One linear-attention block from an empty state."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.key_heads, self.value_heads = (
            config.linear_num_key_heads,
            config.linear_num_value_heads,
        )
        self.key_dim, self.value_dim = config.linear_key_head_dim, config.linear_value_head_dim
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        self.widths = [keys, keys, values]
        channels = 2 * keys + values
        self.in_proj_qkv = nn.Linear(config.hidden_size, channels, bias=False)
        self.in_proj_z = nn.Linear(config.hidden_size, values, bias=False)
        self.in_proj_b = nn.Linear(config.hidden_size, self.value_heads, bias=False)
        self.in_proj_a = nn.Linear(config.hidden_size, self.value_heads, bias=False)
        self.conv1d = ShortConv(channels, config.linear_conv_kernel_dim)
        self.A_log = nn.Parameter(torch.log(torch.linspace(1.0, 8.0, self.value_heads)))
        self.dt_bias = nn.Parameter(torch.full((self.value_heads,), -4.0))
        self.norm = GatedRMSNorm(self.value_dim, config.rms_norm_eps)
        self.out_proj = nn.Linear(values, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, time, hidden] → [rows, time, hidden]."""
        rows, time, _ = x.shape
        mixed = self.in_proj_qkv(x)
        query, key, value = self.conv1d(mixed).split_with_sizes(self.widths, dim=-1)
        beta = torch.sigmoid(self.in_proj_b(x).float())
        decay = -self.A_log.exp() * F.softplus(self.in_proj_a(x).float() + self.dt_bias)
        out, _ = chunked(
            query.reshape(rows, time, self.key_heads, self.key_dim),
            key.reshape(rows, time, self.key_heads, self.key_dim),
            value.reshape(rows, time, self.value_heads, self.value_dim),
            decay,
            beta,
        )
        gate = self.in_proj_z(x).reshape(rows, time, self.value_heads, self.value_dim)
        result: Tensor = self.out_proj(self.norm(out, gate).reshape(rows, time, -1))
        return result


class GatedAttention(nn.Module):
    """One full-attention block: query/key norms, partial rotary positions, output gate."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = config.head_dim
        hidden, dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden, 2 * self.heads * dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * dim, bias=False)
        self.o_proj = nn.Linear(self.heads * dim, hidden, bias=False)
        self.q_norm = RMSNorm(dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(dim, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[rows, time, hidden] and the rotary tables [time, rotary_dim] → [rows, time, hidden]."""
        rows, time, _ = x.shape
        query, gate = self.q_proj(x).view(rows, time, self.heads, -1).chunk(2, dim=-1)
        key = self.k_proj(x).view(rows, time, self.kv_heads, self.head_dim)
        value = self.v_proj(x).view(rows, time, self.kv_heads, self.head_dim)
        query = _rotate(self.q_norm(query).transpose(1, 2), cos, sin)
        key = _rotate(self.k_norm(key).transpose(1, 2), cos, sin)
        group = self.heads // self.kv_heads
        out = F.scaled_dot_product_attention(
            query,
            key.repeat_interleave(group, dim=1),
            value.transpose(1, 2).repeat_interleave(group, dim=1),
            is_causal=True,
        )
        out = out.transpose(1, 2).reshape(rows, time, -1) * torch.sigmoid(
            gate.reshape(rows, time, -1)
        )
        result: Tensor = self.o_proj(out)
        return result


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on the first ``rotary_dim`` dimensions; x is [rows, heads, time, dim]."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, rest), dim=-1)


class Layer(nn.Module):
    """Token mixing, then feed-forward, each behind a norm and added to the stream."""

    def __init__(self, config: ModelConfig, kind: str) -> None:
        super().__init__()
        if kind == "linear_attention":
            self.linear_attn = GatedDeltaNet(config)
        else:
            self.self_attn = GatedAttention(config)
        self.kind = kind
        self.mlp = Mlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[rows, time, hidden] → [rows, time, hidden]."""
        inner = self.input_layernorm(x)
        if self.kind == "linear_attention":
            x = x + self.linear_attn(inner)
        else:
            x = x + self.self_attn(inner, cos, sin)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Mtp(nn.Module):
    """The multi-token-prediction head: one full-attention layer over (hidden, next embedding)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.pre_fc_norm_embedding = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.pre_fc_norm_hidden = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.layers = nn.ModuleList([Layer(config, "full_attention")])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden: Tensor, embedded: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Final hidden states of tokens i and embeddings of tokens i+1 → hidden for tokens i+2."""
        pair = torch.cat(
            (self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden)), dim=-1
        )
        out: Tensor = self.norm(self.layers[0](self.fc(pair), cos, sin))
        return out


class Hidden(NamedTuple):
    """Final hidden states, [rows, time, hidden], and the rotary tables they were made with."""

    states: Tensor
    cos: Tensor
    sin: Tensor


class TrainableNetwork(nn.Module):
    """The text model with tied embeddings and one MTP layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config, kind) for kind in config.layer_types])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mtp = Mtp(config)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        for layer in [*self.layers, *self.mtp.layers]:
            nn.init.zeros_(layer.mlp.down_proj.weight)
            mixer = layer.linear_attn if layer.kind == "linear_attention" else layer.self_attn
            nn.init.zeros_(
                (mixer.out_proj if layer.kind == "linear_attention" else mixer.o_proj).weight
            )

    def forward(self, ids: Tensor) -> Hidden:
        """[rows, time] token ids → final hidden states."""
        cos, sin = self._rotary(ids.shape[1])
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return Hidden(self.norm(x), cos, sin)

    def compile_small_parts(self) -> None:
        """Fuse the norms and convolutions, a tenth of a training step; needs a C++ compiler."""
        for module in self.modules():
            if isinstance(module, RMSNorm | GatedRMSNorm | ShortConv):
                module.compile(dynamic=True)

    def draft(self, hidden: Hidden, ids: Tensor) -> Tensor:
        """Hidden states that predict the token after next, [rows, time - 1, hidden].

        No gradient reaches the embedding: the MTP layer follows the trunk, not the other way round.
        """
        time = ids.shape[1] - 1
        embedded = self.embed_tokens(ids[:, 1:]).detach()
        out: Tensor = self.mtp(
            hidden.states[:, :-1], embedded, hidden.cos[:time], hidden.sin[:time]
        )
        return out

    def _rotary(self, time: int) -> tuple[Tensor, Tensor]:
        dim = self.config.rotary_dim
        inverse = self.config.rope_theta ** (-torch.arange(0, dim, 2).float() / dim)
        angles = torch.outer(torch.arange(time).float(), inverse).repeat(1, 2)
        return angles.cos(), angles.sin()
