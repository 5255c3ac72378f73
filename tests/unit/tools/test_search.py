"""list_directory, glob and grep_search over a small tree."""

from __future__ import annotations

import os
import re

import pytest

from tools.glob import compile_glob


@pytest.fixture
def tree(bench):
    """A repository with links, odd names, ignored and hidden files."""
    bench.write("README.md", "# Shop\n")
    bench.write("src/shop/cart.py", "def total(items):\n    return sum(items)\n")
    bench.write("src/shop/__init__.py", "")
    bench.write("src/main.py", "from shop.cart import total\n")
    bench.write("tests/test_cart.py", "def test_total():\n    assert total([1]) == 1\n")
    bench.write(".github/workflows/ci.yml", "run: total\n")
    bench.write(".gitignore", "build/\n")
    bench.write(".git/config", "total = 1\n")
    bench.write("build/out.py", "total = 3\n")
    bench.write("src/__pycache__/main.pyc", b"\0total")
    bench.write("with space/ü ☃.txt", "total\n")
    (bench.root / "link.py").symlink_to("src/main.py")
    (bench.root / "loop").symlink_to(".")
    (bench.root / "outside").symlink_to("/etc")
    return bench


def test_a_listing(tree) -> None:
    (tree.root / "big.bin").write_bytes(b"")
    os.truncate(tree.root / "big.bin", 3_000_000)
    observation = tree("list_directory")
    assert observation.text.split("\n") == [
        ".github/",
        "build/",
        "src/",
        "tests/",
        "with space/",
        ".gitignore",
        "README.md",
        "big.bin (2.9 MB)",
        "link.py -> src/main.py",
        "loop -> .",
        "outside -> /etc",
    ]
    assert tree("list_directory", path="src").text == "__pycache__/\nshop/\nmain.py"
    assert tree("list_directory", path="loop/src/shop").text == "__init__.py\ncart.py"


def test_what_cannot_be_listed(tree) -> None:
    (tree.root / "empty").mkdir()
    assert tree("list_directory", path="empty").text == "[empty directory]"
    for path, text in [
        ("README.md", "README.md is a file, not a directory."),
        ("nowhere", "There is no directory nowhere."),
        ("outside", "outside leads out of the repository"),
        ("..", ".. leads out of the repository"),
    ]:
        observation = tree("list_directory", path=path)
        assert not observation.ok
        assert observation.text.startswith(text)


def test_a_long_listing_is_cut(bench) -> None:
    for number in range(600):
        bench.write(f"{number:04}.txt", "")
    observation = bench("list_directory")
    assert observation.truncated
    assert observation.text.split("\n")[499:] == [
        "0499.txt",
        "[500 of 600 entries shown; use glob to narrow down]",
    ]


def test_odd_names_stay_on_one_line(bench) -> None:
    bench.write("a\nb\x1b[31m.txt", "")
    (bench.root / os.fsdecode(b"c\xff.txt")).write_bytes(b"")
    expected = "a\\nb\\x1b[31m.txt\nc\ufffd.txt"
    assert bench("list_directory").text == expected
    assert bench("glob", pattern="*").text == expected


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        (
            "*.py",
            ".",
            "link.py src/main.py src/shop/__init__.py src/shop/cart.py tests/test_cart.py",
        ),
        ("**/*.py", "src", "src/main.py src/shop/__init__.py src/shop/cart.py"),
        ("*.py", "src/shop", "src/shop/__init__.py src/shop/cart.py"),
        ("src/*.py", ".", "src/main.py"),
        ("./src/*.py", ".", "src/main.py"),
        ("ROOT/src/*.py", ".", "src/main.py"),
        ("src/**", ".", "src/main.py src/shop/__init__.py src/shop/cart.py"),
        ("tests/", ".", "tests/test_cart.py"),
        ("**/{main,cart}.py", ".", "src/main.py src/shop/cart.py"),
        ("c[!b]rt.p?", ".", "src/shop/cart.py"),
        ("*.yml", ".", ".github/workflows/ci.yml"),
        ("**/__pycache__/*", ".", "src/__pycache__/main.pyc"),
        ("config", ".git", ".git/config"),
        ("build/*.py", ".", "build/out.py"),
        ("*.py", "build", "build/out.py"),
        ("**/out.py", "build", "build/out.py"),
        ("tests/**", ".", "tests/test_cart.py"),
        ("tests/passwords.log", ".", "tests/passwords.log"),
    ],
)
def test_glob(tree, pattern, path, found) -> None:
    tree.write("tests/.gitignore", "*.log\n.gitignore\n")
    tree.write("tests/passwords.log", "")
    observation = tree("glob", pattern=pattern.replace("ROOT", str(tree.root)), path=path)
    assert observation.ok
    assert sorted(observation.text.split("\n")) == found.split()


