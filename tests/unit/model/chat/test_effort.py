"""Efforts in the official templates, and the words that people use for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.run.build import settle_thinking
from agent.settings.load import load_settings
from agent.settings.table import Settings
from model.chat.chat_format import ChatFormat
from model.chat.effort import LEVELS, fit_effort, read_effort, unknown_effort
from model.chat.tokenizer import Tokenizer
from model.messages import Message

Load = Callable[[str], ChatFormat]
ASKED = [Message("system", "Be brief."), Message("user", "Hi")]


@pytest.mark.parametrize("level", LEVELS)
def test_an_effort_is_what_qwen3_8_writes_for_it(
    level: str, qwen_chat: Load, qwen_tokenizer: Tokenizer
) -> None:
    chat = qwen_chat("qwen3_8")
    word = {"high": "xhigh"}.get(level, level)
    text = qwen_tokenizer.decode(chat.at_effort(level).begin(ASKED, [], True))
    said = f"Reasoning effort is set to {word}." in text
    assert said == (level != "medium")  # the template says nothing of its middle
    assert text.count("Reasoning effort") == said
    assert text.endswith("<|im_start|>assistant\n<think>\n")
    # What comes after a turn never tells of it, so a session's beginning stays as it is.
    told = [Message("user", "And now?")]
    assert chat.at_effort(level).append(True, told, True) == chat.append(True, told, True)


@pytest.mark.parametrize("name", ["qwen3_5_think", "qwen3_5_nothink", "qwen3_6"])
def test_a_template_without_efforts_is_left_alone(name: str, qwen_chat: Load) -> None:
    chat = qwen_chat(name)
    for level in (*LEVELS, "auto"):
        assert chat.at_effort(level).begin(ASKED, [], True) == chat.begin(ASKED, [], True)


def test_a_missing_level_becomes_the_next_higher_one_else_the_highest() -> None:
    known = {"low": "a", "high": "b"}
    assert [fit_effort(level, known.get) for level in LEVELS] == ["low", "high", "high", "high"]
    assert fit_effort("low", lambda word: "the same") is None
    assert fit_effort("low", lambda word: None) is None


def test_the_words_of_others_are_read() -> None:
    words = ["none", "minimal", " LOW", "medium", "High", "max", "auto", "default"]
    read = ["none", "none", "low", "medium", "high", "xhigh", "auto", "auto"]
    assert [read_effort(word) for word in words] == read


def test_settings_read_efforts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert load_settings({"effort": "max"}, tmp_path).effort == "xhigh"
    off = load_settings({"effort": "minimal"}, tmp_path)
    assert (off.effort, off.thinking) == ("auto", "off")
    (tmp_path / ".agent.toml").write_text('effort = "low"\n', "utf-8")
    assert load_settings({}, tmp_path).effort == "low"
    assert load_settings({}, tmp_path).thinking == "auto"


def test_a_word_that_nobody_knows_is_the_templates_own_and_is_told_of(
    tmp_path: Path, qwen_chat: Load
) -> None:
    """Also one that would write on a terminal, or is as long as a book."""
    settings = load_settings({"effort": " Frantic\x1b[2J"}, tmp_path)
    line = unknown_effort(settings.effort)
    assert line == "no effort is called 'frantic[2j': the template's own counts; there are " + (
        "none, low, medium, high, xhigh, auto"
    )
    assert unknown_effort("max") is None
    assert len(load_settings({"effort": "x" * 10_000}, tmp_path).effort) == 40
    chat = qwen_chat("qwen3_8")
    assert chat.at_effort("frantic").begin(ASKED, [], True) == chat.begin(ASKED, [], True)
    assert chat.at_effort("frantic").effort == ""
    assert chat.at_effort("high").effort == "xhigh"


@pytest.mark.parametrize(
    ("name", "thinks"),
    [("qwen3_5_think", True), ("qwen3_5_nothink", False), ("qwen3_6", True), ("qwen3_8", True)],
)
def test_a_small_member_does_not_think_unless_it_is_asked_to(
    name: str, thinks: bool, qwen_chat: Load
) -> None:
    chat = qwen_chat(name)
    assert chat.thinks == thinks
    by_itself = settle_thinking(Settings(), chat).thinking
    assert by_itself == ("preserve" if thinks else "off")
    assert settle_thinking(Settings(effort="low"), chat).thinking == "preserve"
    assert settle_thinking(Settings(thinking="preserve"), chat).thinking == "preserve"
    assert settle_thinking(Settings(effort="none"), chat).thinking == "off"
