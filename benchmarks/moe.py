"""Does a mixture of experts decode at the memory's rate? Against llama.cpp on the same GGUF file.

    python -m benchmarks.moe --work DIR --llama-python PYTHON [--layers N] [--prompt 512]
        [--rounds 5] [--decode 32] [--sessions 8] [--threads 2] [--record]

DIR gets a file of the 35B-A3B shape with random weights in the types of Q4_K_M, cut to as many
layers as half of the free memory holds, at most twelve unless ``--layers`` says more; it is made
once (twelve layers have 7 GB). First it is counted what one token reads of the file's experts. Then
the logits of both engines are compared: they must agree, or nothing is measured. Then both take
turns at prefill and decode, and several sessions run in one pass. Figures for all 40 layers are by
the ratio of the bytes that a token reads. PYTHON has llama-cpp-python 0.3.36 (see ``cpu_engine``).
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cpu_engine import WorkerProcess, limits
from benchmarks.support.moe_file import layer_bytes, shape_of_35b, write
from benchmarks.support.pages_read import forget, resident
from benchmarks.support.recording import machine, record
from kernels.experts import ExpertStack
from kernels.linear import StackedWeight, StoredRows, Weight
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.expert_tensors import is_experts
from model.engine import Engine
from model.hybrid.experts import Experts
from model.hybrid.model import HybridNetwork
from model.network import Work

PEER = "Q4_K_M"
ALL_LAYERS = 40
MOST_LAYERS = 12
"""The layers that are written unless more are asked for: a file of 7 GB."""
MOST_APART = 0.1
"""The largest relative difference of the engines' logits; each rounds activations its own way."""


