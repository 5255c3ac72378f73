"""Tell a check that cannot run from a test that fails, before the model works in vain.

A check fails before the model begins because the task is not done yet, or because something that it
needs is not in the sandbox. What is said then decides: interpreters, shells and test runners have
fixed words for a program, module or file that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from agent.types import CheckRun

MAX_FOLDERS = 200
ENVIRONMENTS = (".venv", "venv", "env", "node_modules", "vendor", "target")
"""Folders with what a project needs, which an ignore rule mostly covers."""

_RAN = re.compile(r"\b\d+ (passed|failed)\b|^test result: |^ok\s+\S+\s+[\d.]+s$", re.MULTILINE)
_MODULE = re.compile(r"No module named '?([A-Za-z_][\w.]*)'?")
_PHRASES = tuple(
    (re.compile(pattern, re.MULTILINE), words)
    for pattern, words in (
        (r"(?:^|: )([^\s:]+): (?:command )?not found\s*$", "there is no program {0}"),
        (r"^make(?:\[\d+\])?: ([^\s:]+): No such file or directory", "there is no program {0}"),
        (r"([^\s:]+): Permission denied\s*$", "{0} may not be run"),
        (r"([^\s:]+): cannot execute", "{0} cannot be run"),
        (r"(?:line \d+|bash|sh): ([^\s:]+): No such file or directory", "there is no {0}"),
        (r"can't open file '([^']+)'", "there is no file {0}"),
        (r"Cannot find (?:module|package) '([^'./][^']*)'", "there is no package {0}"),
        (r"No rule to make target '([^']+)'", "make knows no target {0}"),
        (r"[Mm]issing script: \"?([\w:.-]+)", "package.json has no script {0}"),
        (r"error while loading shared libraries: ([^\s:]+)", "there is no library {0}"),
        (r"unrecognized arguments: (-\S+)", "its runner does not know {0}: a plugin is missing"),
        (r"file or directory not found: (\S+)", "there is no file {0}"),
        (r"could not find `(Cargo.toml)`|(go.mod) file not found", "there is no {0}"),
        (r"linker `(\w+)` not found", "there is no program {0}"),
        (
            r"(?:[Cc]ould not resolve host|Temporary failure in name resolution|dial tcp"
            r"|failed to (?:fetch|download)|getaddrinfo E\w+)()",
            "it wants the network",
        ),
    )
)


def why_it_cannot_run(run: CheckRun, tree: Path) -> str | None:
    """Return what keeps a check from running on the files in ``tree``, None for a failing test."""
    if run.passed or run.exit_code is None or _RAN.search(run.output):
        return None
    said = run.output[-20_000:]
    if found := _MODULE.search(said):
        return _missing_module(found[1], tree)
    for pattern, words in _PHRASES:
        if found := pattern.search(said):
            return words.format(next((group for group in found.groups() if group), ""))
    if run.exit_code in (126, 127):
        return f"its shell ended with exit code {run.exit_code}"
    return "it finds no test" if run.exit_code == 5 and "no tests ran" in said else None


def advice(why: str, sandbox: str, repo: Path, tree: Path) -> str:
    """Return the line for the user: what is wrong, and what would help in that kind of sandbox."""
    if sandbox == "docker":
        help_ = (
            f"agent setup --repo {repo} proposes an image and set-up commands for .agent.toml; "
            "--image IMAGE takes another one"
        )
    elif sandbox == "bubblewrap":
        help_ = "install it on this machine below /usr, or take --sandbox docker with an image"
    else:
        help_ = "install it on this machine"
    there = [name for name in ENVIRONMENTS if (repo / name).is_dir() and not (tree / name).exists()]
    if there:
        help_ += f"; {' and '.join(there)} is not copied: --ignored-files does"
        if any("env" in name for name in there):
            help_ += f", and the check may then begin with {there[0]}/bin/python -m"
    return f"the check cannot run, which is no failing test: {why}; {help_}"


def _missing_module(name: str, tree: Path) -> str | None:
    """Return what to say of a Python module that is missing; None where a test may mean it."""
    top, dot, _ = name.partition(".")
    own = next((place for place in _folders(tree) if _has(place, top)), None)
    if own is None:
        return f"Python has no module {top}"
    if dot:
        return None  # a part of the repository's own package, which the task may be about
    where = own.relative_to(tree).as_posix()
    return (
        f"Python does not find the repository's own {top}: put PYTHONPATH={where} before the check"
    )


def _has(folder: Path, module: str) -> bool:
    return (folder / module).is_dir() or (folder / f"{module}.py").is_file()


def _folders(tree: Path) -> Iterable[Path]:
    """Yield ``tree`` and the folders in it, which a package may lie in."""
    yield tree
    inner = (path for path in tree.iterdir() if path.is_dir() and path.name[0] != ".")
    yield from islice(sorted(inner), MAX_FOLDERS)
