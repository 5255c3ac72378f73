"""One loaded model, and the sessions it runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.config import ModelConfig
from model.checkpoint.quantize import Quantize
from model.checkpoint.rope_settings import stretched
from model.checkpoint.weights import parameter_count
from model.device import ChosenDevice, ExpertPlace, choose_device, longest_context
from model.drafting.drafts import Drafts
from model.errors import CheckpointError, MemoryFull
from model.hybrid.cpu import NativeModel
from model.hybrid.cpu_mtp import NativeMtp
from model.hybrid.gpu import on_device
from model.hybrid.model import Compiled, HybridModel, HybridNetwork
from model.hybrid.mtp import GuessLayer
from model.kv_form import KvForm, choose_kv
from model.network import Network
from model.placing import PlacedWeights, place
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.session import Session
from model.state.memory import StateMemory, default_limit
from model.state.pages import PAGE, Layout
from model.vision.eyes import Eyes
from model.vision.tower import open_tower

_SMALL = 100_000_000


@dataclass(frozen=True)
class Placement:
    """A description of how a checkpoint was loaded; sizes are in bytes.

    ``forms`` are the stored bytes by form. ``weight_bytes`` are held as the model runs,
    ``native_bytes`` of them in fewer bits; the rest is floats in ``computed_in``. ``converted`` are
    the bytes held of what was turned into floats at load, by stored form. ``state_bytes`` is
    what a session takes without keys and values, and ``longest_context`` the tokens that one
    session may hold in the memory for state.
    """

    device: str
    reason: str
    computed_in: str
    forms: Mapping[str, int]
    files: tuple[Path, ...]
    weight_bytes: int
    native_bytes: int
    converted: Mapping[str, int]
    state_bytes: int
    kv_bytes_per_1000: int
    longest_context: int
    kv: str
    kv_reason: str

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        chosen: ChosenDevice,
        placed: PlacedWeights,
        layout: Layout,
        limit: int,
        context_length: int,
        kv_reason: str,
    ) -> Placement:
        """Sum up how ``checkpoint`` was loaded, with ``limit`` bytes for state."""
        return cls(
            device=str(chosen.device),
            reason=chosen.reason,
            computed_in=str(layout.dtype).removeprefix("torch."),
            forms=checkpoint.forms(),
            files=checkpoint.files,
            weight_bytes=placed.nbytes,
            native_bytes=sum(part.nbytes for part in placed.quantized.values()),
            converted=placed.converted,
            state_bytes=layout.slot_bytes,
            kv_bytes_per_1000=round(layout.page_bytes * 1000 / PAGE),
            longest_context=longest_context(layout, limit, context_length),
            kv=str(layout.kv).removeprefix("torch."),
            kv_reason=kv_reason,
        )


class Engine:
    """A network with its configuration; makes and resumes sessions, which threads may share.

    ``name`` is what the user called the model, ``generation`` how its makers sample from it, and
    ``eyes`` are what it sees pictures with, if it can.
    """

    def __init__(
        self,
        network: Network,
        config: ModelConfig,
        *,
        name: str,
        generation: SamplingParams,
        drafts: Drafts = "auto",
        eyes: Eyes | None = None,
    ) -> None:
        self.network = network
        self.eyes = eyes
        self.scheduler = Scheduler(network, drafts=drafts)
        self.config = config
        self.name = name
        self.generation = generation
        self.placement: Placement | None = None

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        name: str,
        dtype: torch.dtype | None = None,
        device: str = "auto",
        vocab_limit: int | None = None,
        context: int | None = None,
        kv_memory: int | None = None,
        swap: Path | None = None,
        quantize: Quantize = "none",
        native: bool = True,
        drafts: Drafts = "auto",
        mmproj: Path | None = None,
        experts: ExpertPlace = "auto",
        kv: KvForm = "auto",
    ) -> Engine:
        """Load the checkpoint in ``directory``. Raises ``CheckpointError``, ``MemoryFull``.

        ``dtype`` is what to compute in: by default that of the checkpoint, except on a CPU for
        models under 100 million parameters, which run faster in float32, and for float16, which
        its kernels lack. ``device`` is auto, cpu, cuda or cuda:N. ``vocab_limit`` is how
        many ids the tokenizer knows; the padding beyond them is then never sampled. ``context`` is
        the most tokens of a session, by default what the checkpoint allows; more than that
        stretches its positions by YaRN. ``kv_memory``
        is how many bytes the state of all sessions may take together, by default half of what is
        free once the weights are loaded; what exceeds it is parked in the folder ``swap`` (by
        default that for temporary files). ``quantize`` rounds the matrices to int8 or int4 by
        groups (see ``model.checkpoint.quantize``). On a CPU the compiled path runs the model where
        it can and ``native`` does not forbid it. ``drafts`` says where sessions take tokens from
        that they try in a pass where it pays (see ``docs/speculation.md``); it changes no result.
        ``mmproj`` is a GGUF file with a vision tower; without, the checkpoint's own is taken.
        ``experts`` says where those of a mixture of experts are when a GPU runs the model: ``gpu``,
        ``cpu`` (host memory, computed there), or by what fits.
        ``kv`` is the form that keys and values are kept in (see ``model.kv_form``).
        """
        checkpoint = Checkpoint.open(directory)
        config = _with_context(checkpoint.config, context)
        if vocab_limit is not None and vocab_limit > config.vocab_size:
            raise CheckpointError(
                f"the tokenizer in {directory} has {vocab_limit} ids, the model"
                f" {config.vocab_size}; they are of different checkpoints: fetch it again"
            )
        tower = open_tower(directory, config, mmproj)
        chosen = choose_device(device, checkpoint, quantize, experts)
        dtype = dtype or _computed_in(checkpoint, chosen.device)
        with torch.inference_mode():
            placed = place(
                checkpoint,
                dtype,
                chosen.device,
                quantize=quantize,
                native=native,
                host_experts=chosen.host_experts,
            )
            model = HybridModel.build(
                config, placed.tensors, dtype, placed.quantized, placed.embedding
            )
        limit = default_limit(model.embedding.device) if kv_memory is None else kv_memory
        memory = StateMemory(limit, swap=swap)
        form = choose_kv(kv, Layout.of(config, model.embedding, memory), limit, context)
        compiled = _compiled(model, placed, chosen, form.dtype)
        base = _fingerprint(placed.fingerprint, config, checkpoint.config)
        eyes = None if tower is None else Eyes(tower, dtype, chosen.device)
        network = HybridNetwork(
            model,
            fingerprint=base if tower is None else tower.fingerprint(base, dtype),
            vocab_limit=vocab_limit,
            memory=memory,
            kv=form.dtype,
            compiled=compiled,
            mtp=_guess_layer(model, compiled, drafts),
            sight=eyes,
        )
        _require_room(name, network.layout, limit, context)
        sampling = checkpoint.generation
        engine = cls(network, config, name=name, generation=sampling, drafts=drafts, eyes=eyes)
        engine.placement = Placement.of(
            checkpoint, chosen, placed, network.layout, limit, config.context_length, form.reason
        )
        return engine

    @property
    def fingerprint(self) -> str:
        """Equal for two engines whose saved sessions are interchangeable."""
        return self.network.fingerprint

    @property
    def state_form(self) -> str:
        """Equal for two engines whose states have the same bits: those with another form of keys
        and values have other bits, and are interchangeable all the same."""
        placed = self.placement
        eight = placed is not None and placed.kv != placed.computed_in
        return f"{self.fingerprint} {placed.kv}" if placed and eight else self.fingerprint

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


def _guess_layer(
    model: HybridModel, compiled: Compiled | None, drafts: Drafts
) -> GuessLayer | None:
    """Return the model's MTP layer, ready to run; None without one, or where nothing verifies."""
    if model.mtp is None or drafts not in ("auto", "mtp") or not isinstance(compiled, NativeModel):
        return None
    return NativeMtp(compiled)


