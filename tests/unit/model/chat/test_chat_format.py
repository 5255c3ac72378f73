"""Encoding of messages by appending, with the official templates and with broken ones.

Whole renderings are compared in tests/property/test_chat_append.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from model.chat.chat_format import ChatFormat
from model.chat.template import ChatTemplate, Mask
from model.chat.tokenizer import Tokenizer
from model.checkpoint.hub import resolve
from model.errors import CheckpointError
from model.messages import Message, ToolCall

Load = Callable[[str], ChatFormat]
NAMES = ["qwen3_5_think", "qwen3_5_nothink", "qwen3_6", "qwen3_8"]
TEMPLATES = Path(__file__).parents[3] / "golden" / "templates"
PROMPT = "<|im_start|>assistant\n<think>\n"
PROMPT_OFF = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


@pytest.mark.parametrize("name", NAMES)
def test_every_official_template(name: str, qwen_chat: Load, qwen_tokenizer: Tokenizer) -> None:
    chat = qwen_chat(name)
    assert chat.stop_ids == {248_044, 248_046}
    begun = qwen_tokenizer.decode(chat.begin([Message("user", " Fix it. ")], [], True))
    assert begun.endswith(f"<|im_start|>user\nFix it.<|im_end|>\n{PROMPT}")
    answers = [Message("tool", "one\n"), Message("tool", "two"), Message("user", "And now?")]
    added = qwen_tokenizer.decode(chat.append(True, answers, False))
    assert added == (
        "\n<|im_start|>user\n<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n"
        "</tool_response><|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n" + PROMPT_OFF
    )


def test_a_turn_that_was_cut_is_closed(qwen_chat: Load, qwen_tokenizer: Tokenizer) -> None:
    chat = qwen_chat("qwen3_6")
    told = [Message("user", "Go on.")]
    after = f"\n<|im_start|>user\nGo on.<|im_end|>\n{PROMPT}"
    decode = qwen_tokenizer.decode
    assert decode(chat.append(True, told, True)) == after
    assert decode(chat.append(False, told, True)) == "<|im_end|>" + after
    cut = chat.append(False, told, True, open_thinking=True)
    assert decode(cut) == "\n</think>\n\n<|im_end|>" + after


def test_tools_and_system_text_come_first(qwen_chat: Load, qwen_tokenizer: Tokenizer) -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "é <b> <|im_end|>"}}
    ids = qwen_chat("qwen3_6").begin(
        [Message("system", "Be brief."), Message("user", "Hi")], [tool], True
    )
    text = qwen_tokenizer.decode(ids)
    assert f"<tools>\n{json.dumps(tool, ensure_ascii=False)}\n</tools>" in text
    assert "</IMPORTANT>\n\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n" in text
    im_end = qwen_tokenizer.special("<|im_end|>")
    assert ids.count(im_end) == 2  # type: ignore[arg-type]


def test_a_stored_conversation_is_rebuilt(qwen_chat: Load, qwen_tokenizer: Tokenizer) -> None:
    chat = qwen_chat("qwen3_6")
    call = ToolCall("f", {"n": 1, "s": "</think>", "broken": None})
    told = [
        Message("user", "Q"),
        Message("assistant", "A", "T", (call,)),
        Message("tool", "R"),
        Message("user", "Q2"),
    ]
    kept = qwen_tokenizer.decode(chat.begin(told, [], True))
    assert "<|im_start|>assistant\n<think>\nT\n</think>\n\nA\n\n<tool_call>\n<function=f>\n" in kept
    assert "<parameter=n>\n1\n</parameter>\n<parameter=s>\n</think>\n</parameter>\n" in kept
    dropped = qwen_tokenizer.decode(chat.begin(told, [], True, preserve_thinking=False))
    assert "<|im_start|>assistant\nA\n\n<tool_call>" in dropped


def test_the_embedded_checkpoint_appends_as_it_renders_whole() -> None:
    """Its template leaves tools and system text out; the rest is Qwen3.6's markup."""
    directory = resolve("embedded")
    tokenizer = Tokenizer.load(directory)
    chat = ChatFormat.load(directory, tokenizer)
    call = ToolCall("read_file", {"file_path": "a.py"})
    told = [Message("system", "S"), Message("user", "Fix <|im_end|> it")]
    later = [Message("tool", "x = 1 </tool_response>"), Message("user", "And?")]
    written = "T\n</think>\n\n<tool_call>\n<function=read_file>\n<parameter=file_path>\na.py\n"
    written += "</parameter>\n</function>\n</tool_call><|im_end|>"
    ids = chat.begin(told, [], True) + tokenizer.encode_markup(written)
    ids += chat.append(True, later, True)
    assert ids == chat.begin([*told, Message("assistant", "", "T", (call,)), *later], [], True)
    assert ids.count(tokenizer.special("</tool_response>") or -1) == 1
    assert chat.parser([], True).in_thinking


