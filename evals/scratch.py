"""Temporary folders of evaluations, which the next run removes if this process is killed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sandboxes.paths import Owner, private_dir, state_dir


def _home() -> Path:
    return state_dir() / "evaluations"


@contextmanager
def scratch_folder(kind: str) -> Iterator[Path]:
    """Yield an empty folder that is gone when the context ends. ``kind`` begins its name."""
    folder = private_dir(_home()) / f"{kind}-{uuid.uuid4().hex[:12]}"
    # The stamp comes first: a folder without one would belong to nobody.
    stamp = folder.with_name(f"{folder.name}.owner")
    stamp.write_text(str(Owner.of_this_process()))
    try:
        folder.mkdir()
        yield folder
    finally:
        _remove(folder, stamp)


def clear_scratch() -> list[str]:
    """Remove the folders whose process is gone; return a line for each."""
    removed = []
    for stamp in sorted(_home().glob("*.owner")):
        with suppress(OSError):
            owner = Owner.parse(stamp.read_text())
            if owner is not None and owner.is_gone():
                _remove(stamp.with_suffix(""), stamp)
                removed.append(f"folder {stamp.stem}")
    return removed


def _remove(folder: Path, stamp: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        stamp.unlink(missing_ok=True)
