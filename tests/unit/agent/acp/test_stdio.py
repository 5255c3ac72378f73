"""Frames: whatever comes in is either a message or answered; whatever goes out is one line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.acp.stdio import Frames

ENDS = {"jsonrpc": "2.0", "method": "end"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0"]),
        "id": st.none() | st.integers() | st.text(max_size=3) | JSON,
        "method": st.sampled_from(["session/new", "$/cancel_request"]) | JSON,
        "params": JSON,
        "result": JSON,
        "error": JSON,
    },
)
LINES = st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")) | (
    (MESSAGES | JSON).map(lambda value: json.dumps(value).encode())
)


def exchange(data: bytes) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What is understood of ``data``, and the lines that are written meanwhile."""

    async def inside() -> list[dict[str, Any]]:
        frames = Frames(to_us[0], from_us[1])
        os.write(to_us[1], data)
        os.close(to_us[1])
        got = []
        while (message := await frames.receive()) is not None:
            got.append(message)
        await frames.close()
        return got

    to_us, from_us = os.pipe(), os.pipe()
    try:
        understood = asyncio.run(inside())
    finally:
        os.close(from_us[1])
        os.close(to_us[0])
    with os.fdopen(from_us[0], "rb") as file:
        return understood, file.read().splitlines()


@settings(deadline=None, max_examples=60)
@given(st.lists(LINES, max_size=5))
def test_every_line_is_a_message_or_is_refused_or_is_nothing(lines: list[bytes]) -> None:
    data = b"\n".join([*lines, json.dumps(ENDS).encode()]) + b"\n"
    understood, answers = exchange(data)
    assert understood[-1] == ENDS
    for answer in map(json.loads, answers):
        assert answer["error"]["code"] in (-32700, -32600)
    for message in understood:
        assert message["jsonrpc"] == "2.0"
        assert isinstance(message.get("method", ""), str)
        assert "method" in message or "result" in message or "error" in message
    passed_over = [line for line in lines if not line.strip() or b"$/cancel_request" in line]
    assert len(understood) + len(answers) + len(passed_over) >= len(lines) + 1


def test_a_long_line_comes_whole_and_one_without_an_end_is_no_line() -> None:
    long = {"jsonrpc": "2.0", "method": "x", "params": {"text": "é" * 60_000}}
    data = json.dumps(ENDS).encode() + b'\n{"jsonrpc": "2.0", "method": "half'

    async def inside() -> list[Any]:
        frames = Frames(ends[0], out)
        writing = asyncio.to_thread(send)
        task = asyncio.ensure_future(writing)
        got = [await frames.receive(), await frames.receive(), await frames.receive()]
        await task
        await frames.close()
        return got

    def send() -> None:
        with os.fdopen(ends[1], "wb") as file:
            file.write(json.dumps(long).encode() + b"\n" + data)

    ends, out = os.pipe(), os.open(os.devnull, os.O_WRONLY)
    try:
        assert asyncio.run(inside()) == [long, ENDS, None]
    finally:
        os.close(out)


def test_a_line_that_is_too_long_is_refused_and_the_next_one_read(monkeypatch) -> None:
    monkeypatch.setattr("agent.acp.stdio.MAX_FRAME_BYTES", 1_000)
    long = {"jsonrpc": "2.0", "method": "x", "params": {"text": "x" * 3_000_000}}
    understood, answers = [], []

    async def inside() -> None:
        frames = Frames(ends[0], out[1])
        sending = asyncio.ensure_future(asyncio.to_thread(send))
        while (message := await frames.receive()) is not None:
            understood.append(message)
        await sending
        await frames.close()

    def send() -> None:
        with os.fdopen(ends[1], "wb") as file:
            file.write(json.dumps(long).encode() + b"\n" + json.dumps(ENDS).encode() + b"\n")

    ends, out = os.pipe(), os.pipe()
    asyncio.run(inside())
    for end in (ends[0], out[1]):
        os.close(end)
    with os.fdopen(out[0], "rb") as file:
        answers = [json.loads(line) for line in file]
    assert understood == [ENDS]
    assert [answer["error"]["code"] for answer in answers] == [-32700]


def test_what_goes_out_is_one_line_of_unicode() -> None:
    async def inside() -> None:
        frames = Frames(ends[0], out[1])
        await frames.send({"jsonrpc": "2.0", "id": 1, "result": {"text": "a\nb\udcff\u2028"}})
        found = {"loc": ("prompt", 0), "msg": "Field required", "input": "x" * 1000}
        error = {"code": -32602, "message": "Invalid params", "data": {"errors": [found]}}
        await frames.send({"jsonrpc": "2.0", "id": 2, "error": error})
        await frames.close()

    ends, out = os.pipe(), os.pipe()
    asyncio.run(inside())
    for end in (ends[0], ends[1], out[1]):
        os.close(end)
    with os.fdopen(out[0], "rb") as file:
        first, second = file.read().splitlines()
    assert json.loads(first)["result"]["text"] == "a\nb?\u2028"
    assert json.loads(second)["error"]["data"] == {"details": "prompt.0: Field required"}


def test_whatever_else_prints_lands_in_the_log(tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys\n"
        "from agent.acp.stdio import take\n"
        f"log = os.open({str(tmp_path / 'log')!r}, os.O_WRONLY | os.O_CREAT)\n"
        "read, write = take(log)\n"
        "print('printed', flush=True)\n"
        "subprocess.run(['sh', '-c', 'echo child; cat'], check=True)\n"
        "os.write(write, os.read(read, 100))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=b"frame\n", capture_output=True, check=True
    )
    assert done.stdout == b"frame\n"
    assert (tmp_path / "log").read_text() == "printed\nchild\n"
