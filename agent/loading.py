"""Loading a checkpoint: the weights and the way it writes conversations."""

from __future__ import annotations

from dataclasses import dataclass

from model import hub
from model.chat import ChatFormat
from model.engine import Engine
from model.tokenizer import Tokenizer


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
    return LoadedModel(engine, chat)
