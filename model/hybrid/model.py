"""The hybrid network: its forward pass from top to bottom, and the same as sessions' network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from kernels.experts import DeviceStack, ExpertStack
from kernels.linear import Table, Weight, embed, linear
from kernels.rope import frequencies, tables
from model.checkpoint.config import ModelConfig, head_name
from model.hybrid.attention import Attention
from model.hybrid.deltanet import DeltaNet
from model.hybrid.experts import Experts
from model.hybrid.layers import DecoderLayer, FeedForward, Norm, Rotation, Take
from model.hybrid.mtp import GuessLayer, MtpRunner
from model.network import State, Trail, Work, require_words
from model.state.memory import StateMemory
from model.state.mtp_chain import ChainLoader, ChainRows, SavedChain
from model.state.pages import HybridState, Layout, MtpChain
from model.state.passes import LayerMemory, Pass, Seen
from model.state.trail import HybridTrail, Rows, settle
from model.vision.eyes import Sight
from model.vision.looking import look, require_whole

PREFILL_CHUNK = 512
VERIFY_ROWS = 16
"""The most tokens of one sequence that ``verify`` runs: what the compiled steps take."""


@dataclass(frozen=True)
class MtpHead:
    """The multi-token-prediction layer: from a position's hidden state and the token after it to
    the hidden state that predicts the one after that (DeepSeek-V3 report, 2024, section 2.2)."""

    embedding_norm: Norm
    hidden_norm: Norm
    project: Weight
    block: DecoderLayer
    norm: Norm

    def __call__(self, hidden: Tensor, following: Tensor, rotation: Rotation) -> Tensor:
        """Join ``hidden`` and the embedded next tokens ``following``, ``[batch, time, hidden]``."""
        joined = torch.cat([self.embedding_norm(following), self.hidden_norm(hidden)], dim=-1)
        return self.norm(self.block(linear(joined, self.project), rotation, None))


@dataclass(frozen=True)
class HybridModel:
    """The whole network as plain tensors.

    ``hidden`` and ``logits`` are differentiable with respect to the tensors it was built from, so
    that the same code trains and runs.
    """

    config: ModelConfig
    embedding: Table
    blocks: tuple[DecoderLayer, ...]
    norm: Norm
    head: Weight
    mtp: MtpHead | None
    speed: Tensor
    axis: Tensor

    @classmethod
    def build(
        cls,
        config: ModelConfig,
        tensors: Mapping[str, Tensor],
        dtype: torch.dtype,
        quantized: Mapping[str, Weight | ExpertStack | DeviceStack] | None = None,
        table: Table | None = None,
    ) -> HybridModel:
        """From tensors under the names of ``weights.tensor_shapes``; MTP tensors may be absent.

        Matrices are cast to ``dtype`` or come from ``quantized`` (see ``quantize.groups``); norms
        and decay parameters are kept in float32.
        """
        source = Take(tensors, dtype, quantized or {})

        def norm(name: str) -> Norm:
            return Norm(source.floats(name), config.rms_norm_eps)

        def block(prefix: str, kind: str) -> DecoderLayer:
            take = source.under(prefix)
            build = Attention.build if kind == "full_attention" else DeltaNet.build
            return DecoderLayer(
                norm(prefix + "input_layernorm.weight"),
                build(config, take),
                norm(prefix + "post_attention_layernorm.weight"),
                FeedForward.build(take.under("mlp."))
                if config.experts is None
                else Experts.build(config, take),
            )

        embedding = tensors["embed_tokens.weight"].to(dtype) if table is None else table
        mtp = None
        # By its norm: the matrices may be among the quantised ones.
        if "mtp.norm.weight" in tensors:
            mtp = MtpHead(
                norm("mtp.pre_fc_norm_embedding.weight"),
                norm("mtp.pre_fc_norm_hidden.weight"),
                source.matrix("mtp.fc.weight"),
                block("mtp.layers.0.", "full_attention"),
                norm("mtp.norm.weight"),
            )
        speed, axis = frequencies(
            config.rotary_dim, config.rope_theta, config.mrope_section, config.yarn
        )
        return cls(
            config,
            embedding,
            tuple(block(f"layers.{i}.", kind) for i, kind in enumerate(config.layer_types)),
            norm("norm.weight"),
            source.matrix(head_name(config)),
            mtp,
            speed.to(embedding.device),
            axis.to(embedding.device),
        )

    def rotation(self, start: int, time: int) -> Rotation:
        """Return the rotation of text at positions ``start`` to ``start + time``."""
        positions = torch.arange(start, start + time, device=self.speed.device).expand(3, -1)
        return Rotation(*tables(positions, self.speed, self.axis, self.config.rope_magnitude))

    def rotations(self, positions: Sequence[int]) -> Rotation:
        """Return the rotation of one token in each of several texts, at ``positions``."""
        return self.rotation_at(torch.tensor(positions).expand(3, -1), apart=True)

    def rotation_at(self, positions: Tensor, *, apart: bool) -> Rotation:
        """Return the rotation at ``positions [3, rows]``: of one sequence, or with ``apart`` of one
        token in each of several."""
        places = positions.to(self.speed.device)
        cos, sin = tables(places, self.speed, self.axis, self.config.rope_magnitude)
        return Rotation(cos.unsqueeze(1), sin.unsqueeze(1)) if apart else Rotation(cos, sin)

    def hidden(self, ids: Tensor, running: Pass | None = None) -> Tensor:
        """Return the normalised hidden states ``[batch, time, hidden]`` of ``ids [batch, time]``.

        In a pass, row by row, ``ids`` go on from its states. Without one the sequences start here
        and nothing is kept (training).
        """
        memories: Sequence[LayerMemory | None] = [None] * len(self.blocks)
        if running is None:
            x, rotation = embed(ids, self.embedding), self.rotation(0, ids.shape[1])
        else:
            x, memories = running.embed(ids, self.embedding), running.layers
            if running.positions is not None:
                rotation = self.rotation_at(running.positions, apart=len(ids) > 1)
            elif len(running.starts) == 1:
                rotation = self.rotation(running.starts[0], ids.shape[1])
            else:
                rotation = self.rotations(running.starts)
        for block, memory in zip(self.blocks, memories, strict=True):
            x = block(x, rotation, memory)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``[..., vocab]`` in the dtype of the weights, from normalised hidden states."""
        return linear(hidden, self.head)

    def draft(self, hidden: Tensor, following: Tensor) -> Tensor:
        """Return the MTP head's hidden states: position ``t`` predicts the token at ``t + 2``.

        ``hidden [batch, time, hidden]`` is from ``hidden()``, ``following [batch, time]`` are the
        ids one place further. The sequence starts here. The model must have an MTP head.
        """
        assert self.mtp is not None, "this checkpoint has no MTP head"
        rotation = self.rotation(0, following.shape[1])
        return self.mtp(hidden, embed(following, self.embedding), rotation)


