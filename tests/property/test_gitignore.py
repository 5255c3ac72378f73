"""Our reading of .gitignore against git's own, over random trees and rules."""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.index.ignore import IgnoreRules
from tools.index.walk import walk

TREES = int(os.environ.get("TENUTO_FUZZ", "400"))
BATCH = 200
ODD_NAMES = [
    *(b"a", b"b", b"ab", b"abc", b"a.py", b"B", b"x y", b"a ", b" a", b"a]b", b"#c", b"!a"),
    *(b"a\\b", b"[a]", b"a*b", b"?", b"a-b", b"\xc3\xa9", b"\xc3\xa9.py", b"\xe6\x97\xa5"),
    *(b"\xff", b"a\t", b"\xef\xbb\xbfa", b"a\xe2\x80\xa8b", b"7", b"_", b"\x85", b"a\x0bb"),
    *(b"a\x0c", b"a:", b"a\rb"),
]
ODD_PIECES = [
    *(b"a", b"b", b"ab", b".py", b"/", b"/", b"**", b"**/", b"/**", b"*", b"*", b"?", b" "),
    *(b"\t", b"[ab]", b"[!a]", b"[^b]", b"[a-c]", b"[]a]", b"[!]a]", b"[a", b"[", b"]"),
    *(b"[a-]", b"[-a]", b"[[:alpha:]]", b"[[:digit:]_]", b"[![:space:]]", b"[[:foo:]]"),
    *(b"[[:alpha:", b"[[a]", b"[a-\\c]", b"[\\]]", b"[[:punct:]]", b"[[:upper:]]", b"[a--]"),
    *(b"[!-a]", b"[~&|]", b"[b-a]", b"[/]", b"[.-a]", b"\\", b"\\a", b"\\ ", b"\\*", b"\\#"),
    *(b"\\!", b"\\/", b"!", b"#", b"-", b"\xc3\xa9", b"\xc3", b"\xa9", b"\xe6\x97\xa5"),
    *(b"\xff", b"[\xc3\xa9]", b"[!\xff]", b"\r", b"\x0b", b"\x0c", b"\xe2\x80\xa8"),
]
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


def odd_rules(chance: random.Random) -> bytes:
    """Lines of odd patterns, maybe with a mark, other line ends and no last line feed."""
    lines = []
    for _ in range(chance.randint(1, 5)):
        pieces = chance.choices(ODD_PIECES, k=chance.choice([1, 1, 2, 2, 3, 4, 6]))
        if chance.random() < 0.3:
            pieces = chance.choices(ODD_NAMES, k=1) + pieces[:1]
        ends = chance.choice([b"", b"", b"", b"/", b" ", b"  ", b"\\ ", b"\t", b"\r", b"\0x"])
        lines.append(chance.choice([b"", b"", b"!", b"/", b" "]) + b"".join(pieces) + ends)
    mark = b"\xef\xbb\xbf" if chance.random() < 0.1 else b""
    return mark + b"\n".join(lines) + chance.choice([b"", b"\n", b"\r\n", b"\n\n"])


def make_odd_tree(top: bytes, chance: random.Random) -> None:
    """Make a small tree of oddly named folders and files with odd rules in some of them."""
    folders = [b""]
    for _ in range(chance.randint(1, 8)):
        folder = chance.choice(folders)
        for name in chance.choices(ODD_NAMES, k=chance.randint(0, 2)):
            folder += name + b"/"
            if folder not in folders and not os.path.lexists(top + folder[:-1]):
                folders.append(folder)
            elif folder not in folders:
                folder = b""
        Path(os.fsdecode(top + folder)).mkdir(parents=True, exist_ok=True)
        path = top + folder + chance.choice(ODD_NAMES)
        if not os.path.lexists(path):
            Path(os.fsdecode(path)).write_bytes(b"")
    for folder in chance.sample(folders, min(len(folders), chance.randint(1, 3))):
        Path(os.fsdecode(top + folder + b".gitignore")).write_bytes(odd_rules(chance))


@pytest.mark.parametrize("batch", range(-(-TREES // BATCH)))
def test_odd_trees_are_walked_as_git_walks_them(batch: int) -> None:
    """``TENUTO_FUZZ=100000`` makes this many trees."""
    chance = random.Random(batch)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        for number in range(min(BATCH, TREES)):
            make_odd_tree(os.fsencode(f"{folder}/tree{number}/"), chance)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--others", "--exclude-standard"],
            cwd=folder,
            capture_output=True,
            check=True,
        )
        expected = {os.fsdecode(path) for path in listed.stdout.split(b"\0")[:-1]}
        found = {found.path for found in walk(Path(folder), frozenset({".git"}))}
        assert sorted(found ^ expected) == []


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
