"""Quantise a checkpoint once, keep the result in the user's cache, and map it ever after.

There is one file for each checkpoint and form. It carries a stamp of its source and a checksum of
each matrix; a file with another stamp (the checkpoint or the form changed) is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kernels import storage
from kernels.backend import KernelError
from kernels.linear import INT8, QuantizedWeight, quantize
from kernels.linear.rounding import LEVELS, group_for, span_for
from model.checkpoint.config import ModelConfig, head_name
from model.errors import CheckpointError

Quantize = Literal["none", "int8", "int4"]
BITS: Mapping[Quantize, int] = {"int8": 8, "int4": 4}
_PARTS = {8: ("", ".scales"), 4: ("", ".scales", ".tops")}
"""Suffixes of the tensors of a matrix in the file."""
_DTYPES = {torch.uint8: "U8", torch.int8: "I8", torch.bfloat16: "BF16"}
_DRAFT = "draft-"
_MTP_BITS = 8
"""The MTP layer is small, and its guesses had better be right."""
_FORMAT = "4"
_ALIGN = 64
_LEFT_AFTER_S = 3600.0
"""Age after which a file that was begun and not finished belongs to a process that was killed."""
MOST_CACHE_BYTES = 256 << 30
"""The size beyond which the files that were used longest ago are removed."""


def groups(config: ModelConfig) -> Iterator[tuple[str, ...]]:
    """Yield the matrices that are quantised, grouped as they are joined.

    Left out are the gates' inputs of DeltaNet layers, the routers and the gates of shared experts,
    the embedding, and the MTP layer (see ``mtp_groups``). A stack of experts is one matrix, expert
    below expert.
    """
    for index, kind in enumerate(config.layer_types):
        layer = f"layers.{index}."
        if kind == "full_attention":
            yield tuple(f"{layer}self_attn.{part}_proj.weight" for part in ("q", "k", "v"))
            yield (f"{layer}self_attn.o_proj.weight",)
        else:
            yield tuple(f"{layer}linear_attn.in_proj_{part}.weight" for part in ("qkv", "z"))
            yield (f"{layer}linear_attn.out_proj.weight",)
        mlp = f"{layer}mlp."
        if config.experts is not None:
            yield (f"{mlp}experts.gate_up_proj",)
            yield (f"{mlp}experts.down_proj",)
            mlp += "shared_expert."
        yield tuple(f"{mlp}{part}_proj.weight" for part in ("gate", "up"))
        yield (f"{mlp}down_proj.weight",)
    yield (head_name(config),)


def mtp_groups(config: ModelConfig) -> Iterator[tuple[str, ...]]:
    """Yield the matrices of the MTP layer as they are joined; ``--quantize`` takes 8 bits."""
    if config.mtp_num_hidden_layers:
        layer = "mtp.layers.0."
        yield ("mtp.fc.weight",)
        yield tuple(f"{layer}self_attn.{part}_proj.weight" for part in ("q", "k", "v"))
        yield (f"{layer}self_attn.o_proj.weight",)
        yield tuple(f"{layer}mlp.{part}_proj.weight" for part in ("gate", "up"))
        yield (f"{layer}mlp.down_proj.weight",)


def cache_dir() -> Path:
    """Return the folder of quantised weights. It may not exist."""
    return storage.cache_dir() / "quantized"


def cache_file(directory: Path, mode: Quantize) -> Path:
    """Return the file that holds the quantised weights of the checkpoint in ``directory``."""
    name = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:16]
    return cache_dir() / f"{name}-{mode}.safetensors"


def quantized_weights(
    directory: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    mode: Quantize,
    identity: str,
) -> dict[str, QuantizedWeight]:
    """Return the matrices of ``groups`` and ``mtp_groups`` quantised, each under its first name,
    from the cache.

    ``tensors`` are those of the checkpoint, ``identity`` tells them from others. Raises
    ``CheckpointError`` if a matrix cannot be quantised. Where the cache cannot be written the
    weights are quantised for this process alone.
    """
    bits = BITS[mode]
    stamp = _stamp(directory, mode, identity)
    try:
        shapes = _shapes(config, tensors, bits)
    except KernelError as error:
        raise CheckpointError(str(error)) from error
    file = cache_file(directory, mode)
    found = _read(file, stamp, shapes, bits)
    if found is not None:
        return found
    taken = list(_taken(config, tensors))
    made = ((names[0], _quantized(names, tensors, bits)) for names in taken)
    try:
        _write(file, stamp, shapes, made)
    except OSError:
        return {names[0]: _quantized(names, tensors, bits) for names in taken}
    found = _read(file, stamp, shapes, bits)
    if found is None:
        raise CheckpointError(f"{file} cannot be read back; delete it and try again")
    return found


def _stamp(directory: Path, mode: Quantize, identity: str) -> str:
    """Hash the identity, and the size and age of the files that it samples."""
    digest = hashlib.sha256(repr((_FORMAT, mode, identity)).encode())
    found = directory.glob("*.safetensors") if directory.is_dir() else [directory]
    for path in sorted(found):
        stat = path.stat()
        digest.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()


Shapes = dict[str, tuple[int, int, int]]
"""Outputs, inputs and group of each quantised matrix."""


def _taken(config: ModelConfig, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, ...]]:
    """Yield the matrices to quantise, as they are joined."""
    yield from groups(config)
    for names in mtp_groups(config):
        if all(name in tensors for name in names):
            yield names


def _bits_of(name: str, bits: int) -> int:
    """Return the bits of a matrix where those of the network's layers have ``bits``."""
    return _MTP_BITS if name.startswith("mtp.") else bits


