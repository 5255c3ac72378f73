"""A trajectory gives back what went in, survives a torn last line, and refuses other damage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import TrajectoryError
from agent.sessions.info import new_info
from agent.sessions.records import (
    EndRecord,
    SessionRecord,
    message_from_json,
    message_to_json,
    step_from_json,
    step_to_json,
)
from agent.sessions.trajectory import (
    TrajectoryWriter,
    read_lines,
    read_records,
    read_steps,
    session_ids,
)
from agent.types import Step
from model.messages import Message, ToolCall
from model.session import Usage
from tools.types import Observation

STEP = Step(
    index=0,
    message=Message(
        "assistant",
        content="Now\n<|im_end|> \u2028 é",
        thinking="hm",
        tool_calls=(
            ToolCall("edit", {"file_path": "ä.py", "replace_all": True, "n": [1, None]}),
            ToolCall("edti", {}, error="no such tool"),
        ),
    ),
    observations=(Observation("done", submitted=True), Observation("no", ok=False)),
    usage=Usage(context_tokens=9, prefilled_tokens=5, generated_tokens=4, decode_s=0.25),
    token_ids=(1, 2, 3),
    logprobs=(-0.5, 0.0, -1e-9),
    ended="length",
)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with TrajectoryWriter(path) as writer:
        writer.write(SessionRecord(new_info(id="x")))
        writer.prompt([Message("user", "hi")], [7, 8])
        writer.step(STEP)
        writer.prompt([Message("tool", "out")], [9])
    assert read_steps(path) == [STEP]
    assert session_ids(path) == [7, 8, 1, 2, 3, 9]
    assert [record["type"] for record in read_lines(path)] == [
        "session",
        "prompt",
        "step",
        "prompt",
    ]


def test_it_is_private(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    TrajectoryWriter(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_prefix_of_the_file_reads_as_whole_records(tmp_path: Path) -> None:
    """A kill can cut the file anywhere."""
    path = tmp_path / "t.jsonl"
    with TrajectoryWriter(path) as writer:
        writer.write(SessionRecord(new_info(task="é\n")))
        writer.step(STEP)
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        expected = data[:length].count(b"\n")
        assert len(list(read_lines(path))) == expected


def test_a_writer_cuts_a_torn_line_off_before_it_appends(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with TrajectoryWriter(path) as writer:
        writer.write(SessionRecord(new_info(id="x")))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"type": "step", "text": "' + b"x" * 200_000)
    with TrajectoryWriter(path) as writer:
        assert path.read_bytes() == whole
        writer.write(EndRecord("submitted"))
    assert [record["type"] for record in read_lines(path)] == ["session", "end"]


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"type"')
    TrajectoryWriter(path).close()
    assert path.read_bytes() == b""


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    """Text that is still valid JSON with another letter in it is not what was seen."""
    path = tmp_path / "t.jsonl"
    with TrajectoryWriter(path) as writer:
        writer.write(SessionRecord(new_info(id="x", task="fix it")))
        writer.step(STEP)
    whole = path.read_bytes()
    with TrajectoryWriter(path) as writer:
        writer.write(EndRecord("submitted"))
    last = path.read_bytes()[len(whole) :]
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] + last)
        with pytest.raises(TrajectoryError, match="damaged at line"):
            list(read_records(path))


def test_a_line_that_is_gone_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with TrajectoryWriter(path) as writer:
        for number in range(3):
            writer.write(EndRecord(f"{number}"))
    first, second, third = path.read_bytes().splitlines(keepends=True)
    for lines in ([second, third], [first, third], [first, third, second]):
        path.write_bytes(b"".join(lines))
        with pytest.raises(TrajectoryError, match="damaged at line"):
            list(read_records(path))


def test_lines_without_a_checksum_are_covered_by_those_after_them(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"type": "words", "messages": []}\n')
    with TrajectoryWriter(path, list(read_records(path))) as writer:
        writer.write(EndRecord("submitted"))
    assert len(list(read_records(path))) == 2
    path.write_bytes(path.read_bytes().replace(b"[]", b"[ ]"))
    with pytest.raises(TrajectoryError, match="damaged at line 2"):
        list(read_records(path))


@pytest.mark.parametrize("line", [b"\xff\xfe", b"{}", b"[1]", b"", b"{"])
def test_damage_before_the_end_is_an_error(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(line + b'\n{"type": "end"}\n')
    with pytest.raises(TrajectoryError, match="damaged at line 1"):
        list(read_lines(path))


def test_a_log_probability_that_is_not_finite_stays_valid_json() -> None:
    step = Step(0, Message("assistant"), (), Usage(), (1,), (-math.inf,))
    data = json.loads(json.dumps(step_to_json(step), allow_nan=False))
    assert step_from_json(data).logprobs == (-math.inf,)


texts = st.text(max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(ToolCall, texts, st.dictionaries(texts, values, max_size=3), st.none() | texts)
messages = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    texts,
    texts,
    st.lists(calls, max_size=3).map(tuple),
)


@given(messages)
def test_any_message_survives_json(message: Message) -> None:
    text = json.dumps(message_to_json(message), ensure_ascii=True)
    assert message_from_json(json.loads(text)) == message
