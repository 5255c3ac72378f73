"""Count the tokens that are prefilled over 5 user turns of 6 tool steps each, with thinking.

    python -m benchmarks.user_turns [--turns 5] [--steps 6] [--thinking-tokens 150] [--record]

The texts are those of the recorded trajectory (``record_trajectory.py``) with Qwen's tokens; each
group of steps is a user turn, and its reasoning is made as long as asked for. They go through the
real session, chat format and encoding over a network that computes nothing, since only tokens are
counted. Generated tokens are the same for all and are not counted.

``preserve``   everything stays: each prompt is what is new
``drop``       when a user turn begins, the session goes back to its last user turn and reads that
               again without its reasoning (what ``agent resume --thinking drop`` does)
``template``   the stock template rendered whole for each step, as a stateless client sends it, with
               a server that keeps the longest common beginning of the last prompt and answer but
               cannot cut a recurrent state back: if the rendering differs anywhere, all is read
``template, no cache``  the same without any cache

Checked: what ``preserve`` prefills is exactly what is new; the session under ``drop`` holds exactly
what the template renders from the messages; reasoning is in the one and not in the other.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agent.sessions.model_states import common
from benchmarks.support.recording import machine, record
from benchmarks.support.trajectory import DATA, chat_format
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.engine import Engine
from model.messages import Message
from model.scripted import scripted_engine

ASKED = "Go on with the next part of the task, and say what you found so far before you change it."


@dataclass(frozen=True)
class ScriptedStep:
    """A step's prompt and the model's answer to it, as text and as a message."""

    messages: list[Message]
    said: str
    message: Message


def user_turns(
    chat: ChatFormat, tools: Any, tokenizer: Tokenizer, options: Any
) -> list[list[ScriptedStep]]:
    """Return the recorded steps in groups, each of which begins with words of the user."""
    data = json.loads(DATA.read_text())
    turns: list[list[ScriptedStep]] = []
    for number, recorded in enumerate(data["steps"][: options.turns * options.steps]):
        thought, found, rest = recorded["said"].partition("\n</think>")
        words = thought.split()
        while len(tokenizer.encode_text(" ".join(words))) < options.thinking_tokens:
            words += thought.split()
        said = " ".join(words) + found + rest
        parser = chat.parser(tools, True)
        for token in tokenizer.encode_markup(said + "<|im_end|>"):
            parser.push(token)
        messages = [Message(m["role"], m["content"]) for m in recorded["messages"]]
        if number % options.steps == 0:
            turns.append([])
            if number:
                messages.append(Message("user", ASKED))
        turns[-1].append(ScriptedStep(messages, said, parser.finish()))
    return turns


class Client:
    """One session and what was prefilled in it, by user turn."""

    def __init__(self, chat: ChatFormat, tools: Any, tokenizer: Tokenizer, engine: Engine) -> None:
        self.chat, self.tools, self.tokenizer, self.engine = chat, tools, tokenizer, engine
        self.session = engine.session()
        self.told: list[Message] = []
        self.prefilled: list[int] = []

    def read(self, ids: list[int]) -> None:
        """Prefill."""
        self.session.extend(ids)
        self.prefilled[-1] += len(ids)

    def say(self, step: ScriptedStep) -> None:
        """Append what the model says; it would be sampled."""
        self.session.extend(self.tokenizer.encode_markup(step.said + "<|im_end|>"))
        self.told += [*step.messages, step.message]


def preserve(client: Client, turns: list[list[ScriptedStep]]) -> None:
    """Each prompt is appended."""
    for number, turn in enumerate(turns):
        client.prefilled.append(0)
        for place, step in enumerate(turn):
            if number == place == 0:
                client.read(client.chat.begin(step.messages, client.tools, True))
            else:
                client.read(client.chat.append(True, step.messages, True))
            client.say(step)


def drop(client: Client, turns: list[list[ScriptedStep]]) -> None:
    """Back to the point of the last user turn when the next one begins."""
    point = client.session.snapshot()
    for turn in turns:
        client.prefilled.append(0)
        for place, step in enumerate(turn):
            if place:
                client.read(client.chat.append(True, step.messages, True))
            else:
                told = [*client.told, *step.messages]
                ids = client.chat.begin(told, client.tools, True, preserve_thinking=False)
                held = client.session.ids
                client.session.restore(point)
                assert common(held, ids) >= client.session.length
                assert list(client.session.ids) == ids[: client.session.length]
                cut = client.chat.turn_cut(ids)
                client.read(ids[client.session.length : cut])
                point = client.session.snapshot()
                client.read(ids[cut:])
                assert list(client.session.ids) == ids
            client.say(step)


def template(client: Client, turns: list[list[ScriptedStep]], *, cache: bool) -> None:
    """Everything rendered anew for each step; what the server holds is of use if it is a prefix."""
    for turn in turns:
        client.prefilled.append(0)
        for step in turn:
            told = [*client.told, *step.messages]
            ids = client.chat.begin(told, client.tools, True, preserve_thinking=False)
            held = client.session.length
            if not cache or client.session.ids != tuple(ids[:held]):
                client.session.close()
                client.session = client.engine.session()
                held = 0
            client.read(ids[held:])
            client.say(step)


def main() -> None:
    """Count, check, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--thinking-tokens", type=int, default=150)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        chat, tokenizer = chat_format(Path(name))
    tools = json.loads(DATA.read_text())["tools"]
    turns = user_turns(chat, tools, tokenizer, options)
    engine = scripted_engine(["x<|im_end|>"], tokenizer=tokenizer)

    clients = {}
    runs: dict[str, Callable[[Client, list[list[ScriptedStep]]], None]] = {
        "preserve": preserve,
        "drop": drop,
        "template": partial(template, cache=True),
        "template, no cache": partial(template, cache=False),
    }
    for label, run in runs.items():
        clients[label] = Client(chat, tools, tokenizer, engine)
        run(clients[label], turns)
    kept = clients["preserve"]
    said = sum(
        len(tokenizer.encode_markup(step.said + "<|im_end|>")) for turn in turns for step in turn
    )
    new = kept.session.length - said
    assert sum(kept.prefilled) == new
    texts = {label: tokenizer.decode(list(c.session.ids)) for label, c in clients.items()}
    first = turns[0][0].message.thinking
    assert first in texts["preserve"]
    assert first not in texts["drop"]
    assert texts["drop"] == texts["template"]
    results = {}
    for label, client in clients.items():
        total = sum(client.prefilled)
        results[label] = {
            "prefilled_tokens": total,
            "old_tokens_prefilled": total - new,
            "by_user_turn": client.prefilled,
            "context_tokens": client.session.length,
        }
        print(
            f"{label:19} {total:8,} tokens prefilled, {total - new:8,} of them old; "
            f"{client.session.length:,} in the end; by user turn {client.prefilled}"
        )
    if options.record:
        settings = {
            "user_turns": len(turns),
            "steps": options.steps,
            "new_tokens": new,
            "generated_tokens": said,
        }
        record("user_turns", {**machine(), **settings, **results})


if __name__ == "__main__":
    main()
