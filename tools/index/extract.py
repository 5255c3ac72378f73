"""Extract the definitions, mentions and syntax errors of one source file.

Runs in a process of its own (``worker.py``), since it is C code over untrusted text. Nothing here
recurses, so the depth of a syntax tree does not matter.
"""

from __future__ import annotations

import importlib
import re
from array import array

from tree_sitter import Language as Grammar
from tree_sitter import Node, Parser, Query, QueryCursor, Tree

from tools.index.languages import BY_NAME
from tools.index.queries import SPLIT, query_text
from tools.index.tags import Definition, SyntaxProblem, Tags

MAX_DEFINITIONS = 20_000
MAX_REFERENCES = 400_000
MAX_NAME_BYTES = 200
MAX_SIGNATURE = 160
MAX_ERRORS = 50
MAX_ERROR_NODES = 2_000_000

_SPACES = re.compile(r"\s+")
_CODE = frozenset({"function", "method", "constructor"})
_AROUND = 16
_ONE_LINE = frozenset({"variable", "constant", "macro", "type", "prototype"})
_TRAILING = re.compile(r"\s*(?:\{|:|=>|=|do)\s*$")


class Extractor:
    """Parsers and queries, each made at its first use."""

    def __init__(self) -> None:
        self._grammars: dict[str, Grammar] = {}
        self._queries: dict[str, tuple[Query, Query]] = {}

    def load(self, language: str) -> None:
        """Load the grammar and the queries of ``language``, which are ours and take their time."""
        self._grammar(language)
        if BY_NAME[language].indexed:
            self._queries_of(language)

    def tags(self, language: str, source: bytes) -> Tags:
        """Return the definitions in ``source`` (UTF-8) and every mention of a name."""
        root = self._parse(language, source).root_node
        definitions_query, references_query = self._queries_of(language)
        definitions = _find_definitions(source, root, definitions_query)
        defined_at = {start for _, start in definitions}
        return _add_mentions(
            source, root, references_query, [item for item, _ in definitions], defined_at
        )

    def problems(self, language: str, source: bytes) -> list[SyntaxProblem]:
        """Return where ``source`` does not parse, in order, at most ``MAX_ERRORS`` places."""
        tree = self._parse(language, source)
        if not tree.root_node.has_error and language != "html":
            return []
        return _find_problems(tree, every=language == "html")

    def _parse(self, language: str, source: bytes) -> Tree:
        return Parser(self._grammar(language)).parse(source)

    def _grammar(self, language: str) -> Grammar:
        if language not in self._grammars:
            known = BY_NAME[language]
            module = importlib.import_module(known.module)
            self._grammars[language] = Grammar(getattr(module, known.function)())
        return self._grammars[language]

    def _queries_of(self, language: str) -> tuple[Query, Query]:
        if language not in self._queries:
            definitions, _, references = query_text(language).partition(SPLIT)
            grammar = self._grammar(language)
            self._queries[language] = Query(grammar, definitions), Query(grammar, references)
        return self._queries[language]


def _find_definitions(source: bytes, root: Node, query: Query) -> list[tuple[Definition, int]]:
    """Return the definitions in source order, each with the byte where its name begins."""
    found: dict[int, tuple[int, str, Node, Node, Node | None]] = {}
    for pattern, captures in QueryCursor(query).matches(root):
        name_nodes = captures.get("name")
        kinds = [capture for capture in captures if capture.startswith("definition.")]
        if not name_nodes or not kinds:
            continue
        name_node, node = name_nodes[0], captures[kinds[0]][0]
        parents = captures.get("parent")
        start = name_node.start_byte
        if start not in found or pattern < found[start][0]:
            kind = kinds[0].removeprefix("definition.")
            found[start] = (pattern, kind, name_node, node, parents[0] if parents else None)
        if len(found) > MAX_DEFINITIONS:
            break
    ordered = sorted(found.values(), key=lambda item: (item[3].start_byte, -item[3].end_byte))
    definitions: list[tuple[Definition, int]] = []
    open_ones: list[tuple[int, str, str]] = []  # end byte, name and kind of what is around
    for _, kind, name_node, node, parent_node in ordered:
        while open_ones and open_ones[-1][0] <= node.start_byte:
            open_ones.pop()
        name = _slice(source, name_node)[:MAX_NAME_BYTES]
        parent = ".".join(around for _, around, _ in open_ones[-_AROUND:])
        if parent_node is not None:
            parent = ".".join(filter(None, (parent, _slice(source, parent_node))))
        local = any(around in _CODE for _, _, around in open_ones[-_AROUND:])
        definition = Definition(
            name=name,
            kind=kind,
            line=node.start_point[0] + 1,
            last=_find_last_line(node),
            depth=len(open_ones),
            parent=parent[:MAX_NAME_BYTES],
            signature=_make_signature(source, node, kind),
            local=local,
        )
        definitions.append((definition, name_node.start_byte))
        open_ones.append((node.end_byte, name, kind))
    return definitions


