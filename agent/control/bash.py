"""A shell command taken apart into the simple commands it would run, by tree-sitter's bash grammar.

``a && b | c`` has three parts, ``echo $(rm x)`` two, ``echo x > f`` two: the command and the file
that it writes. A wrapper (``timeout 5 x``, ``sudo x``, ``xargs x``, ``bash -c 'x'``, ``find -exec
x``) is a part with the wrapped command inside. What bash would only know when it runs (``$X``,
``$(…)``) stands as ``UNKNOWN`` in a part's text; a name that is not known makes the part unknown.

This is for rules that keep a model from mistakes. It is no wall: a program can run others in ways
that no grammar shows (``make``, ``python3 x.py``). The wall is the sandbox.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from agent.control.bash_wrappers import unwrap

UNKNOWN = "\0"
MAX_CHARACTERS = 65_536
MAX_DEPTH = 6
_PARSED_AT_ONCE = 1_000
_PARSE_S = 0.25
_PIECE = 65_536
# Bash joins what stands on both sides of this; the grammar does not.
_JOINED_LINES = re.compile(r"[^\s\\](?:\\\\)*\\\n\S")
_UNNAMED = frozenset("*?[{~")
_WRITES = frozenset({">", ">>", ">|", "&>", "&>>", "<>"})
_NO_FILES = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty"})


@dataclass(frozen=True)
class Part:
    """One simple command, or one file that a redirection writes.

    ``shown`` is it as written. ``text`` are its words with quotes taken off, ``UNKNOWN`` for what
    cannot be known; ``others`` are further readings of it (without the variables set before it,
    the program without its folder). ``inner`` is what it runs in turn; ``plain`` says that it does
    nothing beyond running that; ``unknown`` that it runs something which cannot be seen.
    """

    kind: Literal["command", "write"]
    shown: str
    text: str
    others: tuple[str, ...] = ()
    inner: tuple[Part, ...] = ()
    plain: bool = False
    unknown: bool = False

    @property
    def name(self) -> str:
        """The program's name: the first word."""
        return self.text.split(" ", 1)[0]


def take_apart(command: str) -> tuple[Part, ...] | None:
    """Return the parts of ``command`` in the order written, or None if it cannot be taken apart."""
    return _parse(command, 0)


def _parse(command: str, depth: int) -> tuple[Part, ...] | None:
    if len(command) > MAX_CHARACTERS or depth > MAX_DEPTH or UNKNOWN in command:
        return None
    if _JOINED_LINES.search(command):
        return None
    source = command.encode("utf-8", "surrogatepass")
    parser = Parser(Language(tree_sitter_bash.language()))
    if len(source) > _PARSED_AT_ONCE and not _parses_in_time(parser, source):
        return None
    root = parser.parse(source).root_node
    if root.has_error:
        return None
    return tuple(_walk(root, depth))


def _parses_in_time(parser: Parser, source: bytes) -> bool:
    """Tell whether ``source`` parses within ``_PARSE_S`` of processor time.

    The grammar takes quadratic time for some texts, such as a thousand closing brackets, and holds
    the interpreter meanwhile.
    """
    began = time.thread_time()
    try:
        parser.parse(
            lambda offset, _: source[offset : offset + _PIECE],
            progress_callback=lambda *_: time.thread_time() - began > _PARSE_S,
        )
    except ValueError:
        parser.reset()
        return False
    return True


def _walk(root: Node, depth: int) -> Iterator[Part]:
    """Yield every part below ``root``.

    This does without recursion, since a hostile command nests as deep as it likes.
    """
    nodes = [root]
    while nodes:
        node = nodes.pop()
        nodes += reversed(node.named_children)
        if node.type == "command":
            yield _command(node, depth)
        elif node.type in ("declaration_command", "unset_command") or (
            node.type == "variable_assignment" and not _belongs(node)
        ):
            words = [_value(node)] if node.type == "variable_assignment" else _words(node)
            yield Part("command", _source(node), " ".join(words))
        elif node.type == "file_redirect":
            yield from _written(node)


def _belongs(assignment: Node) -> bool:
    parent = assignment.parent
    return parent is not None and parent.type in ("command", "declaration_command")