@pytest.mark.parametrize("pattern", ["**/" * 40 + "x.py", "*" * 80 + "x.py", "*" * 60 + "/x.py"])
def test_many_stars_take_no_time(pattern) -> None:
    compiled = compile_glob(pattern)
    folders = "/".join("abcdefghijklmnopqrstuvwxyz")
    assert compiled.fullmatch(f"{folders}/x.py")
    assert not compiled.fullmatch(f"{folders}/x.txt")


def test_glob_without_result_says_so(tree) -> None:
    observation = tree("glob", pattern="*.rs", path="src")
    assert (observation.text, observation.ok) == ("No files match *.rs in src.", True)


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "", "src/../../*"])
def test_glob_stays_inside(tree, pattern) -> None:
    observation = tree("glob", pattern=pattern)
    assert not observation.ok
    assert "must be relative and stay in the repository" in observation.text


def test_many_files_are_cut(bench) -> None:
    for number in range(250):
        bench.write(f"{number:04}.txt", "")
    observation = bench("glob", pattern="*.txt")
    assert observation.truncated
    assert observation.text.count("\n") == 200
    assert "the first 200 files" in observation.text


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.py", ["a.py", "x/y/.py"], ["a.pyc", "a.py/b"]),
        ("/a", ["/a"], ["a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "x/a/b"]),
        ("**/a/*", ["a/b", "x/a/b"], ["a", "a/b/c"]),
        ("a/[]x].c", ["a/].c", "a/x.c"], ["a/y.c"]),
        ("a/[^x]", ["a/y"], ["a/x", "a//"]),
        ("a/[x", ["a/[x"], ["a/x"]),
        ("a/[z-a]", ["a/[z-a]"], ["a/z"]),
        ("a/{b,{c,d}}e", ["a/be", "a/ce", "a/de"], ["a/e", "a/b"]),
        ("a/{b", ["a/{b"], ["a/b"]),
        ("a/b}", ["a/b}"], ["a/b"]),
        ("a/(b|c)+.$", ["a/(b|c)+.$"], ["a/b"]),
        ("a/??", ["a/bc"], ["a/b", "a/b/"]),
    ],
)
def test_glob_patterns(pattern, yes, no) -> None:
    compiled = compile_glob(pattern)
    assert [path for path in yes if not compiled.fullmatch(path)] == []
    assert [path for path in no if compiled.fullmatch(path)] == []


def test_grep(tree) -> None:
    observation = tree("grep_search", pattern="total")
    assert observation.ok
    assert observation.text.split("\n") == [
        ".github/workflows/ci.yml",
        "1: run: total",
        "src/main.py",
        "1: from shop.cart import total",
        "src/shop/cart.py",
        "1: def total(items):",
        "tests/test_cart.py",
        "1: def test_total():",
        "2:     assert total([1]) == 1",
        "with space/ü ☃.txt",
        "1: total",
    ]


def test_grep_finds_ignored_files_if_they_are_named(tree) -> None:
    observation = tree("grep_search", pattern="total", path="build/out.py")
    assert observation.text == "build/out.py\n1: total = 3"


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({"pattern": "total", "path": "src"}, 2),
        ({"pattern": "total", "path": "src/main.py"}, 1),
        ({"pattern": "total", "glob": "*.yml"}, 1),
        ({"pattern": "total", "glob": "*.{py,yml}", "path": "."}, 5),
        ({"pattern": r"^def \w+\(", "path": "src"}, 1),
        ({"pattern": "total([1])"}, None),
        ({"pattern": r"total\(\[1\]\)"}, 1),
        ({"pattern": "'; echo total >&2; '"}, None),
        ({"pattern": "$(touch evil)"}, None),
        ({"pattern": "-n", "path": "src"}, None),
        ({"pattern": "total", "path": "with space/ü ☃.txt"}, 1),
    ],
)
def test_grep_narrowed(tree, arguments, lines) -> None:
    observation = tree("grep_search", **arguments)
    assert observation.ok
    if lines is None:
        assert observation.text.startswith(f"No matches for {arguments['pattern']}")
    else:
        assert len(re.findall(r"^\d+: ", observation.text, re.MULTILINE)) == lines
    assert not (tree.root / "evil").exists()


def test_grep_without_result_says_so(tree) -> None:
    observation = tree("grep_search", pattern="nowhere", path="src", glob="*.py")
    assert (observation.text, observation.ok) == (
        "No matches for nowhere in src (files *.py).",
        True,
    )


def test_the_whole_repository_is_not_named(tree) -> None:
    assert tree("grep_search", pattern="nowhere").text == "No matches for nowhere."
    assert tree("glob", pattern="*.rs").text == "No files match *.rs."


