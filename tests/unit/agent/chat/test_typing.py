"""What helps typing: commands, completion, pastes, and the footer at every width."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from agent.chat.completion import ChatCompleter, best_matches
from agent.chat.footer import Facts
from agent.chat.paste import MAX_CHARACTERS, Pastes
from agent.chat.shown import pictures_in
from agent.chat.typed_lines import BUILT_IN, help_lines, read_line
from model.errors import PictureError
from model.usage import Usage
from model.vision.picture import read_picture
from tests.support.sighted import png


def test_lines_are_commands_or_messages() -> None:
    assert (read_line("/check pytest -q").command, read_line("/check pytest -q").rest) == (
        "check",
        "pytest -q",
    )
    assert read_line("fix it").command == ""
    assert read_line("/etc/hosts is wrong").rest == "/etc/hosts is wrong"
    assert read_line("/mine x", ["mine"]).command == "mine"
    with pytest.raises(ValueError, match="did you mean /rewind"):
        read_line("/rewnd")


def test_help_names_every_command() -> None:
    text = "\n".join(help_lines({"mine": "My own"}))
    assert all(f"/{name}" in text for name in [*BUILT_IN, "mine"])


def completions(text: str) -> list[str]:
    names = ["src/", "src/app.py", "tests/test_app.py"]
    completer = ChatCompleter({"check": "", "compact": ""}, Path(), names)
    return [c.text for c in completer.get_completions(Document(text), CompleteEvent())]


def test_commands_and_files_are_offered() -> None:
    assert completions("/c") == ["/check", "/compact"]
    assert completions("/check ") == []
    assert completions("see @app") == ["@src/app.py", "@tests/test_app.py"]
    assert completions("mail@app") == []


def test_close_names_come_first() -> None:
    names = ["a/b/parser.py", "parser.py", "docs/p_a_r_s.md", "x.py"]
    assert best_matches("pars", names, 3) == ["parser.py", "a/b/parser.py", "docs/p_a_r_s.md"]


@given(st.lists(st.text(max_size=3000), max_size=4))
def test_pastes_come_out_as_they_went_in(texts: list[str]) -> None:
    pastes = Pastes()
    marks = [pastes.fold(text) for text in texts]
    for text, mark in zip(texts, marks, strict=True):
        if mark != text:
            assert pastes.unfold(f"a {mark} b") == f"a {text} b"


def test_a_paste_beyond_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="save it in a file"):
        Pastes().fold("x" * (MAX_CHARACTERS + 1))


def test_a_pasted_picture_is_a_word_in_the_input_and_shown_with_the_message(tmp_path: Path) -> None:
    shot = read_picture(png(30, 50))
    pastes = Pastes()
    mark = pastes.fold(f"{shot.data_url}\n")
    assert mark.startswith("[pasted picture 1: ")
    text = pastes.unfold(f"like {mark} and {mark}")
    assert text == f"like {mark} and {mark}"
    assert [picture.digest for picture in pastes.pictures(text)] == [shot.digest]
    assert pastes.pictures("like [pasted picture 2: 1 kB], and [pasted picture 0: 1 kB]") == ()
    broken = pastes.fold("data:image/png;base64,AAAA")
    with pytest.raises(PictureError, match="pasted picture 2 is no picture"):
        pastes.pictures(broken)


@pytest.mark.parametrize("form", ["{}", "'{}'", '"{}"', "{} ", "file://{}", "{escaped}"])
def test_a_dropped_file_that_is_a_picture_is_named(tmp_path: Path, form: str) -> None:
    file = tmp_path / ("a b.png" if form != "{}" else "a.png")
    file.write_bytes(png(30, 50))
    if form == "{} ":
        file = file.rename(tmp_path / "c.png")
    name = str(file).replace(" ", "%20") if form.startswith("file") else str(file)
    mark = Pastes().fold(form.format(name, escaped=str(file).replace(" ", "\\ ")))
    assert mark == f' @"{file}" '
    (shown,) = pictures_in(f"look at{mark}please", tmp_path)
    assert (shown.width, shown.height) == (50, 30)


@pytest.mark.parametrize(
    "text", ["/etc/hostname", "/gone.png", "'", "/", "~", "a.png", "~nobody/x"]
)
def test_other_pasted_words_stay_as_they_are(text: str) -> None:
    assert Pastes().fold(text) == text


@given(st.integers(8, 200))
def test_the_footer_fits(columns: int) -> None:
    facts = Facts("org/model", "cpu", 1234, 4096, mode="plan", branch="main", sandbox="docker")
    usage = Usage(generated_tokens=50, decode_s=2.0, reused_tokens=900, drafted_tokens=9)
    facts = facts.after(usage, 1300)
    line = facts.line(columns, "·")
    assert len(line) < columns
    assert columns < 12 or line.startswith("plan mode")
    assert columns < 150 or "25 tokens/s" in line
    assert columns < 150 or "0 of 9 copied" in line
