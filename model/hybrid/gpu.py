"""A ``HybridModel`` on a CUDA device by the Triton kernels.

What a step of decode reads lies on the device: ids, positions, and tables of where each sequence's
pages and slots are. So a step for a fixed number of sequences can be captured once as a CUDA graph
and replayed with other contents (``model.hybrid.cuda_graphs``), which saves a thousand
launches a token.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.backend import KernelError, addresses, interpreting
from kernels.causal_conv1d import causal_conv1d
from kernels.experts import experts, route
from kernels.experts.native import NativeExperts
from kernels.fp8_linear import Fp8Weight
from kernels.gated_delta_rule import gated_delta_rule
from kernels.linear import QuantizedWeight, StackedWeight, Weight, embed
from kernels.native import native
from kernels.qk_norm_rope import qk_norm_rope
from kernels.rms_norm import add_rms_norm, gated_rms_norm, rms_norm
from kernels.rope import tables
from kernels.swiglu import swiglu
from model.checkpoint.config import ModelConfig
from model.hybrid.attention import Attention
from model.hybrid.cuda_graphs import Graphs
from model.hybrid.deltanet import DeltaNet
from model.hybrid.experts import Experts
from model.hybrid.layers import FeedForward, Norm, TokenMap
from model.hybrid.model import HybridModel
from model.state.pages import PAGE
from model.state.passes import Pass

MOST_EXACT = 64
"""Up to so many rows run on the CPU as if each were alone."""
MOST_STEP = 8
"""Inputs of up to this many tokens a sequence run as a step, longer ones as a prefill."""


def why_not(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> str | None:
    """Why the Triton kernels cannot run such a model, in one line; None if they can."""
    if device.type != "cuda" and not interpreting():
        return f"the model is on {device.type}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"they do not compute in {dtype}"
    for name, size in (
        ("head dimension", config.head_dim),
        ("DeltaNet key dimension", config.linear_key_head_dim),
        ("DeltaNet value dimension", config.linear_value_head_dim),
    ):
        if not 16 <= size <= 256 or size & (size - 1):
            return f"{name} {size} is no power of two from 16 to 256"
    return None


def product(x: Tensor, weight: Weight) -> Tensor:
    """Multiply ``x [..., inputs]`` by ``weight``: quantised ones by their kernels, plain ones by
    cuBLAS. The parts of a stacked one write into one result.
    """
    if isinstance(weight, Tensor):
        return F.linear(x, weight)
    from kernels.fp8_linear.triton import fp8_linear
    from kernels.linear.triton import coded_linear

    rows = x.reshape(-1, x.shape[-1])
    out = x.new_empty(len(rows), weight.shape[0])
    at = 0
    for part in weight.parts if isinstance(weight, StackedWeight) else (weight,):
        own = out[:, at : at + part.shape[0]]
        if isinstance(part, Tensor):
            torch.mm(rows, part.T, out=own)
        elif isinstance(part, QuantizedWeight):
            coded_linear(rows, part, out=own)
        elif isinstance(part, Fp8Weight):
            fp8_linear(rows, part, out=own)
        else:
            raise KernelError("this weight is mapped from a file for the CPU; read it first")
        at += part.shape[0]
    return out.reshape(*x.shape[:-1], -1)


@dataclass(frozen=True)
class StepInputs:
    """All that a step reads besides weights and the sequences' memory, on the device.

    ``ids`` are int64 ``[batch, time]``, ``positions`` int64 ``[3, batch, time]`` in time, height
    and width, ``lengths`` int32 ``[batch]`` (positions once the step is done), ``pages`` int64
    ``[batch, max_pages]`` and ``slots`` int64 ``[5, batch]`` (see ``kernels.delta_step``).
    """

    ids: Tensor
    positions: Tensor
    lengths: Tensor
    pages: Tensor
    slots: Tensor

    @classmethod
    def of(cls, ids: Tensor, running: Pass, max_pages: int | None = None) -> StepInputs:
        """Make the inputs of a pass; ``max_pages`` widens the table of pages."""
        from kernels.delta_step.triton import table_of

        starts = torch.tensor(running.starts, dtype=torch.int64)
        positions = (starts[:, None] + torch.arange(ids.shape[1])).expand(3, -1, -1)
        if running.positions is not None:
            positions = running.positions.reshape(3, *ids.shape)
        lengths = (starts + ids.shape[1]).to(torch.int32)
        sources = [None if s is None else (s[0], s[1]) for s in running.sources]
        return cls(
            ids,
            positions.contiguous().to(ids.device),
            lengths.to(ids.device),
            addresses(running.pages, max_pages),
            table_of(sources, [(t[0], t[1]) for t in running.targets]),
        )

    def parts(self) -> tuple[Tensor, ...]:
        """Return all inputs, in order."""
        return self.ids, self.positions, self.lengths, self.pages, self.slots


class DeviceModel:
    """``model`` run by the Triton kernels. Raises ``KernelError`` where ``why_not`` has a reason.

    With ``graphs`` single-token steps on a CUDA device are captured. One thread at a time may call
    it. ``kv`` is the form of keys and values in the pages of its passes.
    """

    def __init__(
        self,
        model: HybridModel,
        *,
        graphs: bool = True,
        host_experts: bool = False,
        kv: torch.dtype | None = None,
    ) -> None:
        reason = why_not(model.config, model.embedding.dtype, model.embedding.device)
        if reason is not None:
            raise KernelError(f"the Triton kernels cannot run this model: {reason}")
        self._model = model
        self._kv = kv or model.embedding.dtype
        self._host = _host_experts(model) if host_experts else []
        # A step that waits for the CPU cannot be captured.
        wanted = graphs and not host_experts and model.embedding.device.type == "cuda"
        self._graphs = Graphs(self._captured) if wanted else None

    def hidden(self, ids: Tensor, running: Pass) -> Tensor:
        """Run ``HybridModel.hidden`` in a pass: return ``[batch, time, hidden]``."""
        if ids.shape[1] > MOST_STEP:
            return self._run(
                _Prefill(ids, running, self._model.config, self._kv), self._embed(ids, running)
            )
        if self._graphs is None or ids.shape[1] > 1 or running.sees:
            inputs = StepInputs.of(ids, running)
            return self._run(_Step(inputs, self._model.config, self._kv), self._embed(ids, running))
        # Few widths, so that few graphs serve all lengths; what is unused costs nothing.
        most = max(len(held) for held in running.pages)
        inputs = StepInputs.of(ids, running, max(16, 1 << (most - 1).bit_length()))
        return self._graphs.run(inputs.parts())

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``[rows, vocab]`` in float32 from ``hidden [rows, hidden]``."""
        return product(hidden, self._model.head).float()

    def step(self, inputs: StepInputs) -> Tensor:
        """Run a step of at most ``MOST_STEP`` tokens; read nothing on the host."""
        x = embed(inputs.ids, self._model.embedding)
        return self._run(_Step(inputs, self._model.config, self._kv), x)

    def _embed(self, ids: Tensor, running: Pass) -> Tensor:
        return running.embed(ids, self._model.embedding)

    def _captured(self, parts: tuple[Tensor, ...]) -> Tensor:
        return self.step(StepInputs(*parts))

    def _run(self, mixers: _Step | _Prefill, x: Tensor) -> Tensor:
        """Run all layers on ``x``; a residual sum is made where the norm after it is."""
        model = self._model
        batch, time, _ = x.shape
        places = mixers.positions.reshape(3, -1)
        cos, sin = tables(places, model.speed, model.axis, model.config.rope_magnitude)
        angles = cos.reshape(batch, time, -1), sin.reshape(batch, time, -1)
        more: Tensor | None = None
        deltas = attentions = 0
        for block in model.blocks:
            normed, x = _norm(block.input_norm, x, more)
            if isinstance(block.mixer, Attention):
                mixed = mixers.attention(block.mixer, normed, angles, attentions)
                attentions += 1
            else:
                assert isinstance(block.mixer, DeltaNet)
                mixed = mixers.delta(block.mixer, normed, deltas)
                deltas += 1
            normed, x = _norm(block.post_norm, x, mixed)
            if self._host:
                more = on_host(self._host[deltas + attentions - 1], normed)
            else:
                more = _feed_forward(block.feed_forward, normed)
        return _norm(model.norm, x, more)[0]


