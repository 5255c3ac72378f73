"""Confidence of what was written: the log-probability of each piece of each value of a call.

A value stands in the turn's text as it is, so the tokens that spell it are known by place. What the
model was least sure of is where a person should look first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.types import Spans, Step
from model.messages import ToolCall

_OLD = frozenset({"old_string", "old_str"})
"""Parameters whose value only repeats what is there."""


@dataclass(frozen=True)
class Doubt:
    """The hunk of a patch that the model was least sure of: its file, the first line of it in the
    new file, and the mean log-probability of its added lines a token."""

    path: str
    line: int
    logprob: float


def spans_of(
    text: str, starts: Sequence[int], logprobs: Sequence[float], calls: Sequence[ToolCall]
) -> tuple[Mapping[str, Spans], ...]:
    """Return for each call the pieces of its text values: characters and log-probability.

    ``text`` is the whole turn, ``starts`` say where its tokens begin, as far as they have
    ``logprobs``. A value that was read otherwise than it is written (JSON) is left out.
    """
    ends = [*starts[1:], len(text)]
    found: list[Mapping[str, Spans]] = []
    at = token = 0
    for call in calls:
        values: dict[str, Spans] = {}
        for name, value in call.arguments.items():
            place = text.find(value, at) if isinstance(value, str) and value else -1
            if place < 0:
                continue
            at = place + len(value)
            while token < len(starts) and ends[token] <= place:
                token += 1
            spans, here = [], token
            while here < len(starts) and starts[here] < at:
                length = min(ends[here], at) - max(starts[here], place)
                if length > 0:
                    spans.append((length, _plain(logprobs[here])))
                here += 1
            values[name] = tuple(spans)
        found.append(values)
    return tuple(found)


def _plain(value: float) -> float:
    return round(value, 3) if math.isfinite(value) else -99.0


def doubt_of(patch: str, steps: Sequence[Step]) -> Doubt | None:
    """Return the hunk of ``patch`` that was least sure; None if no added line is known."""
    known = {
        line: logprob
        for step in steps
        for call, spans in zip(step.message.tool_calls, step.spans, strict=False)
        for name in spans
        if name not in _OLD
        for line, logprob in _lines(str(call.arguments.get(name, "")), spans[name])
    }
    doubts = (
        Doubt(path, line, sum(seen) / len(seen))
        for path, line, added in hunks(patch)
        if (seen := [known[text] for text in added if text in known])
    )
    return min(doubts, key=lambda doubt: doubt.logprob, default=None)


def _lines(value: str, spans: Spans) -> Iterator[tuple[str, float]]:
    """Yield each line of a value that has text, and the mean log-probability of its tokens."""
    place, start, pieces = 0, 0, list(spans)
    for line in value.split("\n"):
        end, seen = start + len(line), list[float]()
        while pieces and place < end:
            length, logprob = pieces[0]
            if place + length > start:
                seen.append(logprob)
            if place + length > end:
                break
            place += length
            pieces.pop(0)
        if seen and line.strip():
            yield line, sum(seen) / len(seen)
        start = end + 1


def hunks(patch: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the path, the first new line and the added lines of each hunk of a git patch."""
    path, line, added = "", 0, list[str]()
    for text in patch.split("\n"):
        if text.startswith(("diff --git ", "@@ ")) and added:
            yield path, line, added
            added = []
        if text.startswith("+++ "):
            path = text[4:].removeprefix("b/").strip('"')
        elif text.startswith("@@ "):
            new = text.split("+", 1)[1].split(" ", 1)[0].split(",")[0]
            line = int(new) if new.isdigit() else 0
        elif text.startswith("+"):
            added.append(text[1:])
    if added:
        yield path, line, added
