"""Measure what it costs to read the prompts of a 30-step trajectory, kept and not kept.

    python -m benchmarks.agent_trajectory [--shape qwen3_5_0.8b | small] [--steps 30] [--threads N]
        [--stateless 4 12] [--checkpoint DIR [--peer-steps N]] [--gguf FILE --llama-python PYTHON]
        [--record NAME]

The trajectory is a real one (``record_trajectory.py``): Qwen's tokens of the system prompt, the
tool schemas, and what the tools gave. The weights are random, so the model's own turns are not
sampled but given: what it said is run after each prompt, not timed, and counted as said. What is
timed is each step's prompt, up to the logits that its answer begins with.

``tenuto``        one session, extended by what is new
``stateless``     the same engine, which runs the whole conversation anew for every step, as a
                  client of a server without state does. Only the steps named by ``--stateless`` are
                  run; the time of the others is taken from the line through (tokens, seconds) that
                  fits these best, plus the first step
``transformers``  with its cache kept by hand (``--checkpoint``), for the first ``--peer-steps``
``llama.cpp``     through llama-cpp-python, which is given the whole prompt and reuses what it can
                  (``--gguf``, with the same weights)

Checked before anything is written: the tokens that ``tenuto`` prefilled are exactly the new ones,
its session holds exactly the trajectory, and after the steps that were run statelessly its logits
agree with those of the whole text in one piece (to rounding: other cuts add up in another order).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.support.random_model import random_tensors, shape
from benchmarks.support.recording import machine, record
from benchmarks.support.trajectory import DATA, chat_format
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.engine import Engine
from model.hybrid.cpu import NativeModel, why_not
from model.hybrid.model import HybridModel, HybridNetwork
from model.messages import Message
from model.sampling import SamplingParams
from model.session import Session

ROOT = Path(__file__).resolve().parents[1]

Pair = tuple[list[int], list[int]]


def trajectory(chat: ChatFormat, tokenizer: Tokenizer, count: int) -> list[Pair]:
    """Return for each step the ids of its prompt and of its turn."""
    data = json.loads(DATA.read_text())
    pairs: list[Pair] = []
    for number, step in enumerate(data["steps"][:count]):
        messages = [Message(m["role"], m["content"]) for m in step["messages"]]
        if number == 0:
            prompt = chat.begin(messages, data["tools"], True)
        else:
            prompt = chat.append(True, messages, True)
        pairs.append((prompt, tokenizer.encode_markup(step["said"] + "<|im_end|>")))
    return pairs


def engine_of(name: str, checkpoint: Path | None) -> tuple[Engine, str]:
    """Return the engine and what runs it; weights from ``checkpoint``, else random ones."""
    if checkpoint is not None:
        engine = Engine.load(checkpoint, name=name)
        assert isinstance(engine.network, HybridNetwork)
        return engine, "compiled" if engine.network.compiled is not None else "torch"
    config = shape(name, 1 << 16)
    dtype = torch.float32 if name == "small" else torch.bfloat16
    with torch.inference_mode():
        model = HybridModel.build(config, random_tensors(config, dtype), dtype)
    compiled = NativeModel(model) if why_not(config, dtype, "cpu") is None else None
    network = HybridNetwork(model, fingerprint=f"random-{name}", compiled=compiled)
    engine = Engine(network, config, name=name, generation=SamplingParams())
    return engine, "torch" if compiled is None else "compiled"


def logits_of(session: Session) -> torch.Tensor:
    """Return the logits after everything the session holds."""
    found = session.snapshot().logits
    assert found is not None
    return found


def ours(engine: Engine, pairs: list[Pair]) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """One session that is extended; its figures, and the logits after each prompt."""
    session = engine.session()
    seconds, logits = [], []
    said = 0
    for prompt, answer in pairs:
        before = session.usage.prefilled_tokens
        started = perf_counter()
        session.extend(prompt)
        seconds.append(perf_counter() - started)
        assert session.usage.prefilled_tokens - before == len(prompt)
        logits.append(logits_of(session))
        session.extend(answer)
        said += len(answer)
    new = sum(len(prompt) for prompt, _ in pairs)
    assert session.usage.prefilled_tokens - said == new
    assert session.ids == tuple(i for pair in pairs for ids in pair for i in ids)
    session.close()
    figures = {
        "prefilled_tokens": new,
        "new_tokens": new,
        "seconds": sum(seconds),
        "by_step": [round(s, 3) for s in seconds],
    }
    return figures, logits


def stateless(
    engine: Engine, pairs: list[Pair], steps: list[int], expected: list[torch.Tensor], first: float
) -> dict[str, Any]:
    """Read the whole conversation anew at ``steps`` (from 1); fit a line to the times."""
    texts, so_far = [], []
    for prompt, answer in pairs:
        so_far += prompt
        texts.append(list(so_far))
        so_far += answer
    # The first step is the same for both.
    measured = {1: (len(texts[0]), first)}
    worst = 0.0
    for number in steps:
        session = engine.session()
        started = perf_counter()
        session.extend(texts[number - 1])
        measured[number] = (len(texts[number - 1]), perf_counter() - started)
        found, other = logits_of(session), expected[number - 1]
        worst = max(worst, float((found - other).abs().max() / other.abs().max()))
        session.close()
    tolerance = 1e-3 if engine.network.fingerprint == "random-small" else 0.1
    assert worst < tolerance, f"stateless and kept logits differ by {worst:.2e} of their size"
    points = list(measured.values())
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points) or 1.0
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    lengths = [len(text) for text in texts]
    seconds = [
        measured[n][1] if n in measured else max(0.0, mean_y + slope * (length - mean_x))
        for n, length in enumerate(lengths, start=1)
    ]
    return {
        "prefilled_tokens": sum(lengths),
        "seconds": sum(seconds),
        "measured_steps": {str(n): [x, round(y, 3)] for n, (x, y) in measured.items()},
        "logits_differ_by": worst,
    }


def peer(
    python: str, kind: str, model: Path, pairs: list[Pair], count: int, threads: int
) -> dict[str, Any]:
    """Another engine, in its own process, for the first ``count`` steps."""
    command = [
        python,
        str(ROOT / "benchmarks" / "support" / "trajectory_peers.py"),
        kind,
        str(model),
    ]
    process = subprocess.Popen(
        [*command, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["ready"] == kind
    ids: list[int] = []
    answers, known, said = [], 0, 0
    for prompt, answer in pairs[:count]:
        # What the model said goes in with the next prompt; its share of the time is taken off.
        ids += prompt
        process.stdin.write(json.dumps({"prompt": ids, "known": known}) + "\n")
        process.stdin.flush()
        got = json.loads(process.stdout.readline())
        share = len(prompt) / (len(prompt) + said)
        answers.append({"tokens": got["tokens"] - said, "seconds": got["seconds"] * share})
        known = len(ids)
        ids += answer
        said = len(answer)
    process.stdin.close()
    process.wait()
    return {
        "steps": count,
        "prefilled_tokens": sum(a["tokens"] for a in answers),
        "new_tokens": sum(len(prompt) for prompt, _ in pairs[:count]),
        "seconds": sum(a["seconds"] for a in answers),
        "by_step": [round(a["seconds"], 3) for a in answers],
    }


def main() -> None:
    """Run the engines one after the other and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen3_5_0.8b")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--stateless", type=int, nargs="*", default=[4, 12])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--peer-steps", type=int, default=30)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--llama-python", default=sys.executable)
    parser.add_argument("--record", metavar="NAME", help="write results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        pairs = trajectory(*chat_format(Path(name)), options.steps)
    engine, path = engine_of(options.shape, options.checkpoint)
    size = engine.network.vocab_size
    pairs = [([i % size for i in a], [i % size for i in b]) for a, b in pairs]
    engine.session().extend(pairs[0][0][:64])  # the first pass of a process is slower

    kept, logits = ours(engine, pairs)
    results: dict[str, Any] = {"tenuto": kept}
    steps = [n for n in options.stateless if 1 < n <= len(pairs)]
    if steps:
        results["stateless"] = stateless(engine, pairs, steps, logits, kept["by_step"][0])
    del engine
    count = min(options.peer_steps, len(pairs))
    if options.checkpoint is not None and count:
        results["transformers"] = peer(
            sys.executable, "transformers", options.checkpoint, pairs, count, options.threads
        )
    if options.gguf is not None and count:
        results["llama.cpp"] = peer(
            options.llama_python, "llama", options.gguf, pairs, count, options.threads
        )
    total = sum(len(a) + len(b) for a, b in pairs)
    print(f"{options.shape}, {path}, {len(pairs)} steps, {total:,} tokens in the end")
    for label, figures in results.items():
        own = kept["by_step"][: figures.get("steps", len(pairs))]
        print(
            f"{label:13} {figures['prefilled_tokens']:8,} tokens prefilled, "
            f"{figures['seconds']:8.1f} s, {figures['seconds'] / sum(own):5.1f} x tenuto"
            + (f" (first {figures['steps']} steps)" if "steps" in figures else "")
        )
    if options.record:
        settings = {
            "shape": options.shape,
            "path": path,
            "threads": options.threads,
            "steps": len(pairs),
            "tokens_in_the_end": total,
        }
        record(options.record, {**machine("transformers"), **settings, **results})


if __name__ == "__main__":
    main()
