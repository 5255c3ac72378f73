"""Read the small files of a checkpoint, which nobody has checked, within bounds."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from model.errors import CheckpointError

MOST_JSON_BYTES = 64 << 20
"""More than any configuration or index of the family has (that of 124,468 tensors has 13 MB)."""


def require_plain(path: Path) -> int:
    """Return the size of a plain file in bytes; links to one count as one.

    Raises ``CheckpointError`` if it is missing, or a folder, device, pipe or socket.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path} is missing; fetch the checkpoint again") from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is no plain file; fetch the checkpoint again")
    return found.st_size


def read_json(path: Path) -> Any:
    """Read a JSON file of at most ``MOST_JSON_BYTES``. Raises ``CheckpointError``."""
    if require_plain(path) > MOST_JSON_BYTES:
        raise CheckpointError(f"{path} is larger than {MOST_JSON_BYTES >> 20} MiB; fetch it again")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} is not readable JSON: {reason}; fetch it again") from error
