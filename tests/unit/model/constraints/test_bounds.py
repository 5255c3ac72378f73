"""Edits that cannot miss: text along a file until it stands there once, paths along a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.chat.parser import TurnParser
from model.chat.tokenizer import Tokenizer
from model.constraints.along_text import along_text
from model.constraints.call_grammar import ValuePlace
from model.constraints.call_steering import CallSteering
from model.constraints.listed import ListedValue
from model.constraints.text_state import TextState
from model.constraints.token_table import TokenTable
from model.constraints.turn_text import TurnTexts
from model.sampling import SamplingParams, choose
from tests.support.markup_noise import MarkupNoise

HOT = SamplingParams(temperature=1.5, top_k=0, top_p=1.0)
NAMES = ("path", "old", "new")
SCHEMA = {
    "type": "object",
    "properties": {n: {"type": "string"} for n in NAMES},
    "required": [*NAMES],
}
EDIT = [{"type": "function", "function": {"name": "edit", "parameters": SCHEMA}}]
PATHS = [b"a.py", b"a.pyc", b"src/b c.py", "src/ü.py".encode()]
FILES = {
    "a.py": "def f(a):\n    return a - b\n\n\ndef g(a):\n    return a - b # x\n",
    "a.pyc": "<tool_call>\n<function=edit>\n<parameter=path>\nx\n</parameter>\n</function>\n",
    "src/b c.py": "\n</parameter>\n<parameter=new>\n\n</parameter>\n</function>\n</tool_call>\n",
    "src/ü.py": "ä🙂ä\n🙂é\n\n🙂ä\n",
}


BOUND = ("a.py", "src/ü.py")
"""The others have lines of markup, which bound nothing."""


class Repository:
    """Bounds by ``FILES``."""

    def order(self, tool: str, given: Mapping[str, bytes], names: Sequence[str]) -> Sequence[str]:
        return ["path"] if "path" in names else names

    def value(
        self, tool: str, parameter: str, given: Mapping[str, bytes], place: ValuePlace
    ) -> TextState | None:
        if parameter == "path":
            return ListedValue(PATHS, place)
        if parameter == "old":
            return along_text(FILES[given["path"].decode()].encode(), place)
        return None


def count(text: str, part: str) -> int:
    return sum(text.startswith(part, at) for at in range(len(text)))


@pytest.fixture(scope="module")
def tables(qwen_tokenizer: Tokenizer, tiny_tokenizer: Tokenizer) -> dict[int, TokenTable]:
    return {id(t): TokenTable.of(t) for t in (qwen_tokenizer, tiny_tokenizer)}


def begun(
    tokenizer: Tokenizer, table: TokenTable
) -> tuple[TurnParser, CallSteering, frozenset[int]]:
    stops = frozenset([tokenizer.special("<|im_end|>") or 0])
    parser = TurnParser(tokenizer.stream(), EDIT, stop_ids=stops, in_thinking=False)
    texts = TurnTexts(EDIT, Repository())
    return parser, CallSteering(table, texts, stops, thinking=False), stops


def test_noise_misses_no_edit(tiny_tokenizer: Tokenizer, tables: dict[int, TokenTable]) -> None:
    noise, edits = MarkupNoise(tiny_tokenizer, 5), 0
    for _ in range(40):
        parser, steering, stops = begun(tiny_tokenizer, tables[id(tiny_tokenizer)])
        token, ended = tiny_tokenizer.special("<tool_call>") or 0, False
        for _ in range(150):
            parser.push(token)
            steering.push(token, thinking=False)
            if ended := token in stops:
                break
            token = choose(noise.logits(), HOT, (), noise.generator, steering.mask()).id
            noise.took(token)
        assert not steering.lost
        calls = parser.finish().tool_calls
        for call in calls[: len(calls) - (steering.in_call and not ended)]:
            assert call.error is None
            path, old = call.arguments["path"], call.arguments["old"]
            if path in BOUND:
                assert count(FILES[path], old) == 1, call
                edits += 1
    assert edits > 10


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(BOUND), ends=st.tuples(st.integers(0, 70), st.integers(1, 70)))
def test_every_part_that_stands_once_can_be_sampled(
    path: str,
    ends: tuple[int, int],
    qwen_tokenizer: Tokenizer,
    tables: dict[int, TokenTable],
) -> None:
    """As the official tokeniser cuts it, if the parser reads it back; and no other part."""
    text = FILES[path]
    old = text[ends[0] : ends[0] + ends[1]]
    call = f"\n<function=edit>\n<parameter=path>\n{path}\n</parameter>\n<parameter=old>\n{old}\n"
    call += "</parameter>\n<parameter=new>\nx\n</parameter>\n</function>\n</tool_call>"
    parser, steering, stops = begun(qwen_tokenizer, tables[id(qwen_tokenizer)])
    taken = True
    start = [qwen_tokenizer.special("<tool_call>") or 0]
    for token in [*start, *qwen_tokenizer.encode_text(call), *stops]:
        mask = steering.mask()
        taken = taken and (mask.only is None or token in mask.only.tolist())
        taken = taken and (mask.forced is None or mask.forced == token)
        taken = taken and (mask.without is None or token not in mask.without.tolist())
        parser.push(token)
        steering.push(token, thinking=False)
    read = parser.finish().tool_calls
    back = len(read) == 1 and not read[0].error and read[0].arguments.get("old") == old
    assert taken == (back and bool(old) and count(text, old) == 1)


def test_a_part_that_no_token_can_reach_is_not_asked_for(tiny_tokenizer: Tokenizer) -> None:
    """A text that stands twice to its end can be followed, but only past its first half."""
    table = TokenTable.of(tiny_tokenizer)

    class Twice(Repository):
        def value(
            self, tool: str, parameter: str, given: Mapping[str, bytes], place: ValuePlace
        ) -> TextState | None:
            return along_text(b"aXbaX", place) if parameter == "old" else None

    texts = TurnTexts(EDIT, Twice())
    steering = CallSteering(table, texts, frozenset(), thinking=False)
    written = (
        "<tool_call>\n<function=edit>\n<parameter=path>\nq\n</parameter>\n<parameter=old>\nbaX"
    )
    for token in tiny_tokenizer.encode_markup(written):
        steering.push(token, thinking=False)
    only = steering.mask().only
    assert only is not None
    assert all(tiny_tokenizer.token_bytes(i).startswith(b"\n") for i in only.tolist())