def test_grep_starts_with_a_dash(bench) -> None:
    bench.write("-x/-a.txt", "a --flag\n")
    assert bench("grep_search", pattern="--flag").text == "-x/-a.txt\n1: a --flag"
    assert bench("grep_search", pattern="--flag", path="-x").text == "-x/-a.txt\n1: a --flag"


def test_grep_is_cut_at_the_limit(bench) -> None:
    bench.write("a.txt", "x\n" * 500)
    observation = bench("grep_search", pattern="x", limit=3)
    assert observation.truncated
    assert observation.text.split("\n") == [
        "a.txt",
        "1: x",
        "2: x",
        "3: x",
        "[3 of 500 matching lines in 1 file; left out: a.txt (497); "
        "narrow the search or raise the limit]",
    ]
    assert not bench("grep_search", pattern="x", limit=500).truncated


def test_a_cut_search_shows_a_part_of_every_file(bench) -> None:
    bench.write("a.txt", "x\n" * 500)
    bench.write("b.txt", "x\n" * 2)
    bench.write("c.txt", "x\n" * 50)
    observation = bench("grep_search", pattern="x", limit=10)
    assert observation.truncated
    assert observation.text.split("\n") == [
        "a.txt", "1: x", "2: x", "3: x", "4: x", "b.txt", "1: x", "2: x",
        "c.txt", "1: x", "2: x", "3: x", "4: x",
        "[10 of 552 matching lines in 3 files; left out: a.txt (496), c.txt (46); "
        "narrow the search or raise the limit]",
    ]  # fmt: skip


def test_more_files_than_lines_allowed(bench) -> None:
    for number in range(30):
        bench.write(f"f{number:02}.txt", "x\nx\n")
    observation = bench("grep_search", pattern="x", limit=4)
    lines = observation.text.split("\n")
    assert lines[:8] == [part for n in range(4) for part in (f"f{n:02}.txt", "1: x")]
    assert lines[8].startswith("[4 of 60 matching lines in 30 files; left out: f04.txt (2), ")
    assert ", 20 more files; narrow" in lines[8]


def test_grep_in_odd_names(bench) -> None:
    bench.write("a\nb:3:.txt", "needle\n")
    bench.write("c.txt", "needle\x1b[31m red\n")
    assert bench("grep_search", pattern="needle").text == (
        "a\\nb:3:.txt\n1: needle\nc.txt\n1: needle red"
    )


def test_grep_cuts_long_lines(bench) -> None:
    bench.write("min.js", "a" * 100_000 + "needle\n")
    observation = bench("grep_search", pattern="needle")
    assert observation.text.startswith("min.js\n1: aaaa")
    assert len(observation.text) < 1000


def test_a_wrong_expression_is_explained(bench) -> None:
    bench.write("a.txt", "x\n")
    observation = bench("grep_search", pattern="(")
    assert not observation.ok
    assert observation.text.startswith("The search failed: ")
    assert "unclosed group" in observation.text


@pytest.mark.parametrize("path", ["outside", "..", "/etc", "nowhere"])
def test_grep_stays_inside(tree, path) -> None:
    observation = tree("grep_search", pattern="root", path=path)
    assert not observation.ok
    assert "root:" not in observation.text


def test_links_are_not_searched_twice_nor_left_through(tree) -> None:
    (tree.root / "secrets").symlink_to(tree.root.parent)
    (tree.root.parent / "secret.txt").write_text("totally secret\n")
    assert "secret" not in tree("grep_search", pattern="totally").text.replace("totally", "")
    assert "secret.txt" not in tree("glob", pattern="*.txt").text


def test_grep_without_ripgrep(tree, monkeypatch, tmp_path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "grep", "head"):
        (programs / name).symlink_to(f"/bin/{name}" if name != "head" else "/usr/bin/head")
    monkeypatch.setenv("PATH", str(programs))
    assert tree("grep_search", pattern="def [a-z]+", path="src", glob="*.py").text == (
        "src/shop/cart.py\n1: def total(items):"
    )
    assert "config" not in tree("grep_search", pattern="total").text


def test_files_that_cannot_be_read_do_not_cost_the_search(tree) -> None:
    folder = os.open(tree.root / "src", os.O_RDONLY)
    name = "deep" * 50
    for _ in range(30):  # a path longer than the system takes, which root cannot read either
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    found = tree("grep_search", pattern="sum", path="src")
    assert found.ok and found.truncated
    assert (
        found.text == "src/shop/cart.py\n2:     return sum(items)\n[some files could not be read]"
    )
    none = tree("grep_search", pattern="nowhere", path="src")
    assert none.text == "No matches for nowhere in src.\n[some files could not be read]"
    assert not tree("grep_search", pattern="src/a.py:1:(", path="src").ok
