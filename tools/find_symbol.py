"""find_symbol: find where a name is defined."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from tools.errors import ToolFailure
from tools.files.places import printable
from tools.index.repository_index import RepositoryIndex
from tools.index.tags import Definition
from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec

MAX_PLACES = 50
_SUGGESTIONS = 5
_SEPARATORS = re.compile(r"::|->|[.#/\\]")
_COMPARED = 20_000


class FindSymbolParameters(Parameters):
    """The parameters of find_symbol."""

    name: str = Field(
        min_length=1,
        max_length=400,
        description="A class, function, method, type or constant: Cart, total or Cart.total.",
    )


@dataclass(frozen=True)
class Defined:
    """One definition and the file it is in."""

    path: str
    definition: Definition

    def line(self) -> str:
        """Return ``src/cart.py:12-40: class Cart(Base)``, and what it is in."""
        found = self.definition
        lines = str(found.line) if found.last == found.line else f"{found.line}-{found.last}"
        inside = f"  [{found.kind} in {found.parent}]" if found.parent else ""
        return f"{printable(self.path)}:{lines}: {found.signature}{inside}"


def split_name(name: str) -> tuple[str, str]:
    """Split a dotted name into its last part and the part before it (may be empty)."""
    bare = name.strip().removesuffix("()").strip("`'\" ")
    parts = [part for part in _SEPARATORS.split(bare) if part]
    return (parts[-1], parts[-2] if len(parts) > 1 else "") if parts else ("", "")


def find(index: RepositoryIndex, name: str, owner: str = "") -> list[Defined]:
    """Find the definitions of ``name``, outermost first; those in ``owner`` if any."""
    found = [
        Defined(path, definition)
        for path in index.files_defining(name)
        for definition in index.outline(path)
        if definition.name == name
    ]
    if owner:
        within = [item for item in found if _is_in(item, owner)]
        found = within or found
    return sorted(
        found, key=lambda item: (item.definition.kind == "prototype", item.definition.local)
    )


def _is_in(item: Defined, owner: str) -> bool:
    """Return whether ``owner`` (a class or the file's module) is around the definition."""
    if owner in _SEPARATORS.split(item.definition.parent):
        return True
    path = item.path.rpartition(".")[0]
    return item.definition.depth == 0 and owner in path.split("/")[-2:]


def run(context: ToolContext, parameters: FindSymbolParameters) -> Observation:
    """Return one definition a line; for an unknown name the nearest names."""
    name, owner = split_name(parameters.name)
    if not name:
        raise ToolFailure("The name is empty: give the name of a class, function or constant.")
    index = context.code.index(context.sandbox, context.stop)
    found = find(index, name, owner)
    if not found:
        return Observation(_say_nothing(index, parameters.name, name))
    lines = [item.line() for item in found[:MAX_PLACES]]
    if owner and not any(_is_in(item, owner) for item in found):
        lines.insert(0, f"Nothing called {name} is in {owner}; these are elsewhere:")
    cut = len(found) > MAX_PLACES
    if cut:
        lines.append(f"[{MAX_PLACES} of {len(found):,} definitions shown]")
    return Observation("\n".join(lines), truncated=cut)


def _say_nothing(index: RepositoryIndex, given: str, name: str) -> str:
    text = f"No definition of {given} in the index."
    if near := find_nearest_names(index, name):
        text += f" Nearest: {', '.join(near)}."
    if index.name_id(name) is not None:
        text += " The name is used; see find_references."
    else:
        text += " grep_search finds other text."
    left = str(index.left_out)
    return f"{text} Not indexed: {left}." if left else text


def find_nearest_names(index: RepositoryIndex, name: str) -> list[str]:
    """Find up to five defined names that ``name`` may have meant, the most likely first."""
    names = index.all_names()
    defined = [names[number] for number in np.unique(index.tables.defined_name)]
    wanted = name.lower()
    same = [other for other in defined if other.lower().replace("_", "") == wanted.replace("_", "")]
    holding = sorted((o for o in defined if len(wanted) > 3 and wanted in o.lower()), key=len)
    close = [
        other
        for other in defined
        if abs(len(other) - len(name)) <= 3 and other[:1].lower() == wanted[:1]
    ]
    alike = difflib.get_close_matches(name, close[:_COMPARED], n=_SUGGESTIONS, cutoff=0.7)
    return list(dict.fromkeys([*same, *alike, *holding]))[:_SUGGESTIONS]


TOOL = ToolSpec(
    name="find_symbol",
    description=(
        "Find where a class, function, method, type or constant is defined, by its exact name "
        "(Cart.total finds total in Cart). Gives path:lines: signature. Read the lines with "
        "read_file."
    ),
    parameters=FindSymbolParameters,
    run=run,
    kind="read",
)
