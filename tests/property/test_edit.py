"""edit against plain string replacement, over random files, encodings and line endings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tools.registry import Registry
from tools.text.lookalikes import find_lookalike
from tools.types import Observation, ToolContext


class Files:
    """The part of a sandbox that edit uses, over one folder."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._root = root

    def resolve(self, path: str) -> Path:
        return self._root if path == "." else self._root / path

    def relative(self, path: str) -> str:
        return path

    def read_bytes(self, path: str, *, max_bytes: int | None = None) -> bytes:
        return (self._root / path).read_bytes()

    def write_bytes(self, path: str, data: bytes) -> None:
        (self._root / path).write_bytes(data)


class Editor:
    """One file, ``a.txt``, and edits of it."""

    def __init__(self, root: Path) -> None:
        sandbox: Any = Files(root)
        self._file = root / "a.txt"
        self._registry = Registry(ToolContext(sandbox))

    def __call__(self, before: bytes, old: str, new: str, **more: Any) -> tuple[Observation, bytes]:
        self._registry.context.seen.clear()  # what comes now is another file
        self._file.write_bytes(before)
        arguments = {"file_path": "a.txt", "old_string": old, "new_string": new, **more}
        observation = self._registry.run("edit", arguments)
        assert not observation.text.startswith("internal error"), observation.text
        return observation, self._file.read_bytes()


@pytest.fixture(scope="module")
def edit(tmp_path_factory: pytest.TempPathFactory) -> Editor:
    return Editor(tmp_path_factory.mktemp("edit"))


many = settings(
    max_examples=int(os.environ.get("TENUTO_FUZZ", "500")),
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much],
)