def on_device(
    model: HybridModel, kv: torch.dtype, *, host_experts: bool = False
) -> DeviceModel | None:
    """Wrap ``model`` in the Triton kernels if they can run it where it is; else return None."""
    reason = why_not(model.config, model.embedding.dtype, model.embedding.device)
    return DeviceModel(model, host_experts=host_experts, kv=kv) if reason is None else None


def _host_experts(model: HybridModel) -> list[NativeExperts]:
    """Return each layer's experts, whose weights are in host memory, for the compiled CPU path."""
    found = []
    for block in model.blocks:
        assert isinstance(block.feed_forward, Experts)
        found.append(block.feed_forward.native())
    return found


def on_host(experts: NativeExperts, x: Tensor) -> Tensor:
    """Run a layer's experts for ``x [..., hidden]`` on the CPU; return the result where ``x`` is.

    Raises ``KernelError`` if the compiled path is not built.
    """
    library = native()
    if library is None:
        raise KernelError("experts in host memory need the compiled CPU path; run make setup")
    rows = x.reshape(-1, x.shape[-1])
    out = experts(library, rows.cpu(), exact_rows=len(rows) <= MOST_EXACT)
    return out.to(x.device, x.dtype).reshape(x.shape)


def _feed_forward(ff: TokenMap, x: Tensor) -> Tensor:
    if isinstance(ff, FeedForward):
        return product(swiglu(product(x, ff.gate_up), backend="triton"), ff.down)
    assert isinstance(ff, Experts)
    rows = x.reshape(-1, x.shape[-1])
    chosen, weights = route(rows, ff.router, ff.chosen)
    routed = experts(rows, chosen, weights, ff.gate_up, ff.down, backend="triton")
    own = _feed_forward(ff.shared, rows)
    return (routed + torch.sigmoid(product(rows, ff.shared_gate)) * own).reshape(x.shape)


