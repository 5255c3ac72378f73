"""Rows of a data set, from a file or by the ``datasets`` library, and which of them to take."""

from __future__ import annotations

import difflib
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from evals.errors import DatasetError
from evals.instance import Instance

Row = dict[str, Any]
_T = TypeVar("_T")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
EXTRA = "install it with: pip install 'tenuto[eval]'"


def read_rows(name: str, split: str = "test") -> list[Row]:
    """Read the rows of a ``.jsonl``, ``.json`` or ``.parquet`` file, else of a data set on the hub.

    Raises ``DatasetError`` that says which line is wrong.
    """
    path = Path(name)
    if path.suffix in (".jsonl", ".json", ".parquet"):
        if not path.is_file():
            raise DatasetError(f"the data set {name} does not exist; give a file or a name")
        try:
            rows = _read_file(path)
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"the data set {name} cannot be read: {error}") from error
    elif path.exists():
        raise DatasetError(f"{name} is no .jsonl, .json or .parquet file")
    else:
        rows = _from_hub(name, split)
    if not rows:
        raise DatasetError(f"the data set {name} has no rows")
    return rows


def _read_file(path: Path) -> list[Row]:
    if path.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise DatasetError(f"reading Parquet needs pyarrow; {EXTRA}") from error
        try:
            return list(parquet.read_table(path).to_pylist())
        except ValueError as error:  # pyarrow's errors are
            raise DatasetError(f"the data set {path} is no Parquet file: {error}") from error
    # A mark is passed over, and only a line feed ends a line: U+2028 may stand in a text.
    text = path.read_text("utf-8-sig")
    if path.suffix == ".json":
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise DatasetError(f"the data set {path} is no JSON: {error}") from error
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DatasetError(f"the data set {path} must be a list of objects")
        return rows
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: no JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number}: must be an object")
        rows.append(row)
    return rows


def _from_hub(name: str, split: str) -> list[Row]:
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"the data set {name!r} is no file, and {EXTRA}") from error
    try:
        return [dict(row) for row in datasets.load_dataset(name, split=split)]
    except Exception as error:  # the library raises of every kind
        told = " ".join(str(error).split())[:200]
        raise DatasetError(f"the data set {name!r} cannot be had: {told}") from error


def require(row: Row, number: int, fields: Iterable[str], why: str) -> None:
    """Raise ``DatasetError`` if the row (``number`` counts from 1) lacks one of ``fields``."""
    for name in fields:
        if row.get(name) in (None, ""):
            which = row.get("instance_id") or row.get("id") or "no id"
            raise DatasetError(f"row {number} ({which}) has no {name!r}, which {why} needs")


def unique(instances: Sequence[Instance]) -> list[Instance]:
    """Return ``instances`` after checking that their ids differ and can name a folder."""
    seen: dict[str, int] = {}
    for number, instance in enumerate(instances, start=1):
        if not isinstance(instance.id, str) or not _ID.fullmatch(instance.id):
            raise DatasetError(
                f"row {number}: the id {instance.id!r} cannot name a folder; use letters, digits "
                "and . _ + -"
            )
        first = seen.setdefault(instance.id.lower(), number)
        if first != number:
            raise DatasetError(f"the id {instance.id!r} is in row {first} and in row {number}")
    return list(instances)


@dataclass(frozen=True)
class Selection:
    """A choice of instances: named ones, then those not left out, a filter, an order, a slice."""

    ids: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    filter: str | None = None
    shuffle: int | None = None
    slice: str | None = None

    def of(self, instances: Sequence[Instance]) -> list[Instance]:
        """Return the chosen instances in order. Raises ``DatasetError`` for what does not exist."""
        chosen = list(instances)
        if self.ids:
            known = {instance.id: instance for instance in instances}
            chosen = [known[name] for name in dict.fromkeys(self.ids) if _known(name, known)]
        if self.without:
            known = {instance.id: instance for instance in instances}
            left = {name for name in self.without if _known(name, known)}
            chosen = [instance for instance in chosen if instance.id not in left]
        if self.filter is not None:
            try:
                pattern = re.compile(self.filter)
            except re.error as error:
                raise DatasetError(f"--filter {self.filter!r} is no pattern: {error}") from error
            chosen = [instance for instance in chosen if pattern.search(instance.id)]
        if self.shuffle is not None:
            chosen.sort(key=lambda instance: instance.id)
            random.Random(self.shuffle).shuffle(chosen)
        if self.slice is not None:
            chosen = chosen[_slice(self.slice)]
        if not chosen:
            raise DatasetError(
                "no instance is left; see --filter, --slice, --exclude and --instance"
            )
        return chosen


def _known(name: str, known: Iterable[str]) -> bool:
    names = list(known)
    if name in names:
        return True
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise DatasetError(f"the data set has no instance {name!r}{hint}")


def _slice(text: str) -> slice:
    parts = text.split(":")
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] == 0):
        raise DatasetError(f"--slice {text!r} must be like 0:10, :5 or 10:")
    return slice(*numbers)
