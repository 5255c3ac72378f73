"""One loaded model, and the sessions it runs."""

from __future__ import annotations

from pathlib import Path

import torch

from model.config import ModelConfig
from model.errors import CheckpointError
from model.hybrid import HybridModel, HybridNetwork
from model.sampling import SamplingParams, read_generation_config
from model.session import Network, Session
from model.weights import fingerprint, load_tensors, parameter_count

_SMALL = 100_000_000


class Engine:
    """A network with its configuration; makes and resumes sessions.

    ``name`` is what the user called the model, ``generation`` how its makers sample from it.
    """

    def __init__(
        self, network: Network, config: ModelConfig, *, name: str, generation: SamplingParams
    ) -> None:
        self.network = network
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
    ) -> Engine:
        """Load the checkpoint in ``directory``. Raises ``CheckpointError``.

        ``dtype`` is what to compute in: by default that of the checkpoint, except on a CPU for
        models under 100 million parameters, which run faster in float32. ``vocab_limit`` is how
        many ids the tokenizer knows; the padding beyond them is then never sampled.
        """
        config = ModelConfig.load(directory)
        if vocab_limit is not None and vocab_limit > config.vocab_size:
            raise CheckpointError(
                f"the tokenizer in {directory} has {vocab_limit} ids, the model"
                f" {config.vocab_size}; they are of different checkpoints: fetch it again"
            )
        generation = read_generation_config(directory)
        tensors = load_tensors(directory, config)
        if dtype is None:
            small = device == "cpu" and parameter_count(config) < _SMALL
            dtype = torch.float32 if small else config.dtype
        identity = fingerprint(config, tensors, dtype)
        with torch.inference_mode():
            moved = {key: tensor.to(device) for key, tensor in tensors.items()}
            model = HybridModel.build(config, moved, dtype)
        network = HybridNetwork(model, fingerprint=identity, vocab_limit=vocab_limit)
        return cls(network, config, name=name, generation=generation)

    @property
    def fingerprint(self) -> str:
        """Equal for two engines whose saved sessions are interchangeable."""
        return self.network.fingerprint

    @property
    def context_length(self) -> int:
        """The most tokens a session may hold."""
        return self.network.context_length

    def session(self, *, seed: int = 0) -> Session:
        """A new, empty session. Equal seeds draw equal random numbers."""
        return Session(self.network, seed=seed)

    def resume(self, directory: Path) -> Session:
        """The session that ``Session.save`` left in ``directory``. Raises ``StateError``."""
        return Session.resume(self.network, directory)
