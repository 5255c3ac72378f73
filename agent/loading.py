"""Loading a checkpoint: the weights and the way it writes conversations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from model import hub
from model.chat import ChatFormat
from model.engine import Engine
from model.tokenizer import Tokenizer
from model.weights import parameter_count

SMALL_MODEL = 50_000_000
"""Parameters below which one thread decodes fastest."""


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint ready to run: weights and the way it writes conversations."""

    engine: Engine
    chat: ChatFormat


def load_model(name: str) -> LoadedModel:
    """Load a checkpoint by directory, hub name, or ``embedded``. Raises ``CheckpointError``."""
    directory = hub.resolve(name)
    tokenizer = Tokenizer.load(directory)
    chat = ChatFormat.load(directory, tokenizer)
    engine = Engine.load(directory, name=name, vocab_limit=tokenizer.vocab_size)
    if parameter_count(engine.config) < SMALL_MODEL:
        # Waking a second thread for matrices of this size costs more than it brings.
        torch.set_num_threads(1)
    return LoadedModel(engine, chat)