def _find_last_line(node: Node) -> int:
    row, column = node.end_point
    return max(row if column == 0 else row + 1, node.start_point[0] + 1)


def _make_signature(source: bytes, node: Node, kind: str) -> str:
    """Return the definition up to its body, on one line."""
    end = node.end_byte
    body = node.child_by_field_name("body")
    if body is None:
        value = node.child_by_field_name("value") or node.child_by_field_name("right")
        body = value.child_by_field_name("body") if value is not None else None
    if body is not None and kind != "variable":
        end = body.start_byte
    text = source[node.start_byte : min(end, node.start_byte + 4 * MAX_SIGNATURE)]
    line = text.decode("utf-8", "replace")
    if body is None and kind in ("struct", "interface"):
        line = line.partition("{")[0]
    if kind in _ONE_LINE:
        line = line.partition("\n")[0]
    line = _TRAILING.sub("", _SPACES.sub(" ", line).strip())
    line = line.replace("( ", "(").replace(", )", ")").replace(" )", ")")
    return line if len(line) <= MAX_SIGNATURE else line[: MAX_SIGNATURE - 1] + "…"


def _add_mentions(
    source: bytes,
    root: Node,
    query: Query,
    definitions: list[Definition],
    defined_at: set[int],
) -> Tags:
    captures = QueryCursor(query).captures(root)
    places: dict[bytes, list[int]] = {}
    for node in captures.get("any", ())[:MAX_REFERENCES]:
        start = node.start_byte
        if start in defined_at:
            continue
        name = source[start : node.end_byte]
        lines = places.get(name)
        if lines is None:
            places[name] = [node.start_point[0] + 1]
        else:
            lines.append(node.start_point[0] + 1)
    strong: dict[bytes, int] = {}
    seen: set[int] = set()
    for node in captures.get("strong", ())[:MAX_REFERENCES]:
        start = node.start_byte
        if start in defined_at or start in seen:
            continue
        seen.add(start)
        name = source[start : node.end_byte]
        strong[name] = strong.get(name, 0) + 1
    names: list[str] = []
    weights, counts, lines_of = array("I"), array("I"), array("I")
    # Sorted, since captures come in no fixed order and equal files shall have equal records.
    for raw, lines in sorted(places.items()):
        if len(raw) > MAX_NAME_BYTES or b"\n" in raw:
            continue
        names.append(raw.decode("utf-8", "replace"))
        weights.append(strong.get(raw, 0))
        unique = sorted(set(lines))
        counts.append(len(unique))
        lines_of.extend(unique)
    return Tags(tuple(definitions), tuple(names), weights, counts, lines_of)


def _slice(source: bytes, node: Node) -> str:
    return source[node.start_byte : node.end_byte].decode("utf-8", "replace")


def _find_problems(tree: Tree, *, every: bool) -> list[SyntaxProblem]:
    """Walk to the error nodes, without entering subtrees that have none unless ``every`` is set.

    HTML needs that: a wrong end tag is a node of its own there and no error.
    """
    problems: list[SyntaxProblem] = []
    cursor = tree.walk()
    for _ in range(MAX_ERROR_NODES):
        node = cursor.node
        if node is None:
            break
        if node.is_error or node.is_missing or node.type == "erroneous_end_tag":
            row, column = node.start_point
            problems.append(SyntaxProblem(row + 1, column, node.type if node.is_missing else ""))
            if len(problems) >= MAX_ERRORS:
                break
        enters = node.type != "ERROR" and (every or node.has_error)
        if enters and cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return problems
    return problems


def columns_in_characters(source: bytes, problems: list[SyntaxProblem]) -> list[SyntaxProblem]:
    """Turn byte columns (from 0) into character columns (from 1)."""
    starts = [0]
    at = source.find(b"\n")
    while at >= 0:
        starts.append(at + 1)
        at = source.find(b"\n", at + 1)
    result = []
    for problem in problems:
        start = starts[min(problem.line, len(starts)) - 1]
        column = len(source[start : start + problem.column].decode("utf-8", "replace")) + 1
        result.append(SyntaxProblem(problem.line, column, problem.missing))
    return result
