"""A checkpoint opened: its configuration, its sampling, and its tensors, nothing of them copied."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.checkpoint.config import ModelConfig, read_generation_config
from model.checkpoint.gguf.header import open_files
from model.checkpoint.gguf.metadata import is_gguf, read_config, read_sampling
from model.checkpoint.gguf.source import GgufSource
from model.checkpoint.safetensors_source import SafetensorsSource, quantisation_settings
from model.checkpoint.stored import StoredTensor, TensorSource, stored_parts
from model.checkpoint.weights import fingerprint, open_tensors
from model.sampling import SamplingParams


@dataclass(frozen=True)
class Checkpoint:
    """The folder or file at ``path``, judged and mapped."""

    path: Path
    config: ModelConfig
    generation: SamplingParams
    tensors: dict[str, StoredTensor]
    files: tuple[Path, ...]

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Judge the configuration, then find the tensors. Raises ``CheckpointError``."""
        source: TensorSource
        if is_gguf(path):
            opened = open_files(path)
            config = read_config(opened)
            generation = read_sampling(opened[0])
            source = GgufSource(opened, config)
        else:
            config = ModelConfig.load(path)
            generation = read_generation_config(path)
            source = SafetensorsSource(path, quantisation_settings(path))
        if source.has_mtp and not config.mtp_num_hidden_layers:
            config = replace(config, mtp_num_hidden_layers=1)
        return cls(path, config, generation, open_tensors(source, config), source.files)

    def fingerprint(self, dtype: torch.dtype) -> str:
        """Hash the stored tensors and the dtype computed in (see ``weights.fingerprint``)."""
        return fingerprint(self.config, stored_parts(self.tensors.values()), dtype)

    def forms(self) -> dict[str, int]:
        """Return the stored bytes by form, the largest first."""
        bytes_of: dict[str, int] = {}
        for tensor in self.tensors.values():
            bytes_of[tensor.form] = bytes_of.get(tensor.form, 0) + tensor.nbytes
        return dict(sorted(bytes_of.items(), key=lambda item: -item[1]))


def judge(path: Path) -> ModelConfig:
    """Return the configuration of the checkpoint at ``path``, without its tensors.

    Raises ``CheckpointError`` if it is one that cannot be run.
    """
    return read_config(open_files(path)) if is_gguf(path) else ModelConfig.load(path)