def _shapes(config: ModelConfig, tensors: Mapping[str, Tensor], bits: int) -> Shapes:
    shapes = {}
    for names in _taken(config, tensors):
        inputs = tensors[names[0]].shape[-1]
        outputs = sum(tensors[name].shape[:-1].numel() for name in names)
        shapes[names[0]] = (outputs, inputs, _group(inputs, _bits_of(names[0], bits)))
    return shapes


def _group(inputs: int, bits: int) -> int:
    """Return the size of the groups. Raises ``KernelError``."""
    if bits == 8:
        return group_for(inputs)
    span_for(inputs)
    return 16


def _quantized(names: tuple[str, ...], tensors: Mapping[str, Tensor], bits: int) -> QuantizedWeight:
    parts = [tensors[name].flatten(0, -2) for name in names]
    require_finite(dict(zip(names, parts, strict=True)))
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    return quantize(joined, _bits_of(names[0], bits))


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointError`` with the name of a tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not _all_finite(tensor):
            raise CheckpointError(
                f"{name} holds NaN or infinity, which --quantize would turn into an ordinary"
                " number; fetch the checkpoint again, or use another one"
            )


def _read(file: Path, stamp: str, shapes: Shapes, bits: int) -> dict[str, QuantizedWeight] | None:
    """Map the weights in ``file``; None if there is none, it is damaged, or of another source."""
    found = {}
    try:
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata() or {}
            if facts.get("stamp") != stamp:
                return None
            for name, (outputs, inputs, group) in shapes.items():
                own = _bits_of(name, bits)
                held = [opened.get_tensor(name + part) for part in _PARTS[own]]
                if facts.get(name) != _checksum(held):
                    return None
                code = LEVELS if own == 4 else INT8
                found[name] = QuantizedWeight(code, group, outputs, inputs, *held)
        os.utime(file, ns=(time.time_ns(), file.stat().st_mtime_ns))
    except (OSError, SafetensorError):
        return None
    return found


def _all_finite(tensor: Tensor) -> bool:
    """Tell whether no number is NaN or infinite; look at a few million at a time."""
    flat = tensor.reshape(-1)
    return all(bool(torch.isfinite(part).all()) for part in torch.split(flat, 1 << 22))


def _checksum(parts: Iterable[Tensor]) -> str:
    """Return the CRC-32 of a matrix's bytes, scales included."""
    digest = 0
    for part in parts:
        digest = zlib.crc32(part.view(torch.uint8).numpy().data, digest)
    return f"{digest:08x}"


def _tidy(file: Path) -> None:
    """Remove what killed processes left, and the files used longest ago beyond the size limit."""
    entries = []
    for path in file.parent.iterdir():
        with suppress(OSError):
            found = path.stat()
            if path.name.startswith(_DRAFT) and time.time() - found.st_mtime > _LEFT_AFTER_S:
                path.unlink()
            elif path.suffix == ".safetensors" and path != file:
                entries.append((found.st_atime, found.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= MOST_CACHE_BYTES:
            break
        with suppress(OSError):
            path.unlink()
            total -= size


def _write(
    file: Path, stamp: str, shapes: Shapes, made: Iterator[tuple[str, QuantizedWeight]]
) -> None:
    """Write one matrix after the other, so that no more than one is held; whole or not at all."""
    facts = {"stamp": stamp}
    header: dict[str, object] = {"__metadata__": facts}
    at = 0
    storage.make_private(file.parent)
    _tidy(file)
    with storage.write_named(file.parent, _DRAFT) as whole, whole.file.open("wb") as draft:
        # The header's length depends on offsets that are known only at the end: room first.
        room = _ALIGN * (4 + 12 * len(shapes))
        draft.seek(room)
        for name, weight in made:
            facts[name] = _checksum(weight.parts)
            for part, tensor in zip(_PARTS[weight.bits], weight.parts, strict=True):
                raw = tensor.view(torch.uint8).numpy()
                draft.write(raw.data)
                offsets = [at, at + raw.nbytes]
                header[name + part] = {
                    "dtype": _DTYPES[tensor.dtype],
                    "shape": list(tensor.shape),
                    "data_offsets": offsets,
                }
                at += raw.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        if len(text) > room - 8:
            raise OSError("the header does not fit")
        draft.seek(0)
        draft.write((room - 8).to_bytes(8, "little") + text.ljust(room - 8))
        whole.keep_as(file.name)
