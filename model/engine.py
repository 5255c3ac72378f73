"""One loaded model, and the sessions it runs."""

from __future__ import annotations

from pathlib import Path

import torch

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.config import ModelConfig
from model.checkpoint.quantize import Quantize
from model.checkpoint.weights import parameter_count
from model.errors import CheckpointError, MemoryFull
from model.hybrid.cpu import NativeModel
from model.hybrid.gpu import on_device
from model.hybrid.model import HybridModel, HybridNetwork
from model.network import Network
from model.placing import place
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.session import Session
from model.state.memory import StateMemory, default_limit

_SMALL = 100_000_000


class Engine:
    """A network with its configuration; makes and resumes sessions, which threads may share.

    ``name`` is what the user called the model, ``generation`` how its makers sample from it.
    """

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        *,
        name: str,
        generation: SamplingParams,
        drafts: bool = True,
    ) -> None:
        self.network = network
        self.scheduler = Scheduler(network, drafts=drafts)
        self.config = config
        self.name = name
        self.generation = generation

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        name: str,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        vocab_limit: int | None = None,
        kv_memory: int | None = None,
        swap: Path | None = None,
        quantize: Quantize = "none",
        native: bool = True,
        drafts: bool = True,
    ) -> Engine:
        """Load the checkpoint in ``directory``. Raises ``CheckpointError``, ``MemoryFull``.

        ``dtype`` is what to compute in: by default that of the checkpoint, except on a CPU for
        models under 100 million parameters, which run faster in float32. ``vocab_limit`` is how
        many ids the tokenizer knows; the padding beyond them is then never sampled. ``kv_memory``
        is how many bytes the state of all sessions may take together, by default half of what is
        free once the weights are loaded; what exceeds it is parked in the folder ``swap`` (by
        default that for temporary files). ``quantize`` rounds the matrices to int8 or int4 by
        groups (see ``model.checkpoint.quantize``). On a CPU the compiled path runs the model where
        it can and ``native`` does not forbid it. ``drafts`` says whether sessions may try several
        tokens in a pass where it pays (see ``docs/speculation.md``); it changes no result.
        """
        checkpoint = Checkpoint.open(directory)
        config = checkpoint.config
        if vocab_limit is not None and vocab_limit > config.vocab_size:
            raise CheckpointError(
                f"the tokenizer in {directory} has {vocab_limit} ids, the model"
                f" {config.vocab_size}; they are of different checkpoints: fetch it again"
            )
        if dtype is None:
            few = device == "cpu" and parameter_count(config) < _SMALL
            dtype = torch.float32 if few else config.dtype
        with torch.inference_mode():
            placed = place(
                checkpoint, dtype, torch.device(device), quantize=quantize, native=native
            )
            model = HybridModel.build(config, placed.tensors, dtype, placed.quantized)
        limit = default_limit(model.embedding.device) if kv_memory is None else kv_memory
        network = HybridNetwork(
            model,
            fingerprint=placed.fingerprint,
            vocab_limit=vocab_limit,
            memory=StateMemory(limit, swap=swap),
            compiled=NativeModel(model) if placed.compiled else on_device(model),
        )
        # A pass reads one slot and writes another.
        least = 2 * network.layout.slot_bytes + network.layout.page_bytes
        if limit < least:
            raise MemoryFull(
                f"one session of {name} needs at least {least / 2**20:,.1f} MiB of state; "
                f"kv_memory (--kv-memory) allows {limit / 2**20:,.1f} MiB"
            )
        return cls(network, config, name=name, generation=checkpoint.generation, drafts=drafts)

    @property
    def fingerprint(self) -> str:
        """Equal for two engines whose saved sessions are interchangeable."""
        return self.network.fingerprint

    @property
    def context_length(self) -> int:
        """The most tokens a session may hold."""
        return self.network.context_length

    def session(self, *, seed: int = 0) -> Session:
        """Open an empty session. Equal seeds draw equal random numbers."""
        return Session(self.scheduler, seed=seed)

    def resume(self, directory: Path) -> Session:
        """Bring back the session that ``Session.save`` left in ``directory``.

        Raises ``StateError`` if it cannot be used, ``MemoryFull`` if there is no room for it.
        """
        return Session.resume(self.scheduler, directory)