def fitting_layers() -> int:
    """Return how many layers half of the free memory holds, from four to ``MOST_LAYERS``."""
    pages = os.sysconf("SC_AVPHYS_PAGES")
    available = pages * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            available = int(line.split()[1]) * 1024
    room = available / 2 - 1e9
    return max(4, min(MOST_LAYERS, int(room / layer_bytes(shape_of_35b(4))) // 4 * 4))


def bytes_a_token(path: Path) -> tuple[int, int]:
    """Return the bytes of weights that a token reads: of all layers, and of the head."""
    checkpoint = Checkpoint.open(path)
    experts = checkpoint.config.experts
    assert experts is not None
    layers = 0
    for name, stored in checkpoint.tensors.items():
        if not name.startswith("layers."):
            continue
        share = experts.chosen / experts.count if is_experts(name) else 1.0
        layers += int(stored.nbytes * share)
    return layers, checkpoint.tensors["lm_head.weight"].nbytes


def experts_read(path: Path) -> dict[str, float]:
    """Count the bytes of experts that one token brings into memory, and those of its experts."""
    engine = Engine.load(path, name="moe", drafts="off")
    network = engine.network
    assert isinstance(network, HybridNetwork)
    state = network.run([Work(list(range(5)), network.new_state())])[0][1]
    tensors, chosen = [], 0
    for block in network.model.blocks:
        ff = block.feed_forward
        assert isinstance(ff, Experts)
        for stack in (ff.gate_up, ff.down):
            assert isinstance(stack, ExpertStack)
            chosen += stack[0].nbytes * ff.chosen
            tensors += [part for e in range(stack.shape[0]) for part in _mapped(stack[e])]
    forget(path)
    left = sum(map(resident, tensors))
    network.run([Work([7], state)])
    read = sum(map(resident, tensors)) - left
    return {"read": read, "chosen": chosen, "ratio": round(read / chosen, 4), "left": left}


def _mapped(weight: Weight) -> list[torch.Tensor]:
    parts = weight.parts if isinstance(weight, StackedWeight) else (weight,)
    return [part.data for part in parts if isinstance(part, StoredRows)]


def compare(workers: dict[str, WorkerProcess]) -> dict[str, float]:
    """Compare the logits after a prompt and after each of eight tokens; stop if they differ."""
    g = torch.Generator().manual_seed(7)
    ids = torch.randint(200_000, (72,), generator=g).tolist()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for worker in workers.values():
            file = str(Path(folder) / "logits.npy")
            worker.ask(logits=[ids[:64], *ids[64:]], file=file)
            rows.append(np.load(file))
    ours, theirs = rows[0], rows[1][:, : rows[0].shape[1]]
    apart = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    best = float((ours.argmax(1) == theirs.argmax(1)).mean())
    print(f"logits: relative difference {apart:.4f}, same best token {best:.0%}")
    if not apart < MOST_APART:
        raise SystemExit("the engines' logits differ too much to compare their speed")
    return {"relative_difference": round(apart, 5), "same_best": best}


def measure(workers: dict[str, WorkerProcess], options: argparse.Namespace) -> dict[str, Any]:
    """Take turns: tokens a second of each engine in each round, and the machine's limits."""
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(200_000, (options.prompt,), generator=g).tolist()
    samples: dict[str, dict[str, list[float]]] = {
        name: {"prefill": [], "decode": []} for name in workers
    }
    samples["tenuto"]["together"] = []
    for worker in workers.values():
        worker.ask(prefill=ids[:64])
        worker.ask(decode=4)
    seen = []
    for _ in range(options.rounds):
        seen.append(limits(options.threads))
        for name, worker in workers.items():
            seconds = worker.ask(prefill=ids)["seconds"]
            samples[name]["prefill"].append(options.prompt / seconds)
            seconds = worker.ask(decode=options.decode)["seconds"]
            samples[name]["decode"].append(options.decode / seconds)
        tokens = max(4, options.decode // 4)
        order = {"together": options.sessions, "tokens": tokens}
        seconds = workers["tenuto"].ask(**order)["seconds"]
        samples["tenuto"]["together"].append(options.sessions * tokens / seconds)
    limit = {key: statistics.median(one[key] for one in seen) for key in seen[0]}
    return {"samples": samples, "limits": limit}


def summary(found: dict[str, Any], layers: int, read: tuple[int, int]) -> dict[str, Any]:
    """Print and return medians, ratios, the share of the read bandwidth, and 40 layers."""
    median = {
        name: {kind: round(statistics.median(values), 2) for kind, values in taken.items()}
        for name, taken in found["samples"].items()
    }
    own, peer = median["tenuto"], median[PEER]
    a_token, whole = sum(read), read[0] * ALL_LAYERS / layers + read[1]
    share = a_token * own["decode"] / 1e9 / found["limits"]["read_gb_s"]
    made = {
        "median": median,
        "decode_ratio": round(own["decode"] / peer["decode"], 2),
        "prefill_ratio": round(own["prefill"] / peer["prefill"], 2),
        "together_ratio": round(own["together"] / own["decode"], 2),
        "bytes_a_token": a_token,
        "share_of_read_bandwidth": round(share, 3),
        "decode_of_40_layers": round(own["decode"] * a_token / whole, 2),
    }
    print(f"{layers} of {ALL_LAYERS} layers, {a_token / 1e6:.0f} MB a token; tokens/s:")
    for name, rates in median.items():
        print(f"  {name:8}" + "".join(f"  {kind} {rate}" for kind, rate in rates.items()))
    print(
        f"decode {made['decode_ratio']} times, prefill {made['prefill_ratio']} times the peer's;"
        f" {share:.0%} of the read bandwidth of {found['limits']['read_gb_s']:.1f} GB/s;"
        f" together {made['together_ratio']} times one session"
    )
    print(f"extrapolated to {ALL_LAYERS} layers: decode {made['decode_of_40_layers']} tokens/s")
    return made


def main() -> None:
    """Count, compare, measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--llama-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--layers", type=int)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    layers = options.layers or fitting_layers()
    path = (options.work / f"moe-{layers}.gguf").resolve()
    write(path, layers)
    torch.set_num_threads(options.threads)
    pages = experts_read(path)
    gc.collect()
    print(f"experts: {pages['read'] / 1e6:.1f} MB read for {pages['chosen'] / 1e6:.1f} MB chosen")
    workers = {
        "tenuto": WorkerProcess("none", options, path),
        PEER: WorkerProcess(PEER, options, path),
    }
    errors = compare(workers)
    found = measure(workers, options)
    memory = {name: worker.peak_mb() for name, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    made = summary(found, layers, bytes_a_token(path))
    if options.record:
        result = {"layers": layers, "prompt": options.prompt, "threads": options.threads}
        result |= {"experts_read": pages, "errors": errors, "memory_mb": memory, **made, **found}
        record("moe", {**machine(), **result})


if __name__ == "__main__":
    main()