def test_a_conversation_the_template_refuses(qwen_chat: Load) -> None:
    chat = qwen_chat("qwen3_6")
    with pytest.raises(ValueError, match="No user query"):
        chat.begin([Message("system", "S")], [], True)
    with pytest.raises(ValueError, match="System message must be at the beginning"):
        chat.append(True, [Message("system", "S")], True)


def test_the_parser_starts_where_the_prompt_leaves_off(qwen_chat: Load) -> None:
    chat = qwen_chat("qwen3_6")
    assert chat.parser([], True).in_thinking
    assert not chat.parser([], False).in_thinking


def test_end_tokens_are_read_from_every_place(
    tmp_path: Path, qwen_tokenizer: Tokenizer, qwen_chat: Load
) -> None:
    template = (TEMPLATES / "qwen3_6.jinja").read_text("utf-8")
    listed = [{"name": "other", "template": "x"}, {"name": "default", "template": template}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": listed}))
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [248046, 9]}')
    chat = ChatFormat.load(tmp_path, qwen_tokenizer)
    assert chat.stop_ids == {7, 9, 248_046}
    told = [Message("user", "Q")]
    assert chat.begin(told, [], True) == qwen_chat("qwen3_6").begin(told, [], True)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (None, "has no chat template"),
        ("{% if %}", "chat template is broken"),
        ("no messages in here", "does not end an assistant turn"),
        (
            "{% for m in messages %}{{ m.content }}</s>{% endfor %}",
            "does not end an assistant turn",
        ),
        ("{{ messages.pop() }}", "refuses"),
        ("{{ ''.__class__.__mro__ }}", "refuses"),
        ("{{ undefined.attribute }}", "refuses"),
        ("{{ 1 / 0 }}", "refuses"),
    ],
)
def test_unusable_templates(
    template: str | None, complaint: str, tmp_path: Path, qwen_tokenizer: Tokenizer
) -> None:
    if template is not None:
        (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        ChatFormat.load(tmp_path, qwen_tokenizer)
    assert "\n" not in str(caught.value)


def test_broken_configuration_beside_the_template(
    tmp_path: Path, qwen_tokenizer: Tokenizer
) -> None:
    (tmp_path / "chat_template.jinja").write_bytes((TEMPLATES / "qwen3_6.jinja").read_bytes())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        ChatFormat.load(tmp_path, qwen_tokenizer)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds no JSON object"):
        ChatFormat.load(tmp_path, qwen_tokenizer)


def test_the_template_may_use_what_transformers_offers(qwen_tokenizer: Tokenizer) -> None:
    source = (
        "{{ strftime_now('%Y')|length }} {{ {'b': 'é<', 'a': 1}|tojson }} {{ eos_token }}"
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"
    )
    template = ChatTemplate(source, qwen_tokenizer, {"eos_token": "END"})
    assert template.render([]) == '4 {"b": "é<", "a": 1} END01'


def test_a_mask_hides_every_added_token_and_gives_it_back(qwen_tokenizer: Tokenizer) -> None:
    mask = Mask(qwen_tokenizer)
    data = {"<think>": ["a<|im_end|>b", 1, None, {"k": "<|im_end|></think>"}], "plain": True}
    hidden = mask(data)
    written = json.dumps(hidden)
    assert qwen_tokenizer.added_pattern.search(written) is None
    assert json.loads(mask.restore(written)) == data
    assert mask("no markup") == "no markup"
