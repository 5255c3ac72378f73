"""Measure what a long context costs: decode, prefill, saves, and keys and values in 8 bits.

    python -m benchmarks.long_context PART... [--record]

``quality``  int8 keys and values against those the model computes in: the largest difference of the
             logits, the mean KL divergence, and greedy tokens that differ, on the embedded model
             over its own training format and on random weights of the 0.8B shape at 2,048 tokens.
``decode``   tokens a second at 512, 16,384 and 65,536 tokens, bf16 and int8 keys and values, on the
             0.8B shape. The contexts are pages of random keys, so that none has to be prefilled.
``prefill``  seconds a token at 512 and at 32,768 tokens, for one chunk there.
``state``    save of one step, load and fork at 200,000 tokens on the 0.8B shape.
``million``  1,010,000 tokens through two macro-blocks of small width, in one run and in pieces:
             equal states, and seconds and bytes a token at 10,000, 100,000 and 1,010,000.

Each part first checks that what it runs is right, and ends with an error if not. Random weights say
nothing of a model's quality; there the figures compare two ways to compute one thing. No peer runs
here yet.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.support.random_model import random_tensors, shape
from benchmarks.support.recording import machine, record
from kernels.kv_cache import quantise
from model.checkpoint.hub import resolve
from model.engine import Engine
from model.hybrid.cpu import NativeModel
from model.hybrid.model import HybridModel, HybridNetwork
from model.network import State, Work
from model.persist import read, write
from model.sampling import SamplingParams
from model.scheduler import Scheduler
from model.state.pages import PAGE, HybridState

GREEDY = SamplingParams(temperature=0.0)


def networks(name: str) -> dict[str, HybridNetwork]:
    """Return networks over the same random bf16 weights: keys and values in bf16 and in int8."""
    config = shape(name, 1 << 21)
    with torch.inference_mode():
        model = HybridModel.build(config, random_tensors(config, torch.bfloat16), torch.bfloat16)
    compiled = NativeModel(model)
    return {
        form: HybridNetwork(model, fingerprint=f"random-{name}", compiled=compiled, kv=kv)
        for form, kv in (("bf16", None), ("int8", torch.int8))
    }


def filled(network: HybridNetwork, length: int) -> HybridState:
    """Return a state of ``length`` tokens (whole pages) with random keys and values.

    Every page has memory of its own, as it would after a prefill.
    """
    layout = network.layout
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(layout.page, generator=generator).to(layout.dtype)
    given = (rows,) if layout.kv == layout.dtype else quantise(rows, layout.kv)
    pages = []
    for _ in range(length // PAGE):
        page = layout.new_page()
        for own, part in zip(page.parts, given, strict=True):
            own.copy_(part)
        page.filled = PAGE
        pages.append(page)
    slot = layout.new_slot()
    for tensor in slot.tensors:
        tensor.zero_()
    return HybridState(layout, length // PAGE * PAGE, slot, tuple(pages))


def timed(run: Callable[[], Any]) -> float:
    """Return the seconds that ``run`` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def step(network: HybridNetwork, state: State, ids: list[int]) -> tuple[Tensor, State]:
    """Run ``ids`` and return the logits after the last of them, and the state."""
    ((logits, after),) = network.run([Work(ids, state)])
    assert logits is not None
    return logits, after


