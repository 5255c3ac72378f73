"""Our reading of .gitignore against git's own, over random trees and rules."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.index.ignore import IgnoreRules
from tools.index.walk import walk

NAMES = ["a", "b", "ab", "a.py", "b.txt", "build", "x y", "a]b", "#c"]
PATTERNS = [
    *("a", "*.py", "/a", "a/", "build/", "**/a", "a/**", "a/**/b", "!a", "!*.py", "*", "!*/", "?"),
    *("[ab]", "[!a]*", "a*b", "*a*", "b/*", "/a/b", "**/a/b*", "a/*/b", "\\#c", "x\\ y", "x y"),
    *("!/a/b", "**", "/**/b", "a**b", "[a-b].py", "a]b", "[]a]", "*.*", "!a/b/", "# a", "", "a  "),
]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
rules = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4).map("\n".join)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(paths, min_size=1, max_size=14),
    st.dictionaries(st.sampled_from(["", "a", "b/a"]), rules),
)
def test_the_walk_finds_what_git_would_add(files: list[str], ignores: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        subprocess.run(["git", "init", "--quiet"], cwd=top, check=True)
        for path in [*files, *(f"{where}/.gitignore".lstrip("/") for where in ignores)]:
            target = top / path
            if any(parent.is_file() for parent in target.parents) or target.is_dir():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            where = path.rpartition("/")[0]
            target.write_text(ignores[where] if path.endswith(".gitignore") else "")
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--others", "--exclude-standard"],
            cwd=top,
            capture_output=True,
            check=True,
        )
        expected = sorted(listed.stdout.decode().split("\0")[:-1])
        assert sorted(found.path for found in walk(top, frozenset({".git"}))) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 30 + "b",
        "**/a/" * 30 + "b",
        "*?" * 30 + "b",
        "x/" + "*a*" * 15 + "b",
        "[a]" * 300 + "*",
    ],
)
def test_no_pattern_runs_away(pattern: str) -> None:
    decide = IgnoreRules(pattern).decides
    for path in ("a" * 250, "a/" * 100 + "a", "x/" + "a" * 250, "/".join(["a" * 40] * 60)):
        assert decide(path, is_folder=False) in (None, True)
