"""The tensors of a folder of safetensors files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from model.checkpoint.expert_tensors import is_experts, pieces_of, stacked
from model.checkpoint.files import read_json, require_plain
from model.checkpoint.forms import FLOATS, StoredModule, identify
from model.checkpoint.stored import StoredTensor
from model.errors import CheckpointError

INDEX = "model.safetensors.index.json"
_PREFIXES = ("model.language_model.", "language_model.model.", "model.", "")
_HEADS = ("", "language_model.", "model.language_model.", "model.")
_TOP_LEVEL = ("lm_head.", "mtp.")
_SHARD = re.compile(r".*-(\d{5})-of-(\d{5})\.safetensors")
_CENTRED = re.compile(r"(.*layernorm|.*[qk]_norm|(mtp\.)?norm|mtp\.pre_fc_norm_\w+)\.weight")
"""Norms that are stored as a difference from one, except by MLX."""


class SafetensorsSource:
    """The tensors of the safetensors files in one folder, by the names in ``tensor_shapes``.

    Every header is read, because indexes leave tensors out. ``settings`` is the quantisation block
    of the configuration, empty if there is none.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.directory = directory
        self._opened: dict[Path, Any] = {}
        self._where = self._locate()
        self.files = tuple(sorted(set(self._where.values())))
        embedded = "embed_tokens."
        self._prefix = next(
            (p for p in _PREFIXES if any(n.startswith(p + embedded) for n in self._where)), "model."
        )
        self._parts: dict[str, list[str]] = defaultdict(list)
        for name in self._where:
            module, _, suffix = name.rpartition(".")
            self._parts[module].append(suffix)
        packing = str((settings or {}).get("checkpoint_format", ""))
        self._minus_one = packing != "gptq_v2"
        self._shifted = self._is_shifted()

    @property
    def has_mtp(self) -> bool:
        """Tell whether any tensor of the MTP layer is there."""
        return any(name.startswith(head + "mtp.") for name in self._where for head in _HEADS)

    def find(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """Return one tensor. Raises ``CheckpointError`` if it is missing or cannot be read."""
        full = self._full_name(name)
        if is_experts(name) and not name.endswith(".weight") and full not in self._where:
            return self._experts(full, name, shape)
        if not name.endswith(".weight"):
            return self._single(full, name, shape)
        module = full.removesuffix(".weight")
        if not self._parts.get(module):
            raise CheckpointError(f"{self.directory} lacks the tensor {full}; fetch it again")
        suffixes = self._parts[module]
        slices = {s: self._slice(f"{module}.{s}") for s in suffixes}
        kinds = {s: str(found.get_dtype()) for s, found in slices.items()}
        shapes = {s: tuple(found.get_shape()) for s, found in slices.items()}
        if len(shape) == 3 and shapes.get("weight") == (shape[0], shape[2], 1):
            shapes["weight"] = shape  # MLX puts the channels last
        if set(kinds) == {"weight"} and kinds["weight"] in FLOATS and shapes["weight"] != shape:
            raise self._wrong_shape(full, shapes["weight"], shape)

        def load(suffix: str) -> Tensor:
            found = self._load(f"{module}.{suffix}")
            return found.reshape(shape) if suffix == "weight" and len(shape) == 3 else found

        stored = identify(StoredModule(full, shape, kinds, shapes, load, minus_one=self._minus_one))
        if self._shifted and _CENTRED.fullmatch(name.rpartition("self_attn.")[2]):
            stored = _less_one(stored)
        return replace(stored, name=name)

    def _experts(self, full: str, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """Join experts that are stored one by one."""
        joined = pieces_of(name)
        folder, count = name.rpartition(".")[0], shape[0]
        top = full.rpartition(".")[0]
        if not any(f"{top}.{e}.{joined[0]}_proj" in self._parts for e in range(count)):
            raise CheckpointError(f"{self.directory} lacks the tensor {full}; fetch it again")
        if f"{top}.{count}.{joined[0]}_proj" in self._parts:
            raise CheckpointError(
                f"{top} in {self.directory} has more than the {count} experts of config.json"
            )
        each = (shape[1] // len(joined), shape[2])
        return stacked(
            name,
            shape,
            [
                tuple(self.find(f"{folder}.{e}.{p}_proj.weight", each) for p in joined)
                for e in range(count)
            ],
        )

    def has(self, full: str) -> bool:
        """Tell whether there is a tensor of the whole name ``full``."""
        return full in self._where

    def whole(self, full: str, shape: tuple[int, ...]) -> StoredTensor:
        """Return the tensor of the whole name ``full``, stored as floating point numbers.

        Raises ``CheckpointError`` if it is missing, of another shape, or stored otherwise.
        """
        return self._single(full, full, shape)

    def _single(self, full: str, name: str, shape: tuple[int, ...]) -> StoredTensor:
        if full not in self._where:
            raise CheckpointError(f"{self.directory} lacks the tensor {full}; fetch it again")
        found = self._slice(full)
        if tuple(found.get_shape()) != shape:
            raise self._wrong_shape(full, tuple(found.get_shape()), shape)
        if found.get_dtype() not in FLOATS:
            raise CheckpointError(f"{full} is stored as {found.get_dtype()}; fetch it again")
        tensor = self._load(full)
        return StoredTensor(name, FLOATS[found.get_dtype()], shape, {"": tensor}, tensor)

    def _wrong_shape(
        self, full: str, found: tuple[int, ...], shape: tuple[int, ...]
    ) -> CheckpointError:
        return CheckpointError(
            f"{full} in {self._where[full]} has shape {list(found)};"
            f" by config.json it must be {list(shape)}"
        )

    def _full_name(self, name: str) -> str:
        if not name.startswith(_TOP_LEVEL):
            return self._prefix + name
        module = name.rpartition(".")[0]
        return next((h for h in _HEADS if self._parts.get(h + module)), "") + name

    def _is_shifted(self) -> bool:
        """Tell whether MLX wrote the files: its convolutions have the channels last."""
        convolution = next((n for n in self._where if n.endswith("conv1d.weight")), None)
        if convolution is None:
            return False
        shape = self._slice(convolution).get_shape()
        return len(shape) == 3 and shape[2] == 1 and shape[1] > 1

    def _locate(self) -> dict[str, Path]:
        """Return the file of each tensor."""
        index = self.directory / INDEX
        listed: dict[str, Path] = {}
        if index.exists():
            listed = self._listed(index)
        files = sorted(set(listed.values()))
        others = [p for p in sorted(self.directory.glob("*.safetensors")) if p not in files]
        single = self.directory / "model.safetensors"
        if not index.exists() and single in others:
            others = [single, *(p for p in others if p != single and _is_extra(p))]
        if not files and not others:
            raise CheckpointError(
                f"{single} is missing; is {self.directory} a safetensors checkpoint?"
            )
        if not files:
            _require_all_shards(self.directory, others)
        where: dict[str, Path] = {}
        for file in [*files, *others]:
            where |= {name: file for name in self._names(file) if name not in where}
        for name, file in listed.items():
            if where.get(name) != file:
                raise CheckpointError(f"{file} lacks the tensor {name} that {index.name} lists")
        return where

    def _listed(self, index: Path) -> dict[str, Path]:
        given = read_json(index)
        try:
            entries = given["weight_map"]
            listed = {str(n): self.directory / Path(file).name for n, file in entries.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{index} is not a usable index: {error}; fetch it again"
            ) from error
        for file in sorted(set(listed.values())):
            if not file.exists():
                raise CheckpointError(f"{file} is missing, though {index.name} lists it; fetch it")
        return listed

    def _names(self, file: Path) -> list[str]:
        require_plain(file)
        try:
            self._opened[file] = safe_open(file, framework="pt").__enter__()  # type: ignore[no-untyped-call]
            return list(self._opened[file].keys())
        except (OSError, SafetensorError) as error:
            raise _damaged(file, error) from error

    def _slice(self, full: str) -> Any:
        return self._opened[self._where[full]].get_slice(full)

    def _load(self, full: str) -> Tensor:
        file = self._where[full]
        try:
            found: Tensor = self._opened[file].get_tensor(full)
        except (OSError, SafetensorError) as error:
            raise _damaged(file, error) from error
        return found


def _is_extra(file: Path) -> bool:
    """Tell whether a file beside ``model.safetensors`` belongs to it."""
    return file.name.startswith(("model_extra", "mtp", "extra"))


def _require_all_shards(directory: Path, files: list[Path]) -> None:
    names = {file.name for file in files}
    for file in files:
        numbered = _SHARD.fullmatch(file.name)
        if numbered is None:
            continue
        start = file.name[: numbered.start(1)]
        for number in range(1, int(numbered[2]) + 1):
            wanted = f"{start}{number:05d}-of-{numbered[2]}.safetensors"
            if wanted not in names:
                raise CheckpointError(f"{directory / wanted} is missing; fetch it")
        return


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} is truncated or damaged ({error}); fetch it again")


def _less_one(stored: StoredTensor) -> StoredTensor:
    return replace(stored, plain=stored.read().float() - 1)


def quantisation_settings(directory: Path) -> dict[str, Any]:
    """Return the quantisation block of a checkpoint, from wherever its maker put it."""
    config = read_json(directory / "config.json")
    blocks: list[Any] = []
    if isinstance(config, Mapping):
        for level in (config, config.get("text_config")):
            if isinstance(level, Mapping):
                keys = ("quantization_config", "compression_config", "quantization")
                blocks += [level.get(key) for key in keys]
    for name in ("hf_quant_config.json", "quantization_config.json"):
        if (directory / name).exists():
            blocks.append(read_json(directory / name))
    return next((dict(b) for b in blocks if isinstance(b, Mapping) and b), {})
