"""The first sentence of each docstring is plain English: a verb, or the noun that is defined."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.sources import PACKAGES, ROOT, parse

CLAUSE = re.compile(
    r"(What|Whether|Who|Whom|Whose|Which|Where|When|How|Those|That|The same|See|As|If|One that"
    r"|Nothing|Something)\b"
)
"""How a docstring begins that names a thing by a clause instead of a noun or a verb."""
NOUN = re.compile(r"((The|A|An|Its|Their|All|Every)\b|``)")
"""How a function's docstring begins that does not say what the function does."""
LEFT = {
    "agent": 0,
    "benchmarks": 0,
    "evals": 0,
    "kernels": 0,
    "model": 1,
    "sandboxes": 0,
    "scripts": 0,
    "tools": 0,
}
"""How many docstrings of each folder still have to be written anew; it only ever falls."""


def dialect(folder: str) -> Iterator[str]:
    """Yield the place and first words of every docstring that is not plain English."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        module = parse(path)
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            first = (ast.get_docstring(node) or "").partition("\n")[0]
            verb_wanted = isinstance(node, ast.FunctionDef) and not _is_property(node)
            if CLAUSE.match(first) or (verb_wanted and NOUN.match(first)):
                line = getattr(node, "lineno", 1)
                yield f"{module.where}:{line} {first[:60]}"


def _is_property(node: ast.FunctionDef) -> bool:
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    return bool(names & {"property", "cached_property", "fixture"})


@pytest.mark.parametrize("folder", [*PACKAGES, "benchmarks", "scripts"])
def test_docstrings_begin_in_plain_english(folder: str) -> None:
    found = list(dialect(folder))
    assert len(found) <= LEFT[folder], "\n".join(found)
