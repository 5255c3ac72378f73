"""JSON and its kin are held to JSON, where they were JSON before."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("path", "before", "old", "new", "place"),
    [
        ("a.ipynb", '{"source": ["x\\n"]}\n', "x\\n", "x\n", "line 1, column 15"),
        ("a.geojson", '{"a": 1}\n', "1}", "1", "line 1"),
        ("a.webmanifest", '{"a": 1}\n', "1", "tru", "line 1, column"),
        ("a.jsonl", '{"a": 1}\n{"a": "\u2028 2"}\n', "2", "\x01", "line 2, column 10"),
        ("a.code-workspace", '{"a": 1 /* one */}\n', "1 ", "", "line 1"),
        ("uv.lock", "a = 1\n", "1", "", "line"),
    ],
)
def test_what_no_longer_parses_is_told(bench, path, before, old, new, place) -> None:
    bench.write(path, before)
    seen = bench("edit", file_path=path, old_string=old, new_string=new)
    assert seen.ok
    assert f"{path} does not parse now:\n{place}" in seen.text


@pytest.mark.parametrize(
    ("path", "before", "old", "new"),
    [
        ("a.jsonl", '{"a": "\u2028\x85\x0c"}\n'.replace("\x0c", ""), "a", "b"),
        ("a.jsonc", '// one\n{"a": 1}\n', "1", "2"),
        ("tsconfig.json", '{"a": 1} // one\n', "1", "2"),
        ("deep.json", "[" * 5_000 + "1" + "]" * 5_000, "1", "2"),
        ("long.json", "[1]", "1", "1" * 6_000),
        ("broken.json", '{"a": "x\ny", "b": 1}', "1", "2"),
    ],
)
def test_what_parses_as_before_is_not_told(bench, path, before, old, new) -> None:
    bench.write(path, before)
    seen = bench("edit", file_path=path, old_string=old, new_string=new)
    assert seen.text == f"Edited {path}: 1 replacement."
