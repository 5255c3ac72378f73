"""Edits of files that changed since the model saw them, and the check of the syntax after edits."""

from __future__ import annotations

import pytest

CALC = "def add(a, b):\n    return a - b\n"


def fix(bench, **more):
    arguments = {"old_string": "a - b", "new_string": "a + b", **more}
    return bench("edit", file_path="calc.py", **arguments)


def test_an_edit_after_reading_and_after_ones_own_edit_is_fine(bench) -> None:
    bench.write("calc.py", CALC)
    bench("read_file", file_path="calc.py")
    assert fix(bench).text == "Edited calc.py: 1 replacement."
    bench("run_shell_command", command="cat calc.py > other.txt")
    assert fix(bench, old_string="a + b", new_string="b + a").ok
    assert bench("write_file", file_path="calc.py", content=CALC).ok
    assert fix(bench).ok


def test_a_file_that_was_never_read_can_be_edited(bench) -> None:
    bench.write("calc.py", CALC)
    assert fix(bench).ok


def test_a_change_by_a_command_is_shown_and_must_be_read(bench) -> None:
    bench.write("calc.py", CALC)
    bench("read_file", file_path="calc.py")
    bench("run_shell_command", command="sed -i s/add/plus/ calc.py")
    for _ in range(2):
        observation = fix(bench)
        assert not observation.ok
        assert observation.text == (
            "Nothing was changed: calc.py is not what it was when you last read or wrote it; a "
            "command or somebody else changed it since. Read it again with read_file, then repeat "
            "the edit if it still fits. The difference:\n"
            "@@ -1,2 +1,2 @@\n-def add(a, b):\n+def plus(a, b):\n     return a - b"
        )
        assert bench.read("calc.py") == CALC.replace("add", "plus").encode()
    bench("read_file", file_path="calc.py", offset=1, limit=1)
    assert fix(bench).ok


def test_a_preview_teaches_the_model_nothing(bench) -> None:
    bench.write("calc.py", CALC)
    bench("read_file", file_path="calc.py")
    arguments = {"file_path": "calc.py", "old_string": "a - b", "new_string": "a + b"}
    assert len(bench.registry.preview("edit", arguments)) == 1
    assert fix(bench).ok


def test_write_file_does_not_overwrite_what_somebody_changed(bench) -> None:
    bench.write("calc.py", CALC)
    bench("edit", file_path="calc.py", old_string="a - b", new_string="a + b")
    bench.write("calc.py", "theirs = 1\n")
    assert not bench("write_file", file_path="calc.py", content="ours = 1\n").ok
    assert bench.read("calc.py") == b"theirs = 1\n"
    bench("read_file", file_path="calc.py")
    assert bench("write_file", file_path="calc.py", content="ours = 1\n").ok


def test_a_file_that_is_gone_or_put_back_is_no_surprise(bench) -> None:
    file = bench.write("calc.py", CALC)
    bench("read_file", file_path="calc.py")
    file.write_text("x = 1\n")
    file.write_text(CALC)
    assert fix(bench).ok
    file.unlink()
    assert fix(bench).text.startswith("There is no file calc.py.")
    assert bench("write_file", file_path="calc.py", content=CALC).ok


def test_a_link_and_its_file_are_one(bench) -> None:
    bench.write("calc.py", CALC)
    (bench.root / "link.py").symlink_to("calc.py")
    bench("read_file", file_path="link.py")
    bench.write("calc.py", CALC + "# more\n")
    assert not fix(bench).ok


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b"a\n", b"a\r\n", " The difference is in its encoding or its line endings."),
        (b"a\n", b"\0\1", ""),
    ],
)
def test_differences_that_no_diff_shows(bench, before, after, said) -> None:
    bench.write("calc.py", before)
    bench("read_file", file_path="calc.py")
    bench.write("calc.py", after)
    observation = fix(bench)
    assert not observation.ok
    assert observation.text.endswith(f"if it still fits.{said}")


def test_a_long_difference_is_cut(bench) -> None:
    bench.write("calc.py", "".join(f"a{n}\n" for n in range(500)))
    bench("read_file", file_path="calc.py")
    bench.write("calc.py", "".join(f"b{n}\n" for n in range(500)))
    text = fix(bench).text
    assert text.endswith("more lines of difference ...]")
    assert text.count("\n") < 100


def test_broken_syntax_is_reported_with_its_place(bench) -> None:
    bench.write("calc.py", CALC)
    observation = fix(bench, new_string="(a + b")
    assert observation.ok
    assert observation.text == (
        "Edited calc.py: 1 replacement.\n"
        "The change is made, but calc.py does not parse now:\n"
        "line 2, column 5:     return (a + b"
    )
    assert bench.read("calc.py") == b"def add(a, b):\n    return (a + b\n"
    assert fix(bench, old_string="(a + b", new_string="a + b").text == (
        "Edited calc.py: 1 replacement."
    )


def test_what_was_broken_before_is_not_reported(bench) -> None:
    bench.write("calc.py", "x = = 1\n\n\n" + CALC)
    assert fix(bench).text == "Edited calc.py: 1 replacement."
    observation = fix(bench, old_string="a + b", new_string="a + = b")
    assert "calc.py does not parse now:\nline 5" in observation.text


@pytest.mark.parametrize(
    ("path", "good", "bad", "place"),
    [
        ("a.json", '{"a": 1}\n', '{"a": 1,}\n', "line 1, column 8"),
        ("a.toml", "a = 1\n", "a = = 1\n", "line 1"),
        ("a.yaml", "a: 1\n", "a: [1\n", "line 1"),
        ("a.css", "a { color: red }\n", "a { color: red\n", "line 1"),
        ("a.html", "<p>a</p>\n", "<p>a</i></p>\n", "line 1"),
        ("a.rs", "fn f() {}\n", "fn f( {}\n", "line 1"),
    ],
)
def test_written_files_are_checked(bench, path, good, bad, place) -> None:
    assert bench("write_file", file_path=path, content=good).text == f"Wrote {path} (1 line)."
    text = bench("write_file", file_path=path, content=bad).text
    assert text.startswith(f"Wrote {path} (1 line).\nThe change is made, but {path} does not parse")
    assert place in text


def test_a_new_file_is_checked(bench) -> None:
    text = bench("edit", file_path="new.py", old_string="", new_string="def f(:\n").text
    assert text.startswith(
        "Created new.py (1 line).\nThe change is made, but new.py does not parse"
    )


def test_a_text_that_no_grammar_knows_is_not_checked(bench) -> None:
    assert bench("write_file", file_path="a.txt", content="def f(:\n").text == (
        "Wrote a.txt (1 line)."
    )


def test_many_broken_places_are_cut(bench) -> None:
    content = "".join(f"x{n} = = 1\n" for n in range(30))
    text = bench("write_file", file_path="a.py", content=content).text
    assert "\nand " in text
    assert len(text.split("\n")) == 8
