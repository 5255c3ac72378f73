"""``agent model score --messages`` with pictures, against transformers' processor and model."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import AddedToken
from tokenizers import Tokenizer as Encoder
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from agent.cli import app
from benchmarks import parity
from model.vision.picture import read_picture
from tests.support.make_tiny_checkpoint import make
from tests.support.sighted import PREPROCESSOR, VISION_TOKENS, png, tower_tensors, vision_config

TOLERANCE = 2e-4


class Processor(Qwen3VLProcessor):
    """transformers' own, without its processor of videos, which needs torchvision."""

    def check_argument_for_proper_class(self, name: str, argument: object) -> None:
        """Take the processor of images by Pillow, and none of videos."""


@dataclass(frozen=True)
class Peer:
    """A checkpoint on disk, and what transformers makes of it."""

    folder: Path
    model: Any
    processor: Any

    def logprobs(self, messages: Sequence[Mapping[str, Any]]) -> list[float]:
        """Of each token that is none of a picture, after all before it."""
        inputs = self.processor.apply_chat_template(
            messages, tokenize=True, return_dict=True, return_tensors="pt"
        )
        with torch.inference_mode():
            logits = self.model(**inputs).logits[0]
        # Ids that no token has are never sampled, and have no probability with us.
        rows = logits[:, : len(self.processor.tokenizer)].log_softmax(-1)
        nexts = inputs["input_ids"][0, 1:]
        said = nexts != self.processor.image_token_id
        assert int((~said).sum()) > 0
        return rows[:-1].gather(1, nexts[:, None])[:, 0][said].tolist()


@pytest.fixture(scope="module", params=["tiny", "experts"])
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Peer:
    """Random float32 weights, dense and with experts."""
    folder = make(tmp_path_factory.mktemp(request.param))
    path = folder / "tokenizer.json"
    encoder = Encoder.from_file(str(path))
    encoder.add_tokens(
        [AddedToken(text, special=True) for text in (*VISION_TOKENS, "<|video_pad|>")]
    )
    encoder.save(str(path))

    text = {**parity.text_config(request.param), "vocab_size": 1024}
    vision = vision_config(text["hidden_size"])
    moe = "moe" in text["model_type"]
    kind = Qwen3_5MoeForConditionalGeneration if moe else Qwen3_5ForConditionalGeneration
    start, end, pad = (encoder.token_to_id(token) for token in VISION_TOKENS)
    config = kind.config_class(
        text_config=text,
        vision_config=vision,
        image_token_id=pad,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=text["tie_word_embeddings"],
        attn_implementation="eager",
    )
    torch.manual_seed(1)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "visual" not in name and parameter.dim() > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.05)
    model.model.visual.load_state_dict(tower_tensors(vision))
    tied = "lm_head.weight" if text["tie_word_embeddings"] else ""
    tensors = {n: t.contiguous() for n, t in model.state_dict().items() if n != tied}
    save_file(tensors, folder / "model.safetensors")
    told = json.loads(config.to_json_string(use_diff=False))
    (folder / "config.json").write_text(json.dumps({**told, "text_config": text}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    template = (folder / "chat_template.jinja").read_text()
    images = Qwen2VLImageProcessorPil(**{**PREPROCESSOR, "image_processor_type": None})
    processor = Processor(images, tokenizer, chat_template=template)
    return Peer(folder, model, processor)


def conversation(place: Path) -> list[dict[str, Any]]:
    """Pictures of sizes that nobody resizes: two in the question, one in a tool's answer."""
    file = place / "shot one.png"
    file.write_bytes(png(128, 160, seed=1))
    inline = read_picture(png(128, 128, seed=2)).data_url
    answer = read_picture(png(256, 64, seed=3)).data_url
    call = {"function": {"name": "look", "arguments": '{"file": "a.png"}'}}
    return [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": str(file)}},
                {"type": "text", "text": "What differs <|image_pad|> "},
                {"type": "image_url", "image_url": {"url": inline}},
                {"type": "text", "text": " here?"},
            ],
        },
        {"role": "assistant", "content": "I look again.", "tool_calls": [call]},
        {
            "role": "tool",
            "content": [
                {"type": "image", "image": answer},
                {"type": "text", "text": "a.png, 64 wide"},
            ],
        },
        {"role": "assistant", "content": "The colour."},
    ]


def theirs(messages: list[dict[str, Any]], place: Path) -> list[dict[str, Any]]:
    """Return the messages as transformers' processor takes them: images, no marked-up text."""
    shown = iter([png(128, 160, seed=1), png(128, 128, seed=2), png(256, 64, seed=3)])
    made = copy.deepcopy(messages)
    for message in made:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        for item in message["content"] if isinstance(message["content"], list) else ():
            if item["type"] != "text":
                file = place / "theirs.png"
                file.write_bytes(next(shown))
                item.clear()
                item.update(type="image", image=Image.open(file).convert("RGB"))
    return made


def test_scores_are_those_of_transformers(
    peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = conversation(tmp_path)
    # Text that looks like a picture's place is text to us; transformers would take it for one.
    messages[1]["content"][1]["text"] = "What differs "
    file = tmp_path / "messages.json"
    file.write_text(json.dumps(messages))
    name = str(peer.folder)
    score = ["model", "score", name, "--messages", str(file), "--output", "json"]
    assert app.call([*score, "--against", name]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = peer.logprobs(theirs(messages, tmp_path))
    assert len(found["logprobs"]) == len(expected)
    assert found["logprobs"] == pytest.approx(expected, abs=TOLERANCE)
    assert found["against"]["largest"] == 0.0
    assert sum(i < 0 for i in found["ids"]) == 20 + 16 + 16

    # A picture's content counts: another one of the same size changes what follows it.
    other = read_picture(png(256, 64, seed=9)).data_url
    messages[3]["content"][0]["image"] = other
    file.write_text(json.dumps(messages))
    assert app.call(score) == 0
    changed = json.loads(capsys.readouterr().out)["logprobs"]
    same = len(expected) - len([True for a, b in zip(expected, changed, strict=True) if a != b])
    assert 0 < same < len(expected)


def test_a_place_of_a_picture_in_text_is_text(
    peer: Peer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "messages.json"
    file.write_text(json.dumps(conversation(tmp_path)))
    assert app.call(["model", "score", str(peer.folder), "--messages", str(file)]) == 0
    assert "perplexity" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("item", "role", "why"),
    [
        ({"type": "image", "image": "data:image/png;base64,AAAA"}, "user", "no picture"),
        ({"type": "image", "image": "/gone.png"}, "tool", "is no file"),
        ({"type": "image_url", "image_url": {"url": "http://x/y.png"}}, "user", "is no file"),
        ({"type": "image", "image": "data:text/html,x"}, "user", "data:image"),
        ({"type": "image", "image": read_picture(png(32, 32)).data_url}, "system", "mage"),
    ],
)
def test_pictures_that_cannot_be_scored_are_one_line(
    peer: Peer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    item: dict[str, Any],
    role: str,
    why: str,
) -> None:
    file = tmp_path / "messages.json"
    messages = [{"role": role, "content": [item]}, {"role": "user", "content": "hi"}]
    file.write_text(json.dumps(messages))
    code = app.call(["model", "score", str(peer.folder), "--messages", str(file)])
    said = capsys.readouterr().err
    assert code in (1, 2)
    assert said.startswith("error: ") and why in said and said.count("\n") == 1
