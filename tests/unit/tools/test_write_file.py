"""write_file: whole files, and what stays of the old one."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("content", "lines"),
    [("a\nb\n", "2 lines"), ("a\nb", "2 lines"), ("a", "1 line"), ("", "0 lines")],
)
def test_a_new_file_is_written_exactly(bench, content, lines) -> None:
    observation = bench("write_file", file_path="new/deep/a.txt", content=content)
    assert (observation.text, observation.ok) == (f"Wrote new/deep/a.txt ({lines}).", True)
    assert bench.read("new/deep/a.txt") == content.encode()


def test_an_old_file_is_replaced(bench) -> None:
    bench.write("a.txt", "old\n")
    assert bench("write_file", file_path="a.txt", content="ü\n").ok
    assert bench.read("a.txt") == "ü\n".encode()


@pytest.mark.parametrize(
    ("before", "content", "after"),
    [
        (b"a\r\nb\r\n", "c\nd\n", b"c\r\nd\r\n"),
        (b"a\r\nb\r\n", "c\r\nd\r\n", b"c\r\nd\r\n"),
        (b"a\r\nb\n", "c\nd\n", b"c\nd\n"),
        (b"\xef\xbb\xbfa\n", "b\n", b"\xef\xbb\xbfb\n"),
        (b"\xff\xfe" + "a".encode("utf-16-le"), "ü", b"\xff\xfe" + "ü".encode("utf-16-le")),
        ("é".encode("latin-1"), "è", "è".encode("latin-1")),
        ("é".encode("latin-1"), "€", "€".encode()),
        (b"\x89PNG\0", "text", b"text"),
    ],
)
def test_encoding_and_line_endings_stay(bench, before, content, after) -> None:
    bench.write("a.txt", before)
    assert bench("write_file", file_path="a.txt", content=content).ok
    assert bench.read("a.txt") == after


def test_a_link_stays_a_link(bench) -> None:
    bench.write("real.txt", "old")
    (bench.root / "link.txt").symlink_to("real.txt")
    assert bench("write_file", file_path="link.txt", content="new").ok
    assert (bench.root / "link.txt").is_symlink()
    assert bench.read("real.txt") == b"new"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("src", "src is a directory: give the path of a file."),
        (
            "src/a.py/b.py",
            "src/a.py/b.py cannot be written: a part of its path is a file, not a directory.",
        ),
        ("x" * 300, f"{'x' * 300} cannot be written: File name too long."),
    ],
)
def test_what_cannot_be_written(bench, path, text) -> None:
    bench.write("src/a.py", "x")
    observation = bench("write_file", file_path=path, content="y")
    assert (observation.text, observation.ok) == (text, False)


@pytest.mark.parametrize(
    "path", [".git/hooks/pre-commit", "sub/.git/config", ".GIT/config", "sub/.git", "link/config"]
)
def test_git_internals_are_not_written(bench, path) -> None:
    bench.write(".git/config", "[core]\n")
    (bench.root / "link").symlink_to(".git")
    observation = bench("write_file", file_path=path, content="[core]\nfsmonitor = evil\n")
    assert not observation.ok
    assert "belongs to git itself" in observation.text
    assert bench.read(".git/config") == b"[core]\n"


@pytest.mark.parametrize("path", [".gitignore", ".github/workflows/ci.yml", "docs/git/a.txt"])
def test_what_only_looks_like_git_is_written(bench, path) -> None:
    assert bench("write_file", file_path=path, content="x\n").ok


def test_a_path_that_leads_out_is_refused(bench) -> None:
    (bench.root / "out").symlink_to("/tmp")
    for path in ("../x", "/tmp/x", "out/x"):
        observation = bench("write_file", file_path=path, content="x")
        assert not observation.ok
        assert "leads out of the repository" in observation.text


def test_the_encoding_is_kept_or_its_change_is_told(bench) -> None:
    bench.write("a.txt", "Preis \u2013 5 \u20ac\n".encode("windows-1252"))
    seen = bench("write_file", file_path="a.txt", content="Preis \u2013 6 \u20ac\n")
    assert seen.text == "Wrote a.txt (1 line)."
    assert bench.read("a.txt") == "Preis \u2013 6 \u20ac\n".encode("windows-1252")

    seen = bench("write_file", file_path="a.txt", content="\u65e5\u672c\n")
    assert seen.text == (
        "Wrote a.txt (1 line). It was encoded as windows-1252, which has no '\u65e5', and is "
        "UTF-8 now."
    )
    assert bench.read("a.txt") == "\u65e5\u672c\n".encode()


def test_a_file_with_a_byte_order_mark_keeps_one(bench) -> None:
    bench.write("a.json", b"\xef\xbb\xbf{}\n")
    seen = bench("write_file", file_path="a.json", content="\ufeff[]\n")
    assert seen.text == "Wrote a.json (1 line)."
    assert bench.read("a.json") == b"\xef\xbb\xbf[]\n"
    seen = bench("write_file", file_path="new.json", content="\ufeff[]\n")
    assert seen.text == "Wrote new.json (1 line)."
    assert bench.read("new.json") == b"\xef\xbb\xbf[]\n"
