"""One loaded model, and the sessions it runs."""

from __future__ import annotations

from pathlib import Path

from model.config import ModelConfig
from model.sampling import SamplingParams
from model.session import Network, Session


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