def _compiled(
    model: HybridModel, placed: PlacedWeights, chosen: ChosenDevice, kv: torch.dtype
) -> Compiled | None:
    """Return what runs ``model`` faster than torch, if anything can."""
    if placed.compiled:
        return NativeModel(model)
    return on_device(model, kv, host_experts=chosen.host_experts)


def _with_context(config: ModelConfig, wanted: int | None) -> ModelConfig:
    """Return ``config`` for sessions of ``wanted`` tokens. Raises ``CheckpointError``."""
    if wanted is None:
        return config
    yarn, length = stretched(config.yarn, config.context_length, wanted)
    return replace(config, yarn=yarn, context_length=length)


def _fingerprint(stored: str, config: ModelConfig, given: ModelConfig) -> str:
    """Return the fingerprint of a network: that of its weights, and of positions that differ from
    the checkpoint's."""
    if config.yarn == given.yarn:
        return stored
    return hashlib.sha256(f"{stored} {config.yarn}".encode()).hexdigest()


def _require_room(name: str, layout: Layout, limit: int, context: int | None) -> None:
    """Raise ``MemoryFull`` unless one session, of ``context`` tokens if given, fits ``limit``
    bytes."""
    # A pass reads one slot and writes another.
    least = 2 * layout.slot_bytes + layout.page_bytes
    if limit < least:
        raise MemoryFull(
            f"one session of {name} needs at least {least / 2**20:,.1f} MiB of state; "
            f"kv_memory (--kv-memory) allows {limit / 2**20:,.1f} MiB"
        )
    fits = longest_context(layout, limit, context or 0)
    if context is not None and fits < context:
        raise MemoryFull(
            f"a context of {context:,} tokens does not fit the {limit / 2**30:,.1f} GiB that state"
            f" may take (--kv-memory); at most {fits:,} tokens of {name} do (--context)"
        )


def _computed_in(checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """Return the dtype that a checkpoint computes in on a device where nobody says."""
    given = checkpoint.config.dtype
    if device.type != "cpu":
        return given
    if parameter_count(checkpoint.config) < _SMALL:
        return torch.float32
    if given == torch.float16:
        plain = all(stored.plain is not None for stored in checkpoint.tensors.values())
        return torch.float32 if plain else torch.bfloat16
    return given
