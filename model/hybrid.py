"""The hybrid network: its forward pass from top to bottom, and the same as a session's network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.linear import linear
from kernels.rope import frequencies, tables
from model.attention import Attention
from model.cache import HybridState, LayerState
from model.config import ModelConfig
from model.deltanet import DeltaNet
from model.layers import Block, FeedForward, Norm, Rotation
from model.session import Progress, State

PREFILL_CHUNK = 512


@dataclass(frozen=True)
class MtpHead:
    """The multi-token-prediction layer: from a position's hidden state and the token after it to
    the hidden state that predicts the one after that (DeepSeek-V3 report, 2024, section 2.2)."""

    embedding_norm: Norm
    hidden_norm: Norm
    project: Tensor
    block: Block
    norm: Norm

    def __call__(self, hidden: Tensor, following: Tensor, rotation: Rotation) -> Tensor:
        """``hidden`` and the embedded next tokens ``following``, both ``[batch, time, hidden]``."""
        joined = torch.cat([self.embedding_norm(following), self.hidden_norm(hidden)], dim=-1)
        x, _ = self.block(linear(joined, self.project), rotation, None)
        return self.norm(x)


@dataclass(frozen=True)
class HybridModel:
    """The whole network as plain tensors.

    ``hidden`` and ``logits`` are differentiable with respect to the tensors it was built from, so
    that the same code trains and runs.
    """

    config: ModelConfig
    embedding: Tensor
    blocks: tuple[Block, ...]
    norm: Norm
    head: Tensor
    mtp: MtpHead | None
    speed: Tensor
    axis: Tensor

    @classmethod
    def build(
        cls, config: ModelConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype
    ) -> HybridModel:
        """From tensors under the names of ``weights.tensor_shapes``; MTP tensors may be absent.

        Matrices are cast to ``dtype``; norms and decay parameters are kept in float32.
        """

        def norm(name: str) -> Norm:
            return Norm(tensors[name].float(), config.rms_norm_eps)

        def block(prefix: str, kind: str) -> Block:
            def take(name: str) -> Tensor:
                return tensors[prefix + name]

            build = Attention.build if kind == "full_attention" else DeltaNet.build
            gate_up = torch.cat([take("mlp.gate_proj.weight"), take("mlp.up_proj.weight")])
            return Block(
                norm(prefix + "input_layernorm.weight"),
                build(config, take, dtype),
                norm(prefix + "post_attention_layernorm.weight"),
                FeedForward(gate_up.to(dtype), take("mlp.down_proj.weight").to(dtype)),
            )

        embedding = tensors["embed_tokens.weight"].to(dtype)
        mtp = None
        if "mtp.fc.weight" in tensors:
            mtp = MtpHead(
                norm("mtp.pre_fc_norm_embedding.weight"),
                norm("mtp.pre_fc_norm_hidden.weight"),
                tensors["mtp.fc.weight"].to(dtype),
                block("mtp.layers.0.", "full_attention"),
                norm("mtp.norm.weight"),
            )
        speed, axis = frequencies(config.rotary_dim, config.rope_theta, config.mrope_section)
        return cls(
            config,
            embedding,
            tuple(block(f"layers.{i}.", kind) for i, kind in enumerate(config.layer_types)),
            norm("norm.weight"),
            embedding if config.tie_word_embeddings else tensors["lm_head.weight"].to(dtype),
            mtp,
            speed.to(embedding.device),
            axis.to(embedding.device),
        )

    def rotation(self, start: int, time: int) -> Rotation:
        """The rotation of text at positions ``start`` to ``start + time``."""
        positions = torch.arange(start, start + time, device=self.speed.device).expand(3, -1)
        return Rotation(*tables(positions, self.speed, self.axis))

    def hidden(
        self, ids: Tensor, state: HybridState | None = None
    ) -> tuple[Tensor, HybridState | None]:
        """The normalised hidden states ``[batch, time, hidden]`` of ``ids [batch, time]``.

        With a state, ``ids`` continue it, and the state after them is returned. Without one the
        sequence starts here and nothing is kept (training).
        """
        start = state.length if state else 0
        before: Sequence[LayerState | None] = state.layers if state else [None] * len(self.blocks)
        after = []

        x = F.embedding(ids, self.embedding)
        rotation = self.rotation(start, ids.shape[1])
        for block, layer_state in zip(self.blocks, before, strict=True):
            x, kept = block(x, rotation, layer_state)
            after.append(kept)
        x = self.norm(x)

        if state is None:
            return x, None
        layers = tuple(kept for kept in after if kept is not None)
        return x, HybridState(start + ids.shape[1], layers)

    def logits(self, hidden: Tensor) -> Tensor:
        """``[..., vocab]`` in the dtype of the weights, from normalised hidden states."""
        return linear(hidden, self.head)

    def draft(self, hidden: Tensor, following: Tensor) -> Tensor:
        """The MTP head's hidden states: position ``t`` predicts the token at ``t + 2``.

        ``hidden [batch, time, hidden]`` is from ``hidden()``, ``following [batch, time]`` are the
        ids one place further. The sequence starts here. The model must have an MTP head.
        """
        assert self.mtp is not None, "this checkpoint has no MTP head"
        rotation = self.rotation(0, following.shape[1])
        return self.mtp(hidden, F.embedding(following, self.embedding), rotation)


class HybridNetwork:
    """A ``HybridModel`` as a session's network: one sequence, inference only.

    Long inputs run in chunks that end at multiples of ``PREFILL_CHUNK`` positions, so the same ids
    in the same calls are always cut the same way; the head runs for the last position only.
    ``vocab_limit`` leaves out the padding rows at the end of the vocabulary.
    """

    def __init__(
        self, model: HybridModel, *, fingerprint: str, vocab_limit: int | None = None
    ) -> None:
        self.model = model
        self.fingerprint = fingerprint
        self.vocab_size = min(vocab_limit or model.config.vocab_size, model.config.vocab_size)
        self.context_length = model.config.context_length
        self._head = model.head[: self.vocab_size]

    def new_state(self) -> HybridState:
        """The state before the first token."""
        with torch.inference_mode():
            return HybridState.empty(self.model.config, self.model.embedding)

    def forward(
        self, ids: Sequence[int], state: State, *, on_progress: Progress | None = None
    ) -> tuple[Tensor, HybridState]:
        """See ``session.Network.forward``."""
        assert isinstance(state, HybridState)
        done, total = 0, len(ids)
        with torch.inference_mode():
            tokens = torch.tensor([ids], device=self.model.embedding.device)
            while done < total:
                until = min(total, done + PREFILL_CHUNK - state.length % PREFILL_CHUNK)
                hidden, after = self.model.hidden(tokens[:, done:until], state)
                assert after is not None
                state, done = after, until
                if on_progress is not None:
                    on_progress(done, total)
            return linear(hidden[0, -1], self._head).float(), state

    def load_state(self, tensors: Mapping[str, Tensor], length: int) -> HybridState:
        """See ``session.Network.load_state``."""
        with torch.inference_mode():
            return self.new_state().load(tensors, length)
