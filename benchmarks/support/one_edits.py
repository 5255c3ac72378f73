"""Every module that is one edit away: what a search without a model has to try."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

from evals.training.in_place import mutants_in_place

REPLACED = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)


def one_edits(text: str) -> list[str]:
    """Return every text that parses and differs from a module's ``text`` by one edit, once each.

    The edits are the nine kinds of ``evals.training.mutate`` in every function, and each token
    replaced by each other token of the module. The order is fixed. Raises ``SyntaxError`` if
    ``text`` does not parse.
    """
    tree = ast.parse(text)
    names = sorted({node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)})
    found = {mutant.text: None for name in names for mutant in mutants_in_place(text, name)}
    found |= dict.fromkeys(_replacements(text))
    found.pop(text, None)
    return list(found)


def _replacements(text: str) -> Iterator[str]:
    """Yield the texts in which one token is another one of the same module, if they parse."""
    tokens = [
        token
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in REPLACED and "\n" not in token.string
    ]
    others = sorted({token.string for token in tokens})
    lines = text.split("\n")
    for token in tokens:
        row, start, end = token.start[0] - 1, token.start[1], token.end[1]
        for other in others:
            if other == token.string:
                continue
            line = lines[row][:start] + other + lines[row][end:]
            candidate = "\n".join([*lines[:row], line, *lines[row + 1 :]])
            if _parses(candidate):
                yield candidate


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True