# Few different characters, so that parts occur several times and overlap.
dense = st.text(alphabet="ab \t\n", max_size=30)
wide = st.text(
    alphabet=st.one_of(
        st.sampled_from("ab=() \t\n\r\f\x0b\x85\u2028\ufeff"),
        st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=60,
)
texts = st.one_of(dense, wide)


@st.composite
def edits(draw: st.DrawFn, texts: st.SearchStrategy[str] = texts) -> tuple[str, str, str]:
    """A text, a part of it (mostly), and something else to put there."""
    text = draw(texts)
    first = draw(st.integers(0, len(text)))
    last = draw(st.integers(first, len(text)))
    old = draw(st.one_of(st.just(text[first:last]), texts))
    assume(old)
    new = draw(st.one_of(texts, st.just(old + "\n"), st.just("x\n" + old), st.just("")))
    return text, old, new


def positions(text: str, part: str) -> int:
    """How often ``part`` begins somewhere in ``text``."""
    return sum(text.startswith(part, at) for at in range(len(text)))


@many
@given(edits(), st.booleans())
def test_edit_is_string_replacement(edit: Editor, case: tuple[str, str, str], every: bool) -> None:
    text, old, new = case
    assume("\r" not in text + old + new and text[:1] != "\ufeff")
    found = positions(text, old)
    # What only looks alike, or has a mark before it, may be found too.
    assume(found or (find_lookalike(text, old) is None and old[:1] != "\ufeff"))

    observation, after = edit(text.encode(), old, new, replace_all=every)

    succeeds = old != new and (found == 1 or (every and found > 0))
    assert observation.ok is succeeds
    if succeeds:
        assert after.decode() == text.replace(old, new)
        count = text.count(old) if every else 1
        plural = "replacement" if count == 1 else "replacements"
        assert observation.text == f"Edited a.txt: {count} {plural}."
    else:
        assert after == text.encode()
        assert old == new or str(found) in observation.text or found == 0


@many
@given(edits(), st.booleans())
def test_crlf_files_stay_crlf(edit: Editor, case: tuple[str, str, str], model_crlf: bool) -> None:
    text, old, new = case
    assume("\r" not in text + old + new and "\n" in text and text[:1] != "\ufeff")
    assume(positions(text, old) == 1 and old != new)
    sent_old, sent_new = (
        (old.replace("\n", "\r\n"), new.replace("\n", "\r\n")) if model_crlf else (old, new)
    )

    observation, after = edit(text.replace("\n", "\r\n").encode(), sent_old, sent_new)

    assert observation.ok
    assert after.decode() == text.replace(old, new).replace("\n", "\r\n")


@many
@given(edits(), st.data())
def test_mixed_endings_stay_outside(
    edit: Editor, case: tuple[str, str, str], data: st.DataObject
) -> None:
    text, old, new = case
    assume("\r" not in text + old + new and text[:1] != "\ufeff")
    assume(positions(text, old) == 1 and old != new)
    crlf = data.draw(st.lists(st.booleans(), min_size=text.count("\n"), max_size=text.count("\n")))
    lines = text.split("\n")
    mixed = "".join(
        line + ("\r\n" if windows else "\n") for line, windows in zip(lines, crlf, strict=False)
    )
    mixed += lines[-1]
    at = text.index(old)
    head = len(text[:at]) + sum(crlf[: text.count("\n", 0, at)])
    tail = len(mixed) - (at + len(old)) - sum(crlf[: text.count("\n", 0, at + len(old))])

    observation, after = edit(mixed.encode(), old, new)

    assert observation.ok
    result = after.decode()
    assert result.startswith(mixed[:head])
    assert result.endswith(mixed[len(mixed) - tail :] if tail else "")
    assert result.replace("\r\n", "\n") == text.replace(old, new)


CODECS = {
    "utf-8": b"",
    "utf-8 with mark": b"\xef\xbb\xbf",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
}


@many
@given(edits(), st.sampled_from(sorted(CODECS)))
def test_encoding_and_mark_stay(edit: Editor, case: tuple[str, str, str], name: str) -> None:
    text, old, new = case
    assume("\r" not in text + old + new and text[:1] != "\ufeff")
    assume(positions(text, old) == 1 and old != new)
    codec, mark = name.removesuffix(" with mark"), CODECS[name]

    observation, after = edit(mark + text.encode(codec), old, new)

    assert observation.ok
    assert after == mark + text.replace(old, new).encode(codec)


latin = st.text(
    alphabet=st.one_of(
        st.sampled_from("ab \n"), st.characters(min_codepoint=0xA0, max_codepoint=0xFF)
    ),
    max_size=40,
)


@many
@given(edits(latin), st.sampled_from(["", "€", "☃"]))
def test_latin_1_stays_or_nothing_changes(
    edit: Editor, case: tuple[str, str, str], foreign: str
) -> None:
    text, old, new = case
    text = "é" + text  # alone it is no UTF-8, so the file is read as Latin-1
    before = text.encode("latin-1")
    try:
        before.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        assume(False)
    assume(positions(text, old) == 1)
    assume(old != new)

    observation, after = edit(before, old, new + foreign)

    assert observation.ok is (not foreign)
    assert after == (before if foreign else text.replace(old, new).encode("latin-1"))


@many
@given(wide, texts, texts, st.booleans())
def test_a_failed_edit_changes_nothing_and_explains(
    edit: Editor, text: str, old: str, new: str, every: bool
) -> None:
    before = text.encode()
    observation, after = edit(before, old, new, replace_all=every)
    if not observation.ok:
        assert after == before
        assert observation.text.startswith(("Nothing was changed: ", "a.txt is a binary file"))
        assert len(observation.text) < 5000


@many
@given(st.binary(max_size=80), texts, texts)
def test_any_bytes_are_handled(edit: Editor, before: bytes, old: str, new: str) -> None:
    observation, after = edit(before, old, new)
    assert observation.ok or after == before


@many
@given(st.text(alphabet="ab \t\n", min_size=8, max_size=60), st.data())
def test_a_change_of_whitespace_is_recognised(edit: Editor, text: str, data: st.DataObject) -> None:
    solid = "".join(text.split())
    assume(len(solid) >= 4)
    gaps = st.text(alphabet=" \t\n", max_size=2)
    old = "".join(char + data.draw(gaps) for char in solid)
    assume(old not in text)
    observation, _ = edit(text.encode(), old, "")
    assert not observation.ok
    assert "from old_string only in" in observation.text


def test_mode_bits_stay(edit: Editor, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    editor = Editor(tmp_path)
    path.write_bytes(b"x")
    path.chmod(0o750)
    editor(b"one\n", "one", "two")
    assert path.stat().st_mode & 0o777 == 0o750