def _norm(norm: Norm, x: Tensor, more: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sum of ``x`` and ``more`` normalised, and the sum."""
    if more is None:
        return rms_norm(x, norm.weight, norm.eps, zero_centred=True, backend="triton"), x
    return add_rms_norm(more, x, norm.weight, norm.eps, zero_centred=True, backend="triton")


def _attention(
    mixer: Attention,
    x: Tensor,
    angles: tuple[Tensor, Tensor],
    pages: Tensor,
    lengths: Tensor,
    layer: int,
    kv: torch.dtype,
) -> Tensor:
    from kernels.attention.triton import append_at, paged_attention_at

    heads, kv_heads = mixer.config.num_attention_heads, mixer.config.num_key_value_heads
    query, gate, key, value = qk_norm_rope(
        product(x, mixer.in_proj),
        mixer.q_norm.weight,
        mixer.k_norm.weight,
        *angles,
        mixer.q_norm.eps,
        heads=heads,
        kv_heads=kv_heads,
        backend="triton",
    )
    append_at(key, value, pages, layer, lengths, page=PAGE, kv=kv)
    out = paged_attention_at(
        query, pages, layer, lengths, gate, page=PAGE, kv_heads=kv_heads, kv=kv
    )
    return product(out.reshape(*x.shape[:2], -1), mixer.o_proj)


class _Step:
    """The mixers of a step of few tokens in several sequences."""

    def __init__(self, inputs: StepInputs, config: ModelConfig, kv: torch.dtype) -> None:
        self._inputs = inputs
        self._kv = kv
        self._config = config
        self.positions = inputs.positions

    def attention(
        self, mixer: Attention, x: Tensor, angles: tuple[Tensor, Tensor], layer: int
    ) -> Tensor:
        pages, lengths = self._inputs.pages, self._inputs.lengths
        return _attention(mixer, x, angles, pages, lengths, layer, self._kv)

    def delta(self, mixer: DeltaNet, x: Tensor, layer: int) -> Tensor:
        from kernels.delta_step.triton import delta_step_at

        out = delta_step_at(
            product(x, mixer.in_proj),
            mixer.conv,
            mixer.decay_rate,
            mixer.dt_bias,
            mixer.norm,
            self._config.rms_norm_eps,
            self._inputs.slots,
            layer,
            self._config.linear_key_head_dim,
        )
        return product(out, mixer.out_proj)


class _Prefill:
    """The mixers of a long input of one sequence."""

    def __init__(self, ids: Tensor, running: Pass, config: ModelConfig, kv: torch.dtype) -> None:
        assert ids.shape[0] == 1, "only one sequence is prefilled in one pass"
        self._config, self._kv = config, kv
        self._source, self._target = running.sources[0], running.targets[0]
        inputs = StepInputs.of(ids, running)
        self.positions = inputs.positions
        self._pages, self._lengths = inputs.pages, inputs.lengths

    def attention(
        self, mixer: Attention, x: Tensor, angles: tuple[Tensor, Tensor], layer: int
    ) -> Tensor:
        return _attention(mixer, x, angles, self._pages, self._lengths, layer, self._kv)

    def delta(self, mixer: DeltaNet, x: Tensor, layer: int) -> Tensor:
        c, (batch, time, _) = self._config, x.shape
        mixed, z, b, a = product(x, mixer.in_proj).split_with_sizes(
            [c.conv_dim, c.linear_value_dim, c.linear_num_value_heads, c.linear_num_value_heads],
            dim=-1,
        )
        before = self._source[0][layer][None] if self._source is not None else None
        mixed, conv = causal_conv1d(mixed, mixer.conv, before)
        q, k, v = mixed.split_with_sizes(
            [c.linear_key_dim, c.linear_key_dim, c.linear_value_dim], dim=-1
        )
        keys = (batch, time, c.linear_num_key_heads, c.linear_key_head_dim)
        values = (batch, time, c.linear_num_value_heads, c.linear_value_head_dim)
        out, state = gated_delta_rule(
            q.reshape(keys),
            k.reshape(keys),
            v.reshape(values),
            mixer.decay_rate * F.softplus(a.float() + mixer.dt_bias),
            b.float().sigmoid(),
            self._source[1][layer][None] if self._source is not None else None,
            backend="triton",
        )
        self._target[0][layer].copy_(conv[0])
        self._target[1][layer].copy_(state[0])
        out = gated_rms_norm(out, z.reshape(values), mixer.norm, c.rms_norm_eps, backend="triton")
        return product(out.reshape(batch, time, -1), mixer.out_proj)
