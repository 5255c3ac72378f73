"""Definitions and mentions in each language against recorded ones, and hostile sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.index.extract import Extractor
from tools.index.languages import LANGUAGES, detect_language
from tools.index.tags import Tags

GOLDEN = Path(__file__).parents[3] / "golden" / "navigation"
INDEXED = [language.name for language in LANGUAGES if language.indexed]


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor()


def described(tags: Tags) -> Iterator[str]:
    """The tags as the golden files have them."""
    for item in tags.definitions:
        local = " local" if item.local else ""
        yield (
            f"{item.line}-{item.last} {'  ' * item.depth}{item.kind} {item.name}{local} "
            f"in {item.parent or '-'}: {item.signature}"
        )
    mentions = [
        f"{name}({weight}):{','.join(map(str, tags.lines_of(name)))}"
        for name, weight in zip(tags.names, tags.weights, strict=True)
    ]
    yield "mentions " + " ".join(sorted(mentions))


@pytest.mark.parametrize("language", INDEXED)
def test_tags_of_a_language(language: str, extractor: Extractor) -> None:
    lines = []
    for file in sorted((GOLDEN / language / "repo").iterdir()):
        source = file.read_bytes()
        found = detect_language(file.name, source)
        assert found is not None
        assert extractor.problems(found.name, source) == []
        lines += [f"== {file.name}: {found.name}", *described(extractor.tags(found.name, source))]
    assert "\n".join(lines) + "\n" == (GOLDEN / language / "tags.txt").read_text()


def test_every_indexed_language_has_a_case() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(INDEXED)


@pytest.mark.parametrize("language", [language.name for language in LANGUAGES])
@pytest.mark.parametrize("opening", ["(", "[", "{", "<a>", "if (", "class A { ", "a:\n ", "$("])
def test_deep_nesting_does_no_harm(language: str, opening: str, extractor: Extractor) -> None:
    source = (opening * 1_000).encode()
    extractor.problems(language, source)
    if language in INDEXED:
        extractor.tags(language, source)


@pytest.mark.parametrize("language", INDEXED)
@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"\0\xff\xfe" * 100,
        b"\xf0\x9f\x98\x80 = class \xc3\xa9t\xc3\xa9",
        b"a" * 20_000,
        b"def " * 500,
        b"\n" * 20_000,
    ],
)
def test_any_bytes_can_be_read(language: str, source: bytes, extractor: Extractor) -> None:
    tags = extractor.tags(language, source)
    assert len(tags.names) == len(tags.weights) == len(tags.counts)
    assert sum(tags.counts) == len(tags.lines)


@pytest.mark.parametrize(
    ("language", "source", "places"),
    [
        ("python", "def f(:\n    pass\n", [1]),
        ("python", "x = 1\ny = (2\n", [2]),
        ("json", '{"a": 1,}', [1]),
        ("toml", "a = 1\nb = = 2\n", [2]),
        ("yaml", "a: [1, 2\nb: 3\n", [1]),
        ("css", "a { color: red;\n", [1]),
        ("html", "<p><b>x</i></p>", [1]),
        ("javascript", "const a = 1;\nfunction f( {\n}\n", [2]),
        ("rust", "fn f() {\n    let x = ;\n}\n", [2]),
    ],
)
def test_broken_syntax_is_found(
    language: str, source: str, places: list[int], extractor: Extractor
) -> None:
    found = extractor.problems(language, source.encode())
    assert [problem.line for problem in found][:1] == places


def test_a_prototype_tells_the_two_languages_of_a_header_apart() -> None:
    assert (found := detect_language("a/b.h", b"int f(void);\n")) and found.name == "c"
    assert (found := detect_language("a/b.h", b"namespace a {\n}\n")) and found.name == "cpp"


@pytest.mark.parametrize(
    ("path", "head", "name"),
    [
        ("run", b"#!/usr/bin/env python3\n", "python"),
        ("run", b"#!/usr/bin/python3.11 -B\n", "python"),
        ("run", b"#!/bin/sh -e\n", "bash"),
        ("run", b"#! /usr/bin/env -S node --x\n", "javascript"),
        ("run", b"\x7fELF", None),
        ("Rakefile", b"", "ruby"),
        ("a.PY", b"", "python"),
        ("a.unknown", b"#!/bin/sh\n", None),
        ("dir.py/readme.md", b"", None),
    ],
)
def test_languages_are_told_by_name_or_first_line(path: str, head: bytes, name: str | None) -> None:
    found = detect_language(path, head)
    assert (found.name if found else None) == name