def _command(node: Node, depth: int) -> Part:
    set_before = [
        _value(child) for child in node.named_children if child.type == "variable_assignment"
    ]
    return _part(_source(node), set_before, _words(node), depth)


def _part(shown: str, set_before: Sequence[str], words: Sequence[str], depth: int) -> Part:
    """Return the part for a command with these words, after these assignments."""
    text = " ".join([*set_before, *words])
    if depth > MAX_DEPTH or not words or UNKNOWN in words[0] or _UNNAMED & set(words[0]):
        return Part("command", shown, text or shown, unknown=True)
    bare = posixpath.basename(words[0])
    readings = (" ".join(words), " ".join([bare, *words[1:]]))
    wrapped = unwrap([bare, *words[1:]])
    unknown = wrapped.unknown
    inner = [
        _part(" ".join(argv).replace(UNKNOWN, "…"), (), argv, depth + 1)
        for argv in wrapped.commands
    ]
    for script in wrapped.scripts:
        parts = _parse(script, depth + 1)
        unknown |= parts is None
        inner += parts or ()
    return Part(
        "command",
        shown,
        text,
        others=tuple(reading for reading in dict.fromkeys(readings) if reading != text),
        inner=tuple(inner),
        plain=wrapped.plain and bare == words[0] and not set_before and not unknown,
        unknown=unknown,
    )


def _written(node: Node) -> Iterator[Part]:
    """Yield the file that a redirection writes, if it writes one."""
    destination = node.child_by_field_name("destination")
    operator = next((child.type for child in node.children if child.type in _WRITES), None)
    if operator is None or destination is None:
        return
    path = _value(destination)
    if path not in _NO_FILES:
        yield Part("write", _source(destination), path, unknown=UNKNOWN in path)


def _words(node: Node) -> list[str]:
    """Return the words of a command without its assignments and redirections."""
    skipped = ("variable_assignment", "file_redirect", "herestring_redirect", "heredoc_redirect")
    keep_assignments = node.type != "command"
    return [
        _value(child)
        for child in node.children
        if child.type not in skipped or (keep_assignments and child.type == "variable_assignment")
    ]


def _value(node: Node) -> str:
    """Return the word as bash leaves it without quotes, ``UNKNOWN`` for what it would expand."""
    match node.type:
        case "word" | "number" | "variable_name" | "special_variable_name" | "extglob_pattern":
            return _unescaped(_source(node))
        case "raw_string":
            return _source(node)[1:-1]
        case "string":
            return _quoted(node)
        case "command_name" | "concatenation" | "variable_assignment" | "subscript":
            return _joined(node)
        case _ if not node.is_named:
            return _source(node)
        case _:
            return UNKNOWN


def _joined(node: Node) -> str:
    """Return the values of a node's children and the text between them."""
    data = node.text or b""
    at, pieces = node.start_byte, []
    for child in node.children:
        pieces.append(data[at - node.start_byte : child.start_byte - node.start_byte].decode())
        pieces.append(_value(child))
        at = child.end_byte
    return "".join(pieces)


def _quoted(node: Node) -> str:
    """Return the text in double quotes."""
    data = node.text or b""
    at, pieces = 1, []
    for child in node.named_children:
        if child.type != "string_content":
            start, end = child.start_byte - node.start_byte, child.end_byte - node.start_byte
            pieces += [_unquoted(data[at:start].decode()), UNKNOWN]
            at = end
    return "".join([*pieces, _unquoted(data[at:-1].decode())])


def _unescaped(text: str) -> str:
    """Return ``text`` without the backslashes that quote the character after them."""
    out, rest = [], iter(text)
    for character in rest:
        if character == "\\":
            character = next(rest, "")
            if character == "\n":
                continue
        out.append(character)
    return "".join(out)


def _unquoted(text: str) -> str:
    """Remove backslashes as inside double quotes, where they quote only a few characters."""
    out, rest = [], iter(text)
    for character in rest:
        if character == "\\":
            after = next(rest, "")
            if after == "\n":
                continue
            character = after if after in '$`"\\' and after else character + after
        out.append(character)
    return "".join(out)


def _source(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
