"""Bytes become text and come back the same, with one byte-order mark at most."""

from __future__ import annotations

import pytest

from tools.text.text_file import MARK, decode

UTF8 = b"\xef\xbb\xbf"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"])
def test_a_mark_in_the_new_text_is_the_one_that_the_file_has(encoding: str) -> None:
    file = decode(f"{MARK}a\n".encode(encoding))
    assert file is not None
    assert file.text == "a\n"
    for text in ("b\n", f"{MARK}b\n", f"{MARK}{MARK}b\n"):
        assert file.encode(text) == f"{MARK}b\n".encode(encoding)


def test_a_doubled_mark_is_no_part_of_the_text() -> None:
    data = UTF8 * 2 + b"a\n"
    file = decode(data)
    assert file is not None
    assert (file.text, file.encode(file.text)) == ("a\n", data)


@pytest.mark.parametrize(
    ("data", "text", "encoding"),
    [
        (b"5 \x80 \x93q\x94 \x85", "5 \u20ac \u201cq\u201d \u2026", "windows-1252"),
        (b"caf\xe9 5 \x80", "caf\u00e9 5 \u20ac", "windows-1252"),
        (b"caf\xe9", "caf\u00e9", "latin-1"),
        (b"caf\xe9 \x81\x80", "caf\u00e9 \x81\x80", "latin-1"),  # 81 is nothing in Windows-1252
    ],
)
def test_windows_1252_is_told_from_latin_1(data: bytes, text: str, encoding: str) -> None:
    file = decode(data)
    assert file is not None
    assert (file.text, file.encoding, file.encode(file.text)) == (text, encoding, data)
