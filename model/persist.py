"""Saved sessions on disk: one JSON record and one safetensors file, replaced as one.

``session_state.json`` names the tensor file and carries its SHA-256 and its own checksum. The
tensor file is written first under a new name; renaming the JSON is the moment the new save takes
effect; the old tensor file goes last. A kill at any point leaves the old save or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import StateError

RECORD = "session_state.json"
_FORMAT = 1


def write(directory: Path, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Save ``record`` and ``tensors`` into ``directory``. Raises ``StateError`` if it cannot."""
    folder = directory / "state"
    fresh = folder / f".writing-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, fresh)
            digest = _digest(fresh)
            target = folder / f"{digest[:16]}.safetensors"
            _sync(fresh)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
        _sync(folder)
        body = {**record, "format": _FORMAT, "state_file": target.name, "state_sha256": digest}
        draft = directory / f".{RECORD}-{os.getpid()}"
        draft.write_text(json.dumps({**body, "checksum": _checksum(body)}), encoding="utf-8")
        _sync(draft)
        draft.replace(directory / RECORD)
        _sync(directory)
        # The save before this one, and what a killed process left.
        for old in (*folder.iterdir(), *directory.glob(f".{RECORD}-*")):
            if old != target:
                old.unlink()
    except (OSError, SafetensorError) as error:
        raise StateError(f"cannot save the session in {directory}: {error}") from error


def read(directory: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and tensors that ``write`` left.

    Raises ``StateError`` if there are none, if either was damaged, or if the record's
    ``fingerprint`` is another one.
    """
    path = directory / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StateError(f"there is no saved session in {directory}") from error
    except (OSError, ValueError) as error:
        raise StateError(f"{path} is damaged or unreadable: {error}") from error
    if not isinstance(record, dict) or record.pop("checksum", None) != _checksum(record):
        raise StateError(f"{path} is damaged: its checksum does not match")
    if record.get("format") != _FORMAT:
        raise StateError(f"{path} has format {record.get('format')}; this version reads {_FORMAT}")
    if record.get("fingerprint") != fingerprint:
        raise StateError(f"the session in {directory} was made with another model; load that one")
    file = directory / "state" / Path(str(record.get("state_file"))).name
    try:
        if _digest(file) != record.get("state_sha256"):
            raise StateError(f"{file} is damaged: its checksum does not match")
        # Cloned, so that the memory map (and with it the file) is let go.
        return record, {name: torch.clone(t) for name, t in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise StateError(f"{file} is missing or unreadable: {error}") from error


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
