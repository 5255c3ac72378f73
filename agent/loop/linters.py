"""The linters and type checkers that a repository may name, and what their output means.

Each is known by files that repositories keep for it. The formats are those that the programs
document: ruff's ``concise``, mypy's lines, tsc without ``--pretty``, eslint's ``json``, the lines
of ``go vet``, and cargo's ``short`` messages.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

_LINE = re.compile(
    r"^(?:vet: )?(?P<path>[^\s:][^:\n]*):(?P<line>\d+)(?::\d+)*:?\s+(?P<text>\S.*)$", re.M
)
_TSC = re.compile(r"^(?P<path>[^\s(][^(\n]*)\((?P<line>\d+),\d+\): (?P<text>\S.*)$", re.M)
MAX_OUTPUT = 400_000


@dataclass(frozen=True)
class LintFinding:
    """One thing that a linter says of one line of a file (a path from the repository's top)."""

    path: str
    line: int
    text: str


@dataclass(frozen=True)
class Linter:
    """A program, its command line for one file, and the files by which a repository names it.

    ``marks`` are names at the repository's top; after a ``:`` stands text that must be in the file.
    ``endings`` are the files that it is for. ``{file}`` and ``{folder}`` stand for the changed one.
    """

    name: str
    command: str
    marks: tuple[str, ...]
    endings: tuple[str, ...]

    def line_for(self, path: str) -> str:
        """Return the command line for ``path``."""
        place = f"./{path}"
        return self.command.format(
            file=shlex.quote(place), folder=shlex.quote(posixpath.dirname(place))
        )

    def findings(self, output: str) -> list[LintFinding]:
        """Return what ``output`` says, of whatever files; other text is passed over."""
        if self.name == "eslint":
            return _eslint(output)
        pattern = _TSC if self.name == "tsc" else _LINE
        return [
            LintFinding(posixpath.normpath(m["path"]), int(m["line"]), m["text"].strip())
            for m in pattern.finditer(output[:MAX_OUTPUT])
        ]


_PYTHON = (".py", ".pyi")
_SCRIPT = (".ts", ".tsx", ".mts", ".cts")
LINTERS: Mapping[str, Linter] = {
    linter.name: linter
    for linter in (
        Linter(
            "ruff",
            "ruff check --no-cache --quiet --output-format concise {file}",
            ("ruff.toml", ".ruff.toml", "pyproject.toml:[tool.ruff"),
            _PYTHON,
        ),
        Linter(
            "mypy",
            "mypy --no-color-output --no-error-summary --hide-error-context"
            " --cache-dir ${{TMPDIR:-/tmp}}/.mypy_cache {file}",
            ("mypy.ini", ".mypy.ini", "pyproject.toml:[tool.mypy", "setup.cfg:[mypy"),
            _PYTHON,
        ),
        # A composite project must be incremental, and another may be.
        Linter(
            "tsc",
            "tsc --noEmit --pretty false --incremental"
            " --tsBuildInfoFile ${{TMPDIR:-/tmp}}/.tsbuildinfo",
            ("tsconfig.json",),
            _SCRIPT,
        ),
        Linter(
            "eslint",
            "eslint --format json {file}",
            tuple(f"eslint.config.{end}" for end in ("js", "mjs", "cjs", "ts"))
            + tuple(f".eslintrc{end}" for end in ("", ".js", ".cjs", ".json", ".yml", ".yaml")),
            (".js", ".jsx", ".mjs", ".cjs", *_SCRIPT),
        ),
        Linter("go", "go vet {folder}", ("go.mod",), (".go",)),
        # What would be written beside the sources (Cargo.lock) is not the model's work.
        Linter(
            "cargo",
            "if [ -e Cargo.lock ]; then locked=--locked; fi;"
            " CARGO_TARGET_DIR=${{TMPDIR:-/tmp}}/.cargo-target"
            " cargo check --offline $locked --quiet --message-format short; code=$?;"
            ' [ -n "$locked" ] || rm -f Cargo.lock; (exit $code)',
            ("Cargo.toml",),
            (".rs",),
        ),
    )
}
"""Every linter that is known, by the name of its program."""


def _eslint(output: str) -> list[LintFinding]:
    """Read eslint's JSON, whose paths are absolute: they are kept, and matched by their end."""
    start = output.find("[{")
    try:
        files = json.loads(output[start:]) if start >= 0 else []
        return [
            LintFinding(
                str(file["filePath"]),
                int(said.get("line") or 0),
                f"{said.get('ruleId') or 'error'} {said['message']}",
            )
            for file in files
            for said in file["messages"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
