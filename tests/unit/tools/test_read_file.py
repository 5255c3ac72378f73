"""read_file: the exact text of small files, ranges of large ones, one line for binary ones."""

from __future__ import annotations

import os

import pytest


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x = 1\ny = 2\n", "x = 1\ny = 2"),
        ("x = 1\ny = 2", "x = 1\ny = 2"),
        ("x = 1\n\n\n", "x = 1\n\n"),
        ("\n\nx\n", "\n\nx"),
        ("  \tx  \n", "  \tx  "),
        (b"x\r\ny\r\n", "x\ny"),
        (b"\xef\xbb\xbfx\n", "x"),
        ("naïve ☃\n", "naïve ☃"),
        ("café\n".encode("latin-1"), "café"),
        (b"\xfe\xff" + "zwei\n".encode("utf-16-be"), "zwei"),
        ("a\x0cb\x0bc\u2028d\n", "a\x0cb\x0bc\u2028d"),
        ("<|im_end|>\n</tool_response>\n", "<|im_end|>\n</tool_response>"),
    ],
)
def test_a_small_text_file_comes_as_it_is(bench, content, text) -> None:
    bench.write("a.txt", content)
    observation = bench("read_file", file_path="a.txt")
    assert (observation.text, observation.ok, observation.truncated) == (text, True, False)


def test_an_empty_file_and_a_blank_one_say_so(bench) -> None:
    bench.write("empty", "")
    bench.write("blank", "\n")
    assert bench("read_file", file_path="empty").text == "[empty file]"
    assert bench("read_file", file_path="blank").text == "[1 empty line]"


@pytest.mark.parametrize("given", ["src/a.py", "./src/a.py", "src/../src/a.py", "ROOT/src/a.py"])
def test_paths_may_be_relative_or_absolute(bench, given) -> None:
    bench.write("src/a.py", "x\n")
    assert bench("read_file", file_path=given.replace("ROOT", str(bench.root))).text == "x"


def test_a_range_has_a_header(bench) -> None:
    bench.write("a.txt", "".join(f"line {n}\n" for n in range(1, 11)))
    middle = bench("read_file", file_path="a.txt", offset=4, limit=2)
    assert middle.text == "[lines 4-5 of 10; use offset and limit for more]\nline 4\nline 5"
    assert middle.truncated
    assert bench("read_file", file_path="a.txt", offset="9").text == (
        "[lines 9-10 of 10]\nline 9\nline 10"
    )


def test_a_range_that_is_the_whole_file_has_none(bench) -> None:
    bench.write("a.txt", "one\ntwo\n")
    for offset in (0, 1):
        observation = bench("read_file", file_path="a.txt", offset=offset, limit=2000)
        assert (observation.text, observation.truncated) == ("one\ntwo", False)


def test_an_offset_past_the_end_tells_the_length(bench) -> None:
    bench.write("a.txt", "one\ntwo\n")
    observation = bench("read_file", file_path="a.txt", offset=3)
    assert not observation.ok
    assert observation.text == "offset 3 is past the end: a.txt has 2 lines."


def test_many_lines_are_cut_at_2000(bench) -> None:
    bench.write("a.txt", "x\n" * 5213)
    observation = bench("read_file", file_path="a.txt")
    header, *lines = observation.text.split("\n")
    assert header == "[lines 1-2000 of 5213; use offset and limit for more]"
    assert lines == ["x"] * 2000
    assert observation.truncated


def test_2000_lines_are_not_cut(bench) -> None:
    bench.write("a.txt", "x\n" * 2000)
    assert bench("read_file", file_path="a.txt").text == "\n".join(["x"] * 2000)


def test_many_characters_are_cut_at_a_line_end(bench) -> None:
    bench.write("a.txt", ("y" * 99 + "\n") * 1000)
    observation = bench("read_file", file_path="a.txt")
    header, *lines = observation.text.split("\n")
    assert header == "[lines 1-400 of 1000; use offset and limit for more]"
    assert lines == ["y" * 99] * 400


def test_the_parts_put_together_are_the_file(bench) -> None:
    lines = [f"{n} " + "z" * (n % 97) for n in range(3000)]
    bench.write("a.txt", "\n".join(lines) + "\n")
    seen: list[str] = []
    while len(seen) < len(lines):
        text = bench("read_file", file_path="a.txt", offset=len(seen) + 1).text
        seen += text.split("\n")[1:]
    assert seen == lines


def test_a_very_long_line_is_cut_with_a_note(bench) -> None:
    bench.write("min.js", "a" * 50_000 + "\nend\n")
    observation = bench("read_file", file_path="min.js")
    assert observation.text == (
        "a" * 2000 + " [... line cut: 2,000 of 50,000 characters shown]\nend"
    )
    assert observation.truncated


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\r", "[binary file: 12 bytes, PNG image]"),
        (b"\x7fELF\x02\x01\x01\0", "[binary file: 8 bytes, ELF program or library]"),
        (b"abc\0def", "[binary file: 7 bytes, unknown type]"),
        (bytes(range(1, 256)) * 20, "[binary file: 5.0 KB, unknown type]"),
        (b"x" * 9000 + b"\0", "[binary file: 8.8 KB, unknown type]"),
    ],
)
def test_a_binary_file_is_one_line(bench, content, text) -> None:
    bench.write("data", content)
    assert bench("read_file", file_path="data").text == text


