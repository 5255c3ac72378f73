"""Calls that are steered: whatever the templates write can be sampled, nothing malformed can."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.chat.parser import TurnParser
from model.chat.tokenizer import Tokenizer
from model.constraints.call_steering import CallSteering
from model.constraints.token_table import TokenTable
from model.constraints.turn_text import TurnTexts
from model.messages import ToolCall
from model.sampling import SamplingParams, choose
from model.steering import TokenMask
from tests.support.markup_noise import MarkupNoise

HOT = SamplingParams(temperature=1.5, top_k=0, top_p=1.0)
PIECES = [
    "<function=edit>", "</function>", "<parameter=text>", "</parameter>", "<tool_call>",
    "</tool_call>", "\n", "\n\n", " ", "\t", "\r\n", "x", "12", "é", "日本", "🙂", "`", "<", "&lt;",
    "\n</parameter>\n", "\n</function>\n</tool_call>\n", "\n<tool_call>\n<function=a>\n",
    "</PARAMETER>", "<think>", "</think>", "\u00a0", "def f():\n    return 1\n", '{"a": [1]}',
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join)


def tool(
    name: str, properties: Mapping[str, Any], required: Sequence[str] = (), **more: Any
) -> Any:
    schema = {"type": "object", "properties": properties, "required": list(required), **more}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


KINDS: dict[str, Any] = {
    "text": {"type": "string", "pattern": "^a+$"},
    "count": {"type": "integer"},
    "part": {"type": "number"},
    "flag": {"type": "boolean"},
    "word": {"enum": ["a", "a b", "ünï", 3, None]},
    "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
    "map": {"anyOf": [{"type": "object"}, {"type": "null"}]},
    "either": {"anyOf": [{"type": "integer"}, {"enum": ["auto"]}]},
    "free": {},
    "named": {"$ref": "#/$defs/item"},
}
TOOLS = [
    tool("edit", KINDS, ["text"], **{"$defs": {"item": {"type": "object"}}}),
    tool("mcp__a.b-c__dö", {"a": {"type": "string"}}),
    tool("many", {f"p{i}": {"type": "integer"} for i in range(200)}, ["p7"]),
    tool("submit", {}),
]
LEAVES = st.none() | st.booleans() | st.integers(-99, 10**9) | st.floats(-1e9, 1e9) | TEXTS
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "count": st.integers(),
    "part": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "word": st.sampled_from(KINDS["word"]["enum"]),
    "items": st.lists(JSON, max_size=3),
    "map": st.dictionaries(TEXTS, JSON, max_size=3) | st.none(),
    "either": st.integers() | st.just("auto"),
    "free": TEXTS,
    "named": st.dictionaries(TEXTS, JSON, max_size=2),
}


class Turn:
    """A turn that is read and masked at once."""

    def __init__(self, tokenizer: Tokenizer, texts: TurnTexts, table: TokenTable) -> None:
        self.stops = frozenset([tokenizer.special("<|im_end|>") or 0])
        self.parser = TurnParser(tokenizer.stream(), TOOLS, stop_ids=self.stops, in_thinking=False)
        self.steering = CallSteering(table, texts, self.stops, thinking=False)

    def push(self, token: int) -> None:
        self.parser.push(token)
        self.steering.push(token, thinking=self.parser.in_thinking)

    def takes(self, token: int) -> bool:
        return allows(self.steering.mask(), token)


def allows(mask: TokenMask, token: int) -> bool:
    if mask.forced is not None:
        return token == mask.forced
    if mask.only is not None:
        return token in mask.only.tolist()
    return mask.without is None or token not in mask.without.tolist()


@pytest.fixture(scope="module")
def table(qwen_tokenizer: Tokenizer) -> TokenTable:
    return TokenTable.of(qwen_tokenizer)


@pytest.fixture(scope="module")
def texts() -> TurnTexts:
    return TurnTexts(TOOLS)


def rendered(name: str, arguments: Mapping[str, Any]) -> str:
    """The call as the official templates write it: containers as JSON, the rest as text."""
    text = f"<tool_call>\n<function={name}>\n"
    for key, value in arguments.items():
        container = isinstance(value, list | dict)
        shown = json.dumps(value, ensure_ascii=False) if container else str(value)
        text += f"<parameter={key}>\n{shown}\n</parameter>\n"
    return text + "</function>\n</tool_call>"


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data(), said=st.sampled_from(["", "Look.\n\n", "`x` <b>\n"]))
def test_what_a_template_writes_can_be_sampled(
    data: st.DataObject,
    said: str,
    qwen_tokenizer: Tokenizer,
    table: TokenTable,
    texts: TurnTexts,
) -> None:
    """Any values in any order, tokenised as the rendered text is, if the parser reads them back."""
    names = data.draw(st.permutations(sorted(VALUES)))[: data.draw(st.integers(0, 4))]
    arguments = {name: data.draw(VALUES[name]) for name in dict.fromkeys(["text", *names])}
    arguments = dict(data.draw(st.permutations(list(arguments.items()))))
    text = said + rendered("edit", arguments)
    ids = data.draw(st.sampled_from([qwen_tokenizer.encode_markup, qwen_tokenizer.encode_text]))(
        text
    )
    ids.append(qwen_tokenizer.special("<|im_end|>"))
    plain = Turn(qwen_tokenizer, texts, table)
    for token in ids:
        plain.parser.push(token)
    read = plain.parser.finish().tool_calls
    if len(read) != 1 or read[0].error or list(read[0].arguments) != list(arguments):
        return  # the format itself cannot carry these values
    turn = Turn(qwen_tokenizer, texts, table)
    for at, token in enumerate(ids):
        if not turn.takes(token):
            # What is refused is what the parser would have read in another way.
            assert read[0].arguments != arguments, (text, qwen_tokenizer.decode(ids[:at]))
            return
        turn.push(token)
    assert not turn.steering.lost


def test_other_tools_are_called_by_their_names(
    qwen_tokenizer: Tokenizer, table: TokenTable, texts: TurnTexts
) -> None:
    good = [
        rendered("mcp__a.b-c__dö", {"a": "1"}),
        rendered("many", {"p199": 1, "p7": -2}),
        rendered("submit", {}) + "\n" + rendered("submit", {}),
    ]
    bad = [
        rendered("mcp__a.b", {}),
        rendered("many", {"p6": 1}),
        rendered("many", {"p7": 1, "p200": 1}),
        rendered("many", {"p7": "01"}),
        rendered("submit", {"a": 1}),
        rendered("edit", {"text": "x", "map": [1]}),
        rendered("edit", {"text": "x", "word": "b"}),
        rendered("edit", {"text": "x", "flag": 1}),
        rendered("edit", {"text": "x", "items": '[{"a": tru}]'}),
        rendered("edit", {"text": "x"}).replace("</function>\n", ""),
        "Well.\n<function=submit>\n</function>",
        rendered("submit", {}) + "\n</parameter>\n",
    ]
    for text, fine in [*((text, True) for text in good), *((text, False) for text in bad)]:
        turn = Turn(qwen_tokenizer, texts, table)
        taken = True
        for token in [*qwen_tokenizer.encode_markup(text), *turn.stops]:
            taken = taken and turn.takes(token)
            turn.push(token)
        assert taken == fine, text


def test_prose_may_name_the_tags(
    qwen_tokenizer: Tokenizer, table: TokenTable, texts: TurnTexts
) -> None:
    text = "A call begins with `<tool_call>`, then `<function=NAME>`; a < b, </p> and <b>.\n"
    turn = Turn(qwen_tokenizer, texts, table)
    for token in qwen_tokenizer.encode_text(text):
        assert turn.takes(token)
        turn.push(token)
    assert turn.takes(next(iter(turn.stops)))
    assert turn.parser.finish().tool_calls == ()


def test_noise_writes_no_malformed_call(tiny_tokenizer: Tokenizer) -> None:
    """Turns at temperature 1.5 that want to write markup; only a turn's end may cut a call.

    The same noise without masks breaks nearly every call.
    """
    table, texts = TokenTable.of(tiny_tokenizer), TurnTexts(TOOLS)
    noise = MarkupNoise(tiny_tokenizer, 3)
    made: dict[bool, list[ToolCall]] = {True: [], False: []}
    for number in range(120):
        turn, steered = Turn(tiny_tokenizer, texts, table), number % 4 > 0
        token, ended = tiny_tokenizer.special("<tool_call>") or 0, False
        for _ in range(120):
            turn.push(token)
            if ended := token in turn.stops:
                break
            mask = turn.steering.mask() if steered else TokenMask()
            token = choose(noise.logits(), HOT, (), noise.generator, mask).id
            noise.took(token)
        assert not (steered and turn.steering.lost)
        calls = list(turn.parser.finish().tool_calls)
        cut = steered and turn.steering.in_call and not ended
        made[steered] += calls[:-1] if cut else calls
    assert [call for call in made[True] if call.error] == []
    assert len(made[True]) > 20
    assert sum(call.error is not None for call in made[False]) > 10


def test_a_turn_told_in_its_middle_goes_on_or_is_lost(
    qwen_tokenizer: Tokenizer, table: TokenTable, texts: TurnTexts
) -> None:
    ids = qwen_tokenizer.encode_markup(rendered("edit", {"text": "a\nb", "count": 12}))
    for cut in range(len(ids)):
        whole, again = (Turn(qwen_tokenizer, texts, table) for _ in range(2))
        for token in ids[:cut]:
            whole.takes(token)
            whole.push(token)
            again.push(token)
        assert again.steering.mask() is whole.steering.mask()
    lost = Turn(qwen_tokenizer, texts, table)
    for token in qwen_tokenizer.encode_markup("<tool_call>\n<function=none_such>\n"):
        lost.push(token)
    assert lost.steering.lost
    assert lost.steering.mask() == TokenMask()


def test_tools_without_a_name_that_can_stand_are_left_out(
    qwen_tokenizer: Tokenizer, table: TokenTable
) -> None:
    texts = TurnTexts([tool("a<b", {}), tool("", {}), tool("line\nbreak", {})])
    turn = Turn(qwen_tokenizer, texts, table)
    assert not turn.takes(qwen_tokenizer.special("<tool_call>") or 0)
    assert turn.takes(qwen_tokenizer.encode_text("Hello")[0])
