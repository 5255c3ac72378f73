"""Ids of conversations with pictures are those of the official template's whole rendering."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.chat.chat_format import ChatFormat
from model.chat.template import ChatTemplate, Mask
from model.chat.tokenizer import Tokenizer
from model.messages import Message
from model.vision.eyes import Eyes
from model.vision.image_ids import placeholders
from model.vision.picture import read_picture
from tests.support.sighted import png, sighted_format

PICTURES = [read_picture(png(40 + 30 * n, 60, seed=n), f"p{n}.png") for n in range(3)]
shown = st.lists(st.sampled_from(PICTURES), max_size=2).map(tuple)
words = st.sampled_from(["look", "  <|image_pad|> is text here ", "a\nb", "<|vision_start|>x"])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatFormat, Tokenizer, Eyes, Path]:
    return sighted_format(tmp_path_factory.mktemp("format"))


def official(parts: tuple[ChatFormat, Tokenizer, Eyes, Path], messages: list[Message]) -> list[int]:
    """The template's own rendering, with as many placeholders as each picture has tokens."""
    _, tokenizer, eyes, folder = parts
    mask = Mask(tokenizer)
    template = ChatTemplate.load(folder, tokenizer)
    entries = [
        {
            "role": message.role,
            "content": message.content
            if message.role == "assistant"
            else [
                *({"type": "image"} for _ in message.pictures),
                {"type": "text", "text": mask(message.content)},
            ],
            "reasoning_content": "",
        }
        for message in messages
    ]
    text = template.render(
        entries,
        tools=None,
        add_generation_prompt=True,
        enable_thinking=True,
        preserve_thinking=True,
    )
    for message in messages:
        for picture in message.pictures:
            grid = eyes.preparing.grid(picture.height, picture.width)
            text = text.replace("<|image_pad|>", "<|one|>" * grid.tokens, 1)
    return template.encode(text.replace("<|one|>", "<|image_pad|>"), mask)


@settings(max_examples=40, deadline=None)
@given(words, shown, st.lists(st.tuples(words, shown), min_size=1, max_size=3))
def test_ids_equal_the_official_template(parts, first, seen, answers) -> None:  # type: ignore[no-untyped-def]
    chat, tokenizer, _, _ = parts
    pad = tokenizer.special("<|image_pad|>")
    assert pad is not None
    begun = [Message("user", first, pictures=seen)]
    said = Message("assistant", "I look.", thinking="")
    tools = [Message("tool", text, pictures=pictures) for text, pictures in answers]
    ids = chat.begin(begun, [], True)
    assert placeholders(ids, pad) == official(parts, begun)
    added = chat.append(True, tools, True)
    whole = chat.begin([*begun, said, *tools], [], True)
    assert whole[len(whole) - len(added) :] == added
    assert placeholders(whole, pad) == official(parts, [*begun, said, *tools])
    digests = {p.digest for m in [*begun, *tools] for p in m.pictures}
    assert (min(whole) < 0) == bool(digests)


def test_a_system_message_takes_no_picture(
    parts: tuple[ChatFormat, Tokenizer, Eyes, Path],
) -> None:
    chat = parts[0]
    system = Message("system", "x", pictures=(PICTURES[0],))
    with pytest.raises(ValueError, match="System message cannot contain images"):
        chat.begin([system, Message("user", "y")], [], True)


def test_a_model_without_eyes_reads_of_it_in_words(
    parts: tuple[ChatFormat, Tokenizer, Eyes, Path],
) -> None:
    chat, tokenizer = parts[0].seeing(None), parts[1]
    picture = replace(PICTURES[0], name="<|im_end|>.png")
    ids = chat.begin([Message("user", "see", pictures=(picture,))], [], True)
    assert min(ids) >= 0
    text = tokenizer.decode(ids)
    assert "[PNG picture <|im_end|>.png, 60 × 40 pixels]\nsee" in text
    assert ids.count(tokenizer.special("<|im_end|>") or -1) == 1
