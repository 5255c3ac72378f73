"""Loading a checkpoint: the weights and the way it writes conversations."""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agent.settings.table import Settings
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.checkpoint import hub
from model.checkpoint.checkpoint import judge
from model.checkpoint.gguf.text import template_name, text_folder
from model.checkpoint.quantize import Quantize
from model.checkpoint.weights import active_parameter_count, parameter_count
from model.device import ExpertPlace
from model.drafting.drafts import Drafts
from model.engine import Engine
from model.kv_form import KvForm
from sandboxes.paths import state_dir

SMALL_MODEL = 50_000_000
"""Parameters below which one thread decodes fastest."""


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint ready to run: weights and the way it writes conversations.

    ``beginning`` is held while a prompt's beginning is run that is not stored yet: whoever else
    needs it waits and takes what was stored.
    """

    engine: Engine
    chat: ChatFormat
    beginning: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def prints(self) -> tuple[str, str]:
        """The fingerprints of the weights and of the tokenizer."""
        return self.engine.fingerprint, self.chat.tokenizer_fingerprint


def load_model(
    name: str,
    kv_memory: int | None = None,
    quantize: Quantize = "none",
    drafts: Drafts = "auto",
    device: str = "auto",
    context: int | None = None,
    experts: ExpertPlace = "auto",
    kv: KvForm = "auto",
    mmproj: str | None = None,
) -> LoadedModel:
    """Load a checkpoint by directory, hub name, or ``embedded``.

    ``kv_memory`` is how many MiB the state of all sessions may take (None: half of what is free),
    ``quantize`` how the weights are rounded, ``drafts`` where tokens come from that are tried
    before they are sampled, ``device`` where it runs (auto, cpu, cuda, cuda:N),
    ``context`` the most tokens of a session, ``experts`` where those of a mixture of experts are
    beside a GPU, ``kv`` how keys and values are kept, ``mmproj`` a GGUF file with a vision tower.
    Raises ``CheckpointError``, and ``MemoryFull`` if not even one session fits.
    """
    path = hub.resolve(name)
    # Before the tokenizer: of a model that cannot be run no file is worth fetching again.
    judge(path)
    folder = text_folder(path)
    tokenizer = Tokenizer.load(folder)
    chat = ChatFormat.load(folder, tokenizer)
    engine = Engine.load(
        path,
        name=name,
        vocab_limit=tokenizer.vocab_size,
        kv_memory=None if kv_memory is None else kv_memory << 20,
        swap=state_dir() / "parked",
        quantize=quantize,
        drafts=drafts,
        device=device,
        context=context,
        experts=experts,
        kv=kv,
        mmproj=None if mmproj is None else Path(mmproj).expanduser(),
    )
    for note in _notes(engine):
        sys.stderr.write(f"note: {note}\n")
    placement = engine.placement
    if placement is not None and (torch.cuda.is_available() or device != "auto"):
        sys.stderr.write(f"the model runs on {placement.device}: {placement.reason}\n")
    if parameter_count(engine.config) < SMALL_MODEL:
        # Waking a second thread for matrices of this size costs more than it brings.
        engine.scheduler.threads = 1
    return LoadedModel(engine, chat.seeing(engine.eyes))


def _notes(engine: Engine) -> list[str]:
    """Return what the user should know of a model that was loaded."""
    config = engine.config
    notes = [config.note] if config.note else []
    if engine.placement is not None and engine.placement.kv_reason:
        notes.append(engine.placement.kv_reason)
    if config.yarn is not None:
        notes.append(
            f"the model's positions are stretched {config.yarn.factor:g} times (YaRN); that changes"
            f" short texts too, so use it only beyond {config.yarn.original:,} tokens"
        )
    return notes


def load_for(settings: Settings, name: str | None = None) -> LoadedModel:
    """Load the checkpoint of ``settings``, or ``name``, as they say; raises as ``load_model``."""
    return load_model(
        name or settings.model,
        settings.kv_memory,
        settings.quantize,
        settings.drafts,
        settings.device,
        settings.context,
        settings.experts,
        settings.kv,
        settings.mmproj,
    )


def describe_model(
    name: str, quantize: Quantize = "none", device: str = "auto", context: int | None = None
) -> dict[str, Any]:
    """Load the checkpoint called ``name`` and describe it. Raises ``CheckpointError``."""
    path = hub.resolve(name)
    loaded = load_model(name, quantize=quantize, device=device, context=context)
    config, engine = loaded.engine.config, loaded.engine
    linear = config.layer_types.count("linear_attention")
    placed = engine.placement
    assert placed is not None
    return {
        "name": name,
        "path": str(path),
        "size_bytes": sum(file.stat().st_size for file in placed.files),
        "format": ", ".join(f"{form} {size / 1e6:,.1f} MB" for form, size in placed.forms.items()),
        "device": f"{placed.device} ({placed.reason})",
        "computed_in": placed.computed_in,
        "weight_bytes": placed.weight_bytes,
        "integer_weight_bytes": placed.native_bytes,
        "converted": ", ".join(
            f"{form} into {size / 1e6:,.1f} MB of {placed.computed_in}"
            for form, size in placed.converted.items()
        )
        or "nothing",
        "state_bytes_per_session": placed.state_bytes,
        "keys_and_values": placed.kv,
        "kv_bytes_per_1000_tokens": placed.kv_bytes_per_1000,
        "longest_context": placed.longest_context,
        "chat_template": template_name(text_folder(path)),
        "fingerprint": engine.fingerprint,
        "parameters": parameter_count(config),
        "active_parameters": active_parameter_count(config),
        "layers": config.num_hidden_layers,
        "deltanet_layers": linear,
        "attention_layers": config.num_hidden_layers - linear,
        "mtp_layers": config.mtp_num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocabulary": config.vocab_size,
        "context_length": engine.context_length,
        "dtype": str(config.dtype).removeprefix("torch."),
        "temperature": engine.generation.temperature,
        "top_p": engine.generation.top_p,
        "top_k": engine.generation.top_k,
    }
