"""Measure what constrained calls bring and cost.

    python -m benchmarks.constrain [--turns 10000] [--record]
    python -m benchmarks.constrain --tasks TASKS.jsonl [--sandbox docker] [--record]

``noise``   turns at temperature 1.5 of the embedded model and of random weights in its shape, in a
            repository of three files, under ``off``, ``calls`` and ``edits``. Told are the calls
            that the parser cannot read, and those edits whose old text does not stand in their file
            just once. A call that the limit on tokens cuts counts apart. Half of the turns are
            given ``<tool_call>`` as their first token: noise seldom begins a call by itself.
``cost``    seconds a token for masks, along the turns of the recorded trajectory, with Qwen3.6's
            tokenizer and logits of 248,320; beside it a decode step of the 0.8B shape (int8, random
            weights) in the same run. ``first`` are tokens in places that were not seen before,
            ``again`` the same turns once more.
``start``   seconds for the states of a session's tools up to the first mask, without the table of
            the vocabulary, which is made once for a checkpoint.
``tasks``   the held-out repair tasks with ``off`` and with ``edits`` at equal steps, and the paired
            test of the two (McNemar, exact).

Checked before anything is timed: every token of every recorded turn is allowed by its mask.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from agent.loading import LoadedModel, load_model
from agent.loop.constrained import ConstrainedCalls
from agent.loop.conversation import Conversation, Turn
from agent.loop.prompts import first_messages
from agent.run.build import prepare
from agent.settings.table import Constrain, SandboxKind, Settings
from agent.types import Task
from benchmarks.repair import chosen
from benchmarks.support.random_model import random_engine
from benchmarks.support.recording import machine, record
from benchmarks.support.repairs import repairs
from benchmarks.support.trajectory import chat_format
from evals.report.stats import mcnemar, wilson
from evals.training.measure import measure
from model.constraints.call_steering import CallSteering
from model.constraints.turn_text import TurnTexts
from model.sampling import SamplingParams, choose
from model.steering import TokenMask
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tools.registry import Registry, default_tools
from tools.types import ToolContext

HOT = SamplingParams(temperature=1.5, top_k=0, top_p=1.0)
VOCABULARY = 248_320
MODES = ("off", "calls", "edits")
TURN_TOKENS = 300
FILES = {
    "calc.py": "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return a + a\n",
    "test_calc.py": "from calc import add\n\n\ndef test_add():\n    assert add(2, 3) == 5\n",
    "README.md": "# Calculator\n\nIt adds.\n",
}


def noise(model: LoadedModel, registry: Registry, turns: int) -> dict[str, dict[str, int]]:
    """Sample ``turns`` turns under each mode and count what came out."""
    chat, tools = model.chat, registry.schemas()
    opening = chat.call_start
    found: dict[str, dict[str, int]] = {}
    for mode in MODES:
        files = registry if mode == "edits" else None
        constrained = None if mode == "off" else ConstrainedCalls(chat, tools, files)
        base = model.engine.session()
        first = Conversation(base, chat, tools, HOT, thinking=False)
        task = Task("add subtracts", Path("/repository"), None)
        first.hear(first.encode(first_messages(task, root=".", network=False)))
        counts: Counter[str] = Counter(turns=turns)
        for number in range(turns):
            session = base.fork(seed=number)
            talk = Conversation(session, chat, tools, HOT, thinking=False, constrained=constrained)
            begun = number % 2 == 1
            if begun:
                session.extend(opening)
                talk.recall(opening, thinking=False, go_on=True)
            counts.update(judged(talk.speak(TURN_TOKENS)))
            session.close()
        base.close()
        found[mode] = dict(counts)
        print(f"  {mode:6} {found[mode]}", flush=True)
    return found


def judged(turn: Turn) -> Counter[str]:
    """Count the calls of a turn by what they are."""
    counts: Counter[str] = Counter()
    for call in turn.message.tool_calls:
        counts["calls"] += 1
        if call.error and "was cut off" in call.error:
            counts["cut"] += 1
        elif call.error:
            counts["malformed"] += 1
        elif call.name == "edit":
            text = FILES.get(str(call.arguments.get("file_path")), "")
            old = str(call.arguments.get("old_string"))
            places = sum(text.startswith(old, at) for at in range(len(text))) if old else 0
            counts["edits"] += 1
            counts["missed_edits"] += places != 1
    return counts


def allows(mask: TokenMask, token: int) -> bool:
    """Tell whether ``mask`` allows ``token``."""
    if mask.only is not None:
        return token in mask.only.tolist()
    return mask.without is None or token not in mask.without.tolist()


def cost(folder: Path) -> dict[str, Any]:
    """Time masks along real turns at the whole vocabulary, and a decode step beside it."""
    chat, tokenizer = chat_format(folder)
    tools = [tool.schema() for tool in default_tools()]
    turns = [tokenizer.encode_markup(said) for _, lines in repairs().values() for said in lines]
    began = perf_counter()
    table = chat.token_table
    seconds_table = perf_counter() - began

    def begun(texts: TurnTexts) -> CallSteering:
        return CallSteering(table, texts, chat.stop_ids, thinking=True)

    def follow(texts: TurnTexts, step: Callable[[CallSteering, int], None]) -> None:
        for ids in turns:
            steering, parser = begun(texts), chat.parser(tools, True)
            for token in ids:
                step(steering, token)
                parser.push(token)
                steering.push(token, thinking=parser.in_thinking)
            assert not steering.lost

    def check(steering: CallSteering, token: int) -> None:
        assert allows(steering.mask(), token), tokenizer.decode([token])

    follow(TurnTexts(tools), check)
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    warm = SamplingParams()

    def timed(texts: TurnTexts) -> list[float]:
        took: list[float] = []

        def step(steering: CallSteering, token: int) -> None:
            began = perf_counter()
            mask = steering.mask()
            middle = perf_counter()
            choose(logits, warm, (), generator, mask)
            masked = perf_counter()
            choose(logits, warm, (), generator)
            took.append((middle - began) + (masked - middle) - (perf_counter() - masked))

        follow(texts, step)
        return took

    starts = []
    for _ in range(20):
        began = perf_counter()
        texts = TurnTexts(tools)
        start = texts.grammar.start
        assert start is not None
        start.mask(table, chat.stop_ids)
        starts.append(perf_counter() - began)
    texts = TurnTexts(tools)
    first, again = timed(texts), timed(texts)
    engine = random_engine("qwen3_5_0.8b", bits=8, context_length=8192)
    session = engine.session()
    session.extend(list(range(100, 600)))
    steps = []
    for _ in range(3):
        began = perf_counter()
        said = list(session.generate(warm, max_tokens=40, stop_ids=frozenset()))
        steps.append((perf_counter() - began) / len(said))
    decode = statistics.median(steps)
    mean = {"first": statistics.mean(first), "again": statistics.mean(again)}
    return {
        "tokens": len(first),
        "mask_us": {name: round(1e6 * value, 1) for name, value in mean.items()},
        "mask_us_p99_first": round(1e6 * sorted(first)[int(0.99 * len(first))], 1),
        "decode_ms": round(1e3 * decode, 3),
        "part_of_decode": {name: round(value / decode, 5) for name, value in mean.items()},
        "start_ms": round(1e3 * statistics.median(starts), 3),
        "table_s": round(seconds_table, 3),
    }


def tasks(path: Path, sandbox: SandboxKind, limit: int) -> dict[str, Any]:
    """Run the held-out tasks with and without ``edits``, and compare."""
    model, solved = load_model("embedded"), dict[str, list[bool]]()
    found: dict[str, Any] = {}
    modes: tuple[Constrain, ...] = ("off", "edits")
    for mode in modes:
        settings = prepare(Settings(sandbox=sandbox, constrain=mode, max_steps=30))
        results = measure(chosen(path, limit, 0), settings, model)
        solved[mode] = [result.solved for result in results]
        count = sum(solved[mode])
        low, high = wilson(count, len(results))
        found[mode] = {
            "tasks": len(results),
            "solved": count,
            "interval_95": [round(low, 4), round(high, 4)],
            "steps": sum(result.steps for result in results),
            "edits": sum(result.edits for result in results),
        }
    pairs = list(zip(solved["off"], solved["edits"], strict=True))
    only = [sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)]
    return {**found, "only_off": only[0], "only_edits": only[1], "p": round(mcnemar(*only), 4)}


def noises(turns: int) -> dict[str, Any]:
    """Count for the embedded model and for random weights in its shape."""
    embedded = load_model("embedded")
    engine = random_engine("small", torch.float32, context_length=16_384)
    engine.scheduler.threads = 1
    models = {"embedded": embedded, "random": LoadedModel(engine, embedded.chat)}
    with tempfile.TemporaryDirectory() as name:
        repo = write_repository(Path(name))
        found = {}
        with open_sandbox("local", Workspace.create(repo)) as sandbox:
            registry = Registry(ToolContext(sandbox))
            for label, model in models.items():
                print(label, flush=True)
                found[label] = noise(model, registry, turns)
    for label, modes in found.items():
        assert modes["calls"].get("malformed", 0) == 0, label
        assert modes["edits"].get("malformed", 0) == 0, label
        assert modes["edits"].get("missed_edits", 0) == 0, label
    return found


def write_repository(folder: Path) -> Path:
    """Write ``FILES`` as a git repository."""
    for name, text in FILES.items():
        (folder / name).write_text(text)
    identity = ("-c", "user.name=b", "-c", "user.email=b@example.org")
    commands: Sequence[Sequence[str]] = (
        ("init", "-q"),
        ("add", "-A"),
        (*identity, "commit", "-qm", "1"),
    )
    for command in commands:
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def main() -> None:
    """Measure, print, and record if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=10_000)
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--limit", type=int, default=105)
    parser.add_argument("--sandbox", default="docker")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    if options.tasks is not None:
        found = {"tasks": tasks(options.tasks, options.sandbox, options.limit)}
    else:
        with tempfile.TemporaryDirectory() as name:
            found = {"cost": cost(Path(name))}
        print(found, flush=True)
        found["noise"] = noises(options.turns)
    print(found)
    if options.record:
        for part, figures in found.items():
            record("constrain", {**machine(), part: figures}, under=part)


if __name__ == "__main__":
    main()
