"""The tokenizer and template of a GGUF file against the ones it was made from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import parity
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.checkpoint.gguf.text import template_name, text_folder
from model.errors import CheckpointError
from tests.support.make_gguf import make_gguf

TEMPLATES = Path(__file__).parents[4] / "golden" / "templates"


def keys_of(directory: Path, template: str) -> dict[str, Any]:
    """The keys that llama.cpp's converter makes of a tokenizer.json."""
    given = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    vocabulary, added = given["model"]["vocab"], given["added_tokens"]
    size = max([*vocabulary.values(), *(entry["id"] for entry in added)]) + 1
    tokens, types = [f"[PAD{i}]" for i in range(size + 3)], [5] * (size + 3)
    for text, number in vocabulary.items():
        tokens[number], types[number] = text, 1
    for entry in added:
        tokens[entry["id"]] = entry["content"]
        types[entry["id"]] = 3 if entry["special"] else 4
    merges = [m if isinstance(m, str) else " ".join(m) for m in given["model"]["merges"]]
    source = (TEMPLATES / f"{template}.jinja").read_text("utf-8")
    eos = next(e["id"] for e in added if e["content"] == "<|im_end|>")
    return {"tokens": tokens, "types": types, "merges": merges, "template": source, "eos": eos}


def write(path: Path, keys: dict[str, Any]) -> Path:
    """Write a file without tensors, which has all that the text needs."""
    config = parity.text_config("tiny") | {"num_hidden_layers": 4}
    make_gguf(path, config, {}, {}, tokenizer=keys)
    return path


@pytest.fixture(scope="module")
def qwen(qwen_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("gguf")
    return write(place / "m.gguf", keys_of(qwen_directory, "qwen3_6"))


@pytest.fixture(scope="module")
def made(qwen: Path) -> Tokenizer:
    return Tokenizer.load(text_folder(qwen))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text() | st.sampled_from(["def f(x):\n    return 'ü' * 12345  # 你好", "<think>\n"]))
def test_the_ids_are_those_of_the_original(
    text: str, made: Tokenizer, qwen_tokenizer: Tokenizer
) -> None:
    assert made.encode_text(text) == qwen_tokenizer.encode_text(text)
    assert made.encode_markup(text) == qwen_tokenizer.encode_markup(text)


def test_added_tokens_and_the_end(qwen: Path, made: Tokenizer, qwen_tokenizer: Tokenizer) -> None:
    assert made.vocab_size == qwen_tokenizer.vocab_size == 248077
    assert made.special("<think>") == 248068
    chat = ChatFormat.load(text_folder(qwen), made)
    assert 248046 in chat.stop_ids


def test_the_template_is_named(qwen: Path) -> None:
    folder = text_folder(qwen)
    assert template_name(folder) == "Qwen3.6"
    (folder / "chat_template.jinja").write_text("another")
    assert template_name(folder) == "not an official one"


def test_it_is_made_once_and_anew_for_another_file(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = write(tmp_path / "m.gguf", keys_of(tiny_checkpoint, "qwen3_6"))
    first = text_folder(path)
    written = (first / "tokenizer.json").stat().st_mtime_ns
    assert text_folder(path) == first
    assert (first / "tokenizer.json").stat().st_mtime_ns == written
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert text_folder(path) != first
    assert len(list(first.parent.iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"template": ""}, "no chat template"),
        ({"pre": "llama-bpe"}, "gpt2/llama-bpe, not one of this family"),
        ({"types": [1]}, "types"),
        ({"merges": []}, "lacks its tokens"),
    ],
)
def test_a_text_that_is_not_of_this_family_is_one_line(
    change: dict[str, Any], says: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    keys = keys_of(tiny_checkpoint, "qwen3_6") | change
    path = write(tmp_path / "m.gguf", keys)
    with pytest.raises(CheckpointError, match=says) as caught:
        text_folder(path)
    assert "\n" not in str(caught.value)


def test_tokens_in_another_order_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    keys = keys_of(tiny_checkpoint, "qwen3_6")
    keys["tokens"].insert(0, "<|odd|>")
    keys["types"].insert(0, 3)
    path = write(tmp_path / "m.gguf", keys)
    with pytest.raises(CheckpointError, match="numbers its tokens"):
        text_folder(path)
