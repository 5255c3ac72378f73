"""Text that looks like another is found where it is alone, and its characters are named."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.text.lookalikes import (
    find_lookalike,
    make_plain,
    name_odd_characters,
    replace_lookalike,
)

SPACES = "\u00a0\u1680\u2000\u2007\u2009\u200a\u202f\u205f\u3000"
INVISIBLE = "\u00ad\u180e\u200b\u200c\u200d\u200e\u2060\ufeff\u202a\u2066"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\uff0d"
TEXT = st.text("ab \n.-\u00a0\u200b\u2026\u2014e\u0301\u00e9\u304b\u3099\uff11\u1112\u1161\ud55c")


@pytest.mark.parametrize(
    ("char", "plain"),
    [
        *((char, " ") for char in SPACES),
        *((char, "") for char in INVISIBLE),
        *((char, "-") for char in DASHES),
        ("\u2026", "..."),
        ("\uff21", "A"),
        ("\uff5e", "~"),
        ("e\u0301", "\u00e9"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("\u30d5\u309a", "\u30d7"),
    ],
)
def test_what_looks_alike_matches_and_is_named(char: str, plain: str) -> None:
    text = f"first line\nthe word{char}and more\n"
    match = find_lookalike(text, f"word{plain}and")
    assert match is not None
    assert text[match.start : match.end] == f"word{char}and"
    assert f"U+{ord(char[0]):04X} ({unicodedata.name(char[0]).lower()})" in match.differences
    assert "at line 2, column 9" in match.differences
    back = find_lookalike(f"the word{plain}and more", f"word{char}and")
    assert back is not None and "U+" in back.differences


@pytest.mark.parametrize(
    ("text", "old"),
    [
        ("one\u00a0two, one two", "one\u2009two"),  # two places
        ("a\u2003b", "\u00a0"),  # only a space
        ("plain text", "plain  text"),
        ("wait\u2026 now", "ait.. now"),  # from inside an ellipsis
        ("\u201cquoted\u201d", '"quoted"'),  # in code the kind of quotes matters
    ],
)
def test_what_is_not_alike_or_not_alone_does_not_match(text: str, old: str) -> None:
    assert find_lookalike(text, old) is None


def test_what_stays_keeps_the_characters_of_the_file() -> None:
    part = "list in\u00a0the\u2026 end"
    assert replace_lookalike(part, "list in the... end", "list in our... end") == (
        "list in\u00a0our\u2026 end"
    )
    assert replace_lookalike(part, "list in the... end", "x") == "x"


@given(TEXT, st.data())
def test_a_match_looks_like_what_was_asked(text: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(text)))
    old = make_plain(text[first : data.draw(st.integers(first, len(text)))])
    match = find_lookalike(text, old)
    if match is None:
        return
    part = text[match.start : match.end]
    assert make_plain(part) == old
    assert replace_lookalike(part, old, old) == part
    assert replace_lookalike(part, old, "") == ""
    replace_lookalike(part, old, data.draw(TEXT))


def test_letters_of_another_alphabet_are_named_and_not_matched() -> None:
    for text, old, name in [
        ("\u0430 = 1", "a = 1", "U+0430 (cyrillic small letter a) at line 1, column 1"),
        ("\ufb01nd it", "find it", "U+FB01 (latin small ligature fi) at line 1, column 1"),
    ]:
        assert find_lookalike(text, old) is None
        assert name_odd_characters(text, 0, len(text), old) == f"the file has {name}"
        assert name_odd_characters(old, 0, len(old), text).startswith("old_string has U+")
    assert name_odd_characters("\u0434\u0430", 0, 2, "\u0434\u0430") == ""
