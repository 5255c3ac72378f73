"""A checkpoint opened: its configuration, its sampling, and its tensors, nothing of them copied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from model.checkpoint.config import ModelConfig, read_generation_config
from model.checkpoint.source import StoredTensor, stored_parts
from model.checkpoint.weights import fingerprint, open_tensors
from model.sampling import SamplingParams


@dataclass(frozen=True)
class Checkpoint:
    """The folder or file at ``path``, judged and mapped."""

    path: Path
    config: ModelConfig
    generation: SamplingParams
    tensors: dict[str, StoredTensor]

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Judge the configuration, then find the tensors. Raises ``CheckpointError``."""
        config = ModelConfig.load(path)
        generation = read_generation_config(path)
        return cls(path, config, generation, open_tensors(path, config))

    def fingerprint(self, dtype: torch.dtype) -> str:
        """Hash the stored tensors and the dtype computed in (see ``weights.fingerprint``)."""
        return fingerprint(self.config, stored_parts(self.tensors.values()), dtype)

    def forms(self) -> dict[str, int]:
        """Return the stored bytes by form, the largest first."""
        bytes_of: dict[str, int] = {}
        for tensor in self.tensors.values():
            bytes_of[tensor.form] = bytes_of.get(tensor.form, 0) + tensor.nbytes
        return dict(sorted(bytes_of.items(), key=lambda item: -item[1]))