class Compiled(Protocol):
    """A ``HybridModel`` that something faster runs (``native.NativeModel``)."""

    def hidden(self, ids: Tensor, running: Pass) -> Tensor:
        """Run ``HybridModel.hidden`` in a pass."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``[rows, vocab]`` in float32 from ``hidden [rows, hidden]``."""
        ...


@runtime_checkable
class Stepping(Compiled, Protocol):
    """One whose rows do not depend on each other, and which can go back to each of them."""

    @property
    def trail_width(self) -> int:
        """The numbers that a DeltaNet layer leaves on the trail for a token."""
        ...

    def rows(
        self, ids: Tensor, running: Pass, *, exact: bool = True, trail: Tensor | None = None
    ) -> Tensor: ...

    def replay(
        self,
        trail: Tensor,
        first: int,
        count: int,
        source: tuple[Tensor, ...] | None,
        target: tuple[Tensor, ...],
    ) -> None: ...


class HybridNetwork:
    """A ``HybridModel`` as sessions' network; inference only.

    The head runs for the last position only; ``vocab_limit`` leaves out the padding rows at the end
    of the vocabulary. States take their room from ``memory`` (None: without limit). With
    ``compiled`` that runs instead of torch, and with ``mtp`` that layer follows every sequence, so
    that ``guess`` can go on from it. With ``sight`` sequences may hold pictures. ``kv`` is the form
    of keys and values (see ``Layout``).
    """

    prefill_chunk = PREFILL_CHUNK

    def __init__(
        self,
        model: HybridModel,
        *,
        fingerprint: str,
        vocab_limit: int | None = None,
        memory: StateMemory | None = None,
        compiled: Compiled | None = None,
        mtp: GuessLayer | None = None,
        sight: Sight | None = None,
        kv: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.compiled = compiled
        self.fingerprint = fingerprint
        self.vocab_size = min(vocab_limit or model.config.vocab_size, model.config.vocab_size)
        self.context_length = model.config.context_length
        self.layout = Layout.of(model.config, model.embedding, memory, kv)
        self._mtp = None if mtp is None else MtpRunner(mtp, self.layout)
        self._sight = sight

    def new_state(self) -> HybridState:
        """Return the state before the first token."""
        return HybridState(self.layout)

    def admit(self, ids: Sequence[int]) -> None:
        """Check ids and encode new pictures (see ``network.Network.admit``)."""
        if self._sight is None:
            require_words(ids, self.vocab_size)
        else:
            require_whole(ids, self.vocab_size, self._sight)

    def run(self, work: Sequence[Work]) -> list[tuple[Tensor | None, State]]:
        """Run the passes that ``work`` asks for (see ``network.Network.run``)."""
        states = [settle(piece.state) for piece in work]
        kinds, time = self.model.config.layer_types, len(work[0].ids)
        seen = self._look(work, states)
        with torch.inference_mode(), self.layout.memory.passing():
            running = Pass(self.layout, kinds, states, time, seen)
            ids = torch.tensor([list(piece.ids) for piece in work], device=self.layout.device)
            runner = self.compiled or self.model
            hidden = runner.hidden(ids, running)
            after = [
                state if rows is None else replace(state, chain=rows.after(time))
                for state, rows in zip(
                    running.states(), self._follow(work, states, hidden), strict=True
                )
            ]
            if not any(piece.logits for piece in work):
                return [(None, state) for state in after]
            logits = runner.logits(hidden[:, -1])[:, : self.vocab_size].float()
            return list(zip(logits, after, strict=True))

    def all_logits(self, ids: Sequence[int], state: State) -> tuple[Tensor, State]:
        """Run ``ids`` after ``state``; return the logits ``[ids, vocab]`` after each, in float32,
        and the state. Raises ``MemoryFull``."""
        before = settle(state)
        seen = self._look([Work(ids, before)], [before])
        with torch.inference_mode(), self.layout.memory.passing():
            running = Pass(self.layout, self.model.config.layer_types, [before], len(ids), seen)
            given = torch.tensor([list(ids)], device=self.layout.device)
            runner = self.compiled or self.model
            logits = runner.logits(runner.hidden(given, running)[0])[:, : self.vocab_size]
            return logits.float(), running.states()[0]

    def _look(self, work: Sequence[Work], states: Sequence[HybridState]) -> list[Seen | None]:
        """Return what each piece of ``work`` needs beside its ids."""
        if self._sight is None:
            return [None] * len(work)
        return [
            look(piece.ids, state.length, state.shift, state.image, self._sight)
            for piece, state in zip(work, states, strict=True)
        ]

    def _follow(
        self, work: Sequence[Work], states: Sequence[HybridState], hidden: Iterable[Tensor]
    ) -> list[ChainRows | None]:
        """Let the MTP layer follow a pass over ``work`` from ``states``, whose hidden states
        ``[ids, hidden]`` these are."""
        mtp = self._mtp
        if mtp is None:
            return [None] * len(work)
        return [
            mtp.follow(state.chain, piece.ids, rows)
            for piece, state, rows in zip(work, states, hidden, strict=True)
        ]

    @property
    def verifies(self) -> int:
        """The most tokens of a sequence in ``verify``; 0 if the compiled path cannot verify."""
        return VERIFY_ROWS if isinstance(self.compiled, Stepping) else 0

    def verify(self, work: Sequence[Work]) -> list[tuple[Tensor, Trail]]:
        """Run several tokens of each sequence and keep the states after each."""
        runner = self.compiled
        assert isinstance(runner, Stepping)
        states = [settle(piece.state) for piece in work]
        times = [len(piece.ids) for piece in work]
        seen = self._look(work, states)
        with torch.inference_mode(), self.layout.memory.passing():
            kept = Rows.of(self.layout, runner.replay, sum(times), runner.trail_width)
            running = Pass(self.layout, self.model.config.layer_types, states, times, seen)
            ids = torch.tensor([i for piece in work for i in piece.ids])
            hidden = runner.rows(ids, running, trail=kept.trail)
            logits = runner.logits(hidden)[:, : self.vocab_size].float()
            edges = list(accumulate(times, initial=0))
            pieces = [hidden[start:end] for start, end in pairwise(edges)]
            followed = self._follow(work, states, pieces)
            return [
                (logits[start:end], HybridTrail(before, after, kept, start, rows))
                for (start, end), before, after, rows in zip(
                    pairwise(edges), states, running.states(), followed, strict=True
                )
            ]

    @property
    def guesses(self) -> bool:
        """True if the MTP layer can guess what comes next."""
        return self._mtp is not None

    @cached_property
    def guessable(self) -> Sequence[int]:
        """The ids that are guessed."""
        return [] if self._mtp is None else [i for i in self._mtp.ids if i < self.vocab_size]

    def chain(self, state: State) -> MtpChain | None:
        """Return what ``guess`` goes on from after ``state``; None if there is nothing."""
        return settle(state).chain if self._mtp is not None else None

    def saved_chain(self, state: State) -> SavedChain | None:
        """Return the MTP layer's memory as it is saved (see ``network.Guessing.saved_chain``)."""
        own = settle(state)
        if self._mtp is None or own.chain is None:
            return None
        with torch.inference_mode(), self.layout.memory.passing():
            return self._mtp.saved(own.chain, own.length)

    def guess(self, work: Sequence[tuple[MtpChain, int]]) -> list[tuple[Tensor, MtpChain]]:
        """Run the MTP layer over one id after each chain (see ``network.Guessing.guess``)."""
        mtp = self._mtp
        assert mtp is not None
        with torch.inference_mode(), self.layout.memory.passing():
            chains = mtp.guess(work)
            hidden = torch.cat([chain.hidden for chain in chains])
            logits = mtp.logits(hidden)[:, : len(self.guessable)].float()
            return list(zip(logits, chains, strict=True))

    def load_state(
        self, tensors: Mapping[str, Tensor], spans: Iterable[Mapping[str, Tensor]], length: int
    ) -> HybridState:
        """Rebuild a saved state (see ``network.Network.load_state``)."""
        saved = ChainLoader(tensors)
        with torch.inference_mode():
            state = HybridState.load(self.layout, saved.rest, saved.without(spans), length)
            if self._mtp is None or not length:
                return state
            chain = saved.chain(self._mtp.layout, self.model.config.hidden_size)
            return replace(state, chain=chain)
