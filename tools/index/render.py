"""Render a repository map: signatures by file, as many as a token budget takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tools.index.rank import Ranked
from tools.index.repository_index import RepositoryIndex, Tables
from tools.index.tags import Definition

_FEWEST_TOKENS_A_LINE = 3


@dataclass(frozen=True)
class Map:
    """The text of a map, and whether it has every definition."""

    text: str
    complete: bool


def render_map(
    index: RepositoryIndex,
    tables: Tables,
    ranked: Ranked,
    *,
    below: str,
    max_tokens: int,
    count_tokens: Callable[[str], int],
    shown_path: Callable[[str], str],
) -> Map | None:
    """Render the files under ``below`` (``""``, ``a/b/`` or a file) within ``max_tokens``.

    The most definitions that fit, found by bisection, since tokens of lines do not add up exactly.
    None if not even one fits; an empty text if there are none.
    """
    inside = np.array([_is_below(path, below) for path in tables.files], dtype=bool)
    candidates = np.flatnonzero(inside[ranked.file])
    if not len(candidates):
        return Map("", complete=True)
    # Every definition adds a line, and no line has fewer tokens than this.
    most = min(len(candidates), max_tokens // _FEWEST_TOKENS_A_LINE + 1)
    names = index.all_names()
    wanted = [
        (int(ranked.file[number]), names[ranked.name[number]]) for number in candidates[:most]
    ]
    files = len(np.unique(ranked.file[candidates]))
    renderer = _Renderer(index, tables, shown_path, files)

    def fits(count: int) -> bool:
        return count_tokens(renderer.text(wanted[:count], len(candidates))) <= max_tokens

    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    while low and not fits(low):
        low -= 1
    if not low:
        return None
    return Map(renderer.text(wanted[:low], len(candidates)), low == len(candidates))


def format_definition(definition: Definition, *, indent: int = 0) -> str:
    """Return ``  12: class Cart``, the signature indented by its depth."""
    return f"{definition.line:>5}: {'  ' * indent}{definition.signature}"


def format_outline(definitions: Sequence[Definition]) -> list[str]:
    """Return every definition that is not inside a function, with its first and last line."""
    return [
        f"{definition.line}-{definition.last}: {'  ' * definition.depth}{definition.signature}"
        for definition in definitions
        if not definition.local
    ]


class _Renderer:
    """A renderer of the first definitions of a ranking."""

    def __init__(
        self,
        index: RepositoryIndex,
        tables: Tables,
        shown_path: Callable[[str], str],
        files: int,
    ) -> None:
        self._index = index
        self._tables = tables
        self._shown_path = shown_path
        self._files = files
        self._parts: dict[tuple[int, int], str] = {}

    def text(self, wanted: Sequence[tuple[int, str]], of: int) -> str:
        """Return files by their best definition, each with its lines in source order."""
        names: dict[int, set[str]] = {}
        for file, name in wanted:
            names.setdefault(file, set()).add(name)
        lines: list[str] = []
        for file, chosen in names.items():
            # The names come in one order, so their number says which they are.
            key = file, len(chosen)
            if key not in self._parts:
                self._parts[key] = self._render_file(file, chosen)
            lines.append(self._parts[key])
        if note := self._make_note(len(wanted), of, len(names)):
            lines.append(note)
        return "\n".join(lines)

    def _render_file(self, file: int, chosen: set[str]) -> str:
        path = self._tables.files[file]
        lines = [self._shown_path(path)]
        lines += [
            format_definition(definition, indent=definition.depth)
            for definition in _add_parents(self._index.outline(path), chosen)
        ]
        return "\n".join(lines)

    def _make_note(self, shown: int, of: int, files: int) -> str:
        parts = []
        if shown < of:
            parts.append(
                f"the {shown:,} weightiest of {of:,} names, in {files:,} of {self._files:,} files; "
                "give a path or more max_tokens for others"
            )
        if left := str(self._index.left_out):
            parts.append(f"not indexed: {left}")
        return f"[{'; '.join(parts)}]" if parts else ""


def _add_parents(outline: Sequence[Definition], chosen: set[str]) -> list[Definition]:
    """Return the chosen definitions and those around each, in source order, none in functions."""
    kept: list[Definition] = []
    around: list[tuple[Definition, bool]] = []  # what is open, and whether it was kept
    for definition in outline:
        del around[definition.depth :]
        if definition.local:
            continue
        keep = definition.name in chosen
        if keep:
            for number, (outer, was_kept) in enumerate(around):
                if not was_kept:
                    kept.append(outer)
                    around[number] = (outer, True)
            kept.append(definition)
        around.append((definition, keep))
    return kept


def _is_below(path: str, below: str) -> bool:
    return not below or path == below or (below.endswith("/") and path.startswith(below))
