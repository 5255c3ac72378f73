"""The things that the sessions of one process share: models, the store, the client's abilities."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import AgentError
from agent.events import Listener
from agent.loading import LoadedModel, load_for
from agent.run.bookkeeping import IDLE
from agent.run.build import with_image
from agent.run.resume import stored_settings
from agent.sessions.store import SavedSession, SessionStore
from agent.settings.load import load_settings
from agent.settings.table import Settings
from agent.settings.variables import old_variable_lines
from model.checkpoint import hub as checkpoints
from sandboxes.paths import Owner
from sandboxes.prune import prune

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Abilities:
    """The abilities that the client said it has."""

    reads: bool = False
    writes: bool = False
    terminals: bool = False


@dataclass
class Hub:
    """The shared things, used from several threads.

    ``flags`` are the command line's, over all configuration.
    """

    flags: Mapping[str, Any]
    store: SessionStore = field(default_factory=SessionStore)
    abilities: Abilities = field(default_factory=Abilities)
    _models: dict[str, LoadedModel] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _tidied: bool = False

    def prepare(self) -> None:
        """Tidy up, and load the model that is used by default."""
        for line in old_variable_lines():
            _log.warning(line)
        self.tidy()
        try:
            self.model(load_settings(self.flags).model)
        except Exception as error:  # whoever opens a session hears of it
            _log.warning("the model could not be loaded ahead: %s", error)

    def tidy(self) -> None:
        """Clear away what killed processes left, once; sessions can be opened afterwards.

        It holds each killed session for a moment, so nobody else of this process may want one.
        """
        with self._lock("tidy"):
            if self._tidied:
                return
            self._tidied = True
            self.store.reap()
            for saved in self.store.sessions():
                owner = Owner.parse(saved.info.owner)
                if saved.status == IDLE and (owner is None or owner.is_gone()):
                    with suppress(AgentError, OSError):
                        self.store.remove(saved.id)
            for line in dict.fromkeys(prune()):
                _log.info("removed %s, left by a run that was killed", line)

    def settings(self, folder: Path) -> Settings:
        """Return the settings for a new session. Raises ``ConfigError``."""
        return load_settings(self.flags, folder)

    def stored(self, saved: SavedSession) -> Settings:
        """Return the settings for a saved session. Raises ``StoreError``, ``ConfigError``."""
        return stored_settings(saved, self.flags)

    def with_image(self, settings: Settings, repo: Path, listen: Listener) -> Settings:
        """Return ``settings`` with the sandbox's image, built once if need be.

        ``listen`` hears of the building. Raises ``SandboxError``.
        """
        with self._lock("image"):
            return with_image(settings, listen, repo)

    def model(self, name: str) -> LoadedModel:
        """Return the checkpoint, loaded once. Raises ``ModelError``."""
        with self._lock(f"model {name}"):
            if name not in self._models:
                own = load_settings(self.flags)
                self._models[name] = load_for(own, name)
            return self._models[name]

    def model_names(self) -> list[str]:
        """Return the names of the checkpoints on this machine."""
        with self._lock("names"):
            if not self._names:
                self._names = [found.name for found in checkpoints.list_models()]
            return self._names

    def _lock(self, name: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())
