"""The languages, their files and their grammars. Imports no grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Language:
    """A tree-sitter grammar and the files it is for.

    ``module`` and ``function`` say where the grammar is: ``tree_sitter_php.language_php``.
    ``suffixes`` and ``names`` are in lower case. Only ``indexed`` languages have tag queries; the
    others serve to check the syntax of what was edited.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    names: tuple[str, ...] = ()
    function: str = "language"
    indexed: bool = True
    interpreters: tuple[str, ...] = ()


JSON_SUFFIXES = ("json", "ipynb", "geojson", "topojson", "jsonld", "webmanifest", "avsc", "har")
JSON_LINES_SUFFIXES = ("jsonl", "ndjson")
LANGUAGES = (
    Language(
        "python",
        "tree_sitter_python",
        ("py", "pyi", "pyw"),
        ("sconstruct", "wscript"),
        interpreters=("python", "python2", "python3"),
    ),
    Language(
        "javascript",
        "tree_sitter_javascript",
        ("js", "mjs", "cjs", "jsx"),
        interpreters=("node", "nodejs"),
    ),
    Language(
        "typescript",
        "tree_sitter_typescript",
        ("ts", "mts", "cts"),
        function="language_typescript",
    ),
    Language("tsx", "tree_sitter_typescript", ("tsx",), function="language_tsx"),
    Language("go", "tree_sitter_go", ("go",)),
    Language("rust", "tree_sitter_rust", ("rs",)),
    Language("java", "tree_sitter_java", ("java",)),
    Language("c", "tree_sitter_c", ("c",)),
    Language(
        "cpp",
        "tree_sitter_cpp",
        ("cc", "cpp", "cxx", "c++", "hh", "hpp", "hxx", "h++", "ipp", "inl", "cu", "cuh"),
    ),
    Language("c_sharp", "tree_sitter_c_sharp", ("cs",)),
    Language(
        "ruby",
        "tree_sitter_ruby",
        ("rb", "rake", "gemspec"),
        ("rakefile", "gemfile"),
        interpreters=("ruby",),
    ),
    Language("php", "tree_sitter_php", ("php",), function="language_php", interpreters=("php",)),
    Language(
        "bash", "tree_sitter_bash", ("sh", "bash"), interpreters=("sh", "bash", "dash", "ksh")
    ),
    Language(
        "json",
        "tree_sitter_json",
        (*JSON_SUFFIXES, *JSON_LINES_SUFFIXES, "jsonc", "code-workspace"),
        ("composer.lock", "pipfile.lock", "flake.lock"),
        indexed=False,
    ),
    Language("yaml", "tree_sitter_yaml", ("yaml", "yml"), indexed=False),
    Language(
        "toml",
        "tree_sitter_toml",
        ("toml",),
        ("cargo.lock", "poetry.lock", "uv.lock", "pdm.lock", "pipfile"),
        indexed=False,
    ),
    Language("html", "tree_sitter_html", ("html", "htm"), indexed=False),
    Language("css", "tree_sitter_css", ("css",), indexed=False),
)

BY_NAME = {language.name: language for language in LANGUAGES}
_BY_SUFFIX = {suffix: language for language in LANGUAGES for suffix in language.suffixes}
_BY_FILE_NAME = {name: language for language in LANGUAGES for name in language.names}
_BY_INTERPRETER = {word: language for language in LANGUAGES for word in language.interpreters}
_ONLY_CPP = re.compile(
    rb"^\s*(?:class\s+\w+|namespace\b|template\s*<|using\s+\w|public:|private:|protected:)",
    re.MULTILINE,
)
_SHEBANG = re.compile(rb"#!\s*(?:\S*/)?([\w.+-]+)(?:[ \t]+(?:-S[ \t]+)?([\w.+-]+))?")


def may_have_language(path: str) -> bool:
    """Return whether ``detect_language`` may know ``path``, without looking into the file."""
    name = path.rsplit("/", 1)[-1].lower()
    suffix = name.rpartition(".")[2]
    return "." not in name or suffix == "h" or suffix in _BY_SUFFIX or name in _BY_FILE_NAME


def detect_language(path: str, head: bytes) -> Language | None:
    """Return the language of the file at ``path`` that begins with ``head``; None if unknown.

    The name decides; a ``.h`` file is C++ if it has words that only C++ has, and a file without a
    suffix goes by its ``#!`` line.
    """
    name = path.rsplit("/", 1)[-1].lower()
    if name in _BY_FILE_NAME:
        return _BY_FILE_NAME[name]
    if "." not in name:
        return _by_shebang(head)
    suffix = name.rpartition(".")[2]
    if suffix == "h":
        return BY_NAME["cpp" if _ONLY_CPP.search(head) else "c"]
    return _BY_SUFFIX.get(suffix)


def _by_shebang(head: bytes) -> Language | None:
    match = _SHEBANG.match(head[:200])
    if match is None:
        return None
    program = match[1] if match[1] != b"env" else match[2] or b""
    word = program.decode("ascii", "replace")
    return _BY_INTERPRETER.get(word) or _BY_INTERPRETER.get(word.rstrip("0123456789."))