def decode() -> dict[str, Any]:
    """Return tokens a second by form and context; the two forms must say about the same."""
    made = networks("qwen3_5_0.8b")
    rates: dict[str, Any] = {}
    for length in (512, 16_384, 65_536):
        logits = {}
        for form, network in made.items():
            state: State = filled(network, length)
            first, state = step(network, state, [1])
            logits[form] = first
            times = []
            for token in range(24):
                begin = time.perf_counter()
                _, state = step(network, state, [token + 2])
                times.append(time.perf_counter() - begin)
            rates[f"{form} at {length}"] = round(1 / sorted(times)[len(times) // 2], 2)
        difference = float((logits["bf16"] - logits["int8"]).abs().max())
        if difference > float(logits["bf16"].std()):
            raise SystemExit(f"the forms differ by {difference} at {length}: nothing is recorded")
    return rates


def prefill() -> dict[str, Any]:
    """Return seconds a token of a chunk of 512 that starts at 0, and that ends at 32,768."""
    seconds: dict[str, Any] = {}
    for form, network in networks("qwen3_5_0.8b").items():
        for start in (0, 32_768 - 512):
            state = filled(network, start) if start else network.new_state()
            ids = [(7 * i) % 1000 for i in range(512)]
            step(network, state, ids)
            best = min(timed(partial(step, network, state, ids)) for _ in range(3))
            seconds[f"{form} to {start + 512}"] = best / 512
    return seconds


def state() -> dict[str, Any]:
    """Return seconds of a first save, a save of one step, a load and a fork at 200,000 tokens."""
    network = networks("qwen3_5_0.8b")["int8"]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scheduler = Scheduler(network)
        _, grown = scheduler.forward([1], filled(network, 200_000))
        held = grown.span(0, grown.length)
        found["bytes"] = sum(part.nbytes for part in held.values())
        found["first_save_s"] = timed(
            lambda: write(
                place, {"fingerprint": "x"}, grown.tensors(), grown.length, (), grown.span
            )
        )
        spans = read(place, "x").spans
        _, later = scheduler.forward(list(range(200)), grown)
        found["step_save_s"] = timed(
            lambda: write(
                place, {"fingerprint": "x"}, later.tensors(), later.length, spans, later.span
            )
        )
        saved = read(place, "x")
        found["load_s"] = timed(
            lambda: network.load_state(saved.point, saved.tensors(), later.length)
        )
        loaded = network.load_state(saved.point, saved.tensors(), later.length)
        for name, part in loaded.span(0, later.length).items():
            if not torch.equal(part, later.span(0, later.length)[name]):
                raise SystemExit("what was loaded is not what was saved: nothing is recorded")
    return found


def million() -> dict[str, Any]:
    """Run 1,010,000 tokens in one go and in two pieces; return seconds and bytes a token."""
    config = replace(
        shape("small", 1 << 21),
        num_attention_heads=6,
        num_key_value_heads=1,
        head_dim=256,
        rotary_dim=64,
        mrope_section=(11, 11, 10),
        linear_num_key_heads=1,
        linear_num_value_heads=3,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        hidden_size=64,
        intermediate_size=96,
        vocab_size=512,
    )
    with torch.inference_mode():
        model = HybridModel.build(config, random_tensors(config, torch.bfloat16), torch.bfloat16)
    network = HybridNetwork(
        model, fingerprint="million", compiled=NativeModel(model), kv=torch.int8
    )
    found: dict[str, Any] = {}
    state: State = network.new_state()
    began = time.perf_counter()
    at, kept = 0, None
    for mark in (10_000, 100_000, 1_010_000):
        while at < mark:
            count = min(512 - at % 512, mark - at)
            ids = [(at + i) * 31 % 512 for i in range(count)]
            ((_, state),) = network.run([Work(ids, state, logits=False)])
            at += count
            if at == 1_009_664:
                kept = state
        found[f"seconds to {mark}"] = round(time.perf_counter() - began, 2)
        found[f"bytes a token at {mark}"] = round(network.layout.memory.used / mark, 1)
    assert kept is not None
    again = kept
    ids = [i * 31 % 512 for i in range(1_009_664, 1_010_000)]
    ((_, again),) = network.run([Work(ids, again, logits=False)])
    for name, tensor in state.tensors().items():
        if not torch.equal(tensor, again.tensors()[name]):
            raise SystemExit("a run in pieces ended in another state: nothing is recorded")
    return found


def compare(one: HybridNetwork, other: HybridNetwork, ids: list[int]) -> dict[str, float]:
    """Return how far the next-token distributions of two networks are apart along ``ids``."""
    most = kl = 0.0
    differ = 0
    states: list[State] = [one.new_state(), other.new_state()]
    for token in ids:
        logits = []
        for index, network in enumerate((one, other)):
            row, states[index] = step(network, states[index], [token])
            logits.append(row.double())
        p, q = (row.log_softmax(-1) for row in logits)
        most = max(most, float((logits[0] - logits[1]).abs().max()))
        kl += float((p.exp() * (p - q)).sum())
        differ += int(logits[0].argmax() != logits[1].argmax())
    return {
        "tokens": len(ids),
        "largest_logit_difference": most,
        "mean_kl": kl / len(ids),
        "greedy_tokens_that_differ": differ,
    }


def quality() -> dict[str, Any]:
    """Compare int8 keys and values with the others (see the module)."""
    engines = [Engine.load(resolve("embedded"), name="x", kv=kv) for kv in ("bf16", "int8")]
    plain, small = (engine.network for engine in engines)
    assert isinstance(plain, HybridNetwork) and isinstance(small, HybridNetwork)
    session = engines[0].session()
    session.extend(list(range(300, 340)))
    ids = list(session.ids)
    for event in session.generate(GREEDY, max_tokens=600, stop_ids=frozenset()):
        ids.append(event.id)
    found = {"embedded": compare(plain, small, ids)}
    made = networks("qwen3_5_0.8b")
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(1000, (2048,), generator=generator).tolist()
    rows = [step(network, network.new_state(), start)[0].double() for network in made.values()]
    p, q = (row.log_softmax(-1) for row in rows)
    found["0.8B shape, random weights"] = {
        "tokens": len(start),
        "largest_logit_difference": float((rows[0] - rows[1]).abs().max()),
        "logit_spread": float(rows[0].std()),
        "mean_kl": float((p.exp() * (p - q)).sum()),
    }
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "quality": quality,
    "decode": decode,
    "prefill": prefill,
    "state": state,
    "million": million,
}


def main() -> None:
    """Run the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--record", action="store_true", help="write benchmarks/results")
    options = parser.parse_args()
    for name in options.parts:
        found = PARTS[name]()
        print(name, json.dumps(found, indent=1))
        if options.record:
            record("long_context", {**machine(), **found}, under=name)


if __name__ == "__main__":
    main()