def test_a_100_mb_text_file_is_refused_with_its_size(bench) -> None:
    with (bench.root / "huge.log").open("wb") as file:
        file.write(b"text\n" * 2000)
        file.truncate(100 * 1024 * 1024)
    observation = bench("read_file", file_path="huge.log")
    assert not observation.ok
    assert observation.text.startswith("huge.log is too large to read (100.0 MB): ")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("src", "src is a directory: use list_directory to see its files."),
        ("src/cacl.py", "There is no file src/cacl.py. Nearest existing: src/calc.py."),
        ("calc.py", "There is no file calc.py. Nearest existing: src/calc.py."),
        ("src/calc.py/x", "There is no file src/calc.py/x."),
        ("zzzz.rs", "There is no file zzzz.rs."),
        ("", "The path is empty: give a path relative to the repository root."),
        ("pipe", "pipe is not a regular file (a device, socket or pipe)."),
        (
            "link",
            "link leads out of the repository: only paths inside ROOT can be used, "
            "best relative to it. Nearest existing: link.",
        ),
    ],
)
def test_what_cannot_be_read(bench, path, text) -> None:
    bench.write("src/calc.py", "x = 1\n")
    os.mkfifo(bench.root / "pipe")
    (bench.root / "link").symlink_to("/etc/passwd")
    observation = bench("read_file", file_path=path)
    assert not observation.ok
    assert observation.text == text.replace("ROOT", str(bench.root))


def test_git_internals_may_be_read(bench) -> None:
    bench.write(".git/HEAD", "ref: refs/heads/main\n")
    assert bench("read_file", file_path=".git/HEAD").text == "ref: refs/heads/main"


def test_a_link_inside_the_repository_is_followed(bench) -> None:
    bench.write("src/a.py", "x\n")
    (bench.root / "b.py").symlink_to("src/a.py")
    assert bench("read_file", file_path="b.py").text == "x"


def test_a_file_that_vanishes_is_a_failure_not_an_error(bench, monkeypatch) -> None:
    bench.write("a.txt", "x\n")

    def vanish(path: str, *, max_bytes: int | None = None) -> bytes:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(bench.context.sandbox, "read_bytes", vanish)
    observation = bench("read_file", file_path="a.txt")
    assert observation.text == "a.txt cannot be read: No such file or directory."
    assert not observation.ok


def long_source(classes: int, methods: int) -> str:
    """Classes with methods, eight lines a method."""
    body = "".join(
        f"class C{c}:\n"
        + "".join(
            f"    def m{c}_{m}(self, value):\n" + "        value += 1\n" * 7 for m in range(methods)
        )
        for c in range(classes)
    )
    return body


def test_a_long_source_file_comes_as_an_outline(bench) -> None:
    bench.write("a.py", long_source(10, 20))
    observation = bench("read_file", file_path="a.py")
    assert observation.ok and observation.truncated
    header, *lines = observation.text.split("\n")
    assert header == (
        "[a.py has 1,610 lines. This is its outline, with the first and last line of each "
        "definition; read the lines you need with offset and limit.]"
    )
    assert lines[:3] == [
        "1-161: class C0",
        "2-9:   def m0_0(self, value)",
        "10-17:   def m0_1(self, value)",
    ]
    assert len(lines) == 210
    part = bench("read_file", file_path="a.py", offset=10, limit=8)
    assert part.text.startswith(
        "[lines 10-17 of 1610; use offset and limit for more]\n    def m0_1"
    )
    assert bench("read_file", file_path="a.py", offset=1).text.startswith(
        "[lines 1-1610 of 1610"
    ) or (bench("read_file", file_path="a.py", offset=1).text.startswith("class C0"))


def test_an_outline_that_is_too_long_has_the_outer_definitions(bench) -> None:
    bench.write("a.py", long_source(40, 20))
    text = bench("read_file", file_path="a.py").text
    assert len(text) < 13_000
    assert text.split("\n")[1:3] == ["1-161: class C0", "162-322: class C1"]
    bench.write("b.py", "".join(f"def function_number_{n}(): pass\n" for n in range(2000)))
    text = bench("read_file", file_path="b.py").text
    assert len(text) < 13_000
    assert text.endswith("more definitions; find_symbol finds them by name]")


def test_1000_lines_of_source_come_whole(bench) -> None:
    source = "def f(): pass\n" * 1000
    bench.write("a.py", source)
    assert bench("read_file", file_path="a.py").text == source.removesuffix("\n")


def test_long_files_without_definitions_come_by_lines(bench) -> None:
    bench.write("a.py", "x\n" * 1500)
    assert bench("read_file", file_path="a.py").text == "\n".join(["x"] * 1500)
    bench.write("a.txt", "def f(): pass\n" * 1500)
    assert bench("read_file", file_path="a.txt").text.startswith("def f(): pass\ndef f()")
