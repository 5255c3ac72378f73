"""Tenuto, transformers and llama.cpp on this CPU: the same random weights, prompt and threads.

    python -m benchmarks.cpu_engine --work DIR [--engines NAME,...] [--prompt 512] [--rounds 5]
        [--decode 32] [--threads 2] [--llama-python PYTHON] [--ik-bench LLAMA_BENCH]
        [--start] [--record]

Engines are ``none``, ``int8``, ``int4`` (Tenuto on the bf16 checkpoint, rounded), ``transformers``,
``BF16``, ``Q8_0``, ``Q4_0``, ``Q4_K_M`` (llama.cpp on a GGUF file), ``gguf-FORMAT`` (Tenuto on the
same file) and ``ik-FORMAT`` (ik_llama.cpp's ``llama-bench`` on it, with run-time repacking). Each
runs in a process of its own; in each round all take their turn. First each engine's logits are
compared with those of the float32 reference; ``llama-bench`` gives none. ``--record`` adds the
samples to ``benchmarks/results/cpu_engine.json``; medians are over all samples with the same
settings, so a long measurement may be made in several short runs. The same file against both peers,
in less than eight minutes on two cores:

    python -m benchmarks.cpu_engine --work DIR --engines gguf-Q4_K_M,Q4_K_M,ik-Q4_K_M,gguf-Q8_0,Q8_0
        --rounds 3 --llama-python PYTHON --ik-bench LLAMA_BENCH --record

DIR gets a checkpoint in the published 0.8B shape with random weights. The llama.cpp files are made
once, outside: ``pip install llama-cpp-python==0.3.36`` into an environment of its own (its python
is ``--llama-python``), then, from the llama.cpp folder in that release's source archive,
``convert_hf_to_gguf.py DIR/model --no-mtp --outtype bf16 --outfile DIR/BF16.gguf`` and for the
other formats ``llama_cpp.llama_model_quantize`` to ``DIR/FORMAT.gguf``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.support.recording import machine, read, record
from kernels.native import native
from model.checkpoint.config import ModelConfig
from model.checkpoint.weights import tensor_shapes

ROOT = Path(__file__).resolve().parent.parent

CONFIG = ROOT / "tests" / "golden" / "configs" / "qwen3_5_0.8b.config.json"
OURS = ("none", "int8", "int4")
LLAMA = ("BF16", "Q8_0", "Q4_0", "Q4_K_M")
GEMM = (512, 1024, 3584)


def make_checkpoint(directory: Path) -> Path:
    """Write a checkpoint of the 0.8B shape whose random weights keep activations near one."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / "model.safetensors"
    if target.is_file():
        return directory
    shutil.copyfile(CONFIG, directory / "config.json")
    g = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in tensor_shapes(ModelConfig.load(directory), mtp=False).items():
        value = torch.randn(shape, generator=g)
        kept = name.endswith(("A_log", "linear_attn.norm.weight"))
        if name.endswith("linear_attn.norm.weight"):
            value = 1 + value * 0.05
        elif name.endswith("A_log"):
            value = torch.rand(shape, generator=g) * 2.5
        elif "conv1d" in name:
            value *= 0.3
        elif len(shape) == 2:
            value *= 0.02
        elif "norm" in name:
            value *= 0.05
        tensors[f"model.language_model.{name}"] = value if kept else value.bfloat16()
    save_file(tensors, target)
    return directory


def ours(name: str) -> bool:
    """Tell whether an engine is Tenuto."""
    return name in OURS or name.startswith("gguf-")


class IkBench:
    """ik_llama.cpp by its own ``llama-bench``: a process for each measurement."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        if options.ik_bench is None:
            raise SystemExit(f"{name} needs --ik-bench, the path of ik_llama.cpp's llama-bench")
        model = options.work / f"{name.removeprefix('ik-')}.gguf"
        self._command = [str(options.ik_bench), "-m", str(model), "-t", str(options.threads)]
        self._command += ["-r", "1", "-rtr", "1", "-o", "json"]
        self.loaded_s = 0.0

    def ask(self, **order: Any) -> Any:
        """Run the prompt or the steps of ``order``; return how long they took."""
        prompt, steps = len(order.get("prefill", ())), order.get("decode", 0)
        done = subprocess.run(
            [*self._command, "-p", str(prompt), "-n", str(steps)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        (found,) = json.loads(done.stdout)
        return {"seconds": (prompt or steps) / found["avg_ts"]}

    def peak_mb(self) -> dict[str, int]:
        """Return nothing: each measurement has a process of its own."""
        return {}

    def close(self) -> None:
        """End nothing."""


class WorkerProcess:
    """One engine's process; ``file`` is its model, by default the one in the work folder."""

    def __init__(self, name: str, options: argparse.Namespace, file: Path | None = None) -> None:
        python, model = sys.executable, file or options.work / "model"
        kind = name if name == "transformers" else f"tenuto-{name}"
        if name.startswith("gguf-"):
            kind, model = "tenuto-none", options.work / f"{name.removeprefix('gguf-')}.gguf"
        if name in LLAMA:
            python, kind = options.llama_python, "llama"
            model = file or options.work / f"{name}.gguf"
        worker = Path(__file__).with_name("support") / "cpu_worker.py"
        command = [str(python), str(worker), kind, str(model), str(options.threads)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
        if name in LLAMA:
            del environment["PYTHONPATH"]
        environment["OMP_NUM_THREADS"] = str(options.threads)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.loaded_s = self._answer()["loaded_s"]

    def ask(self, **order: Any) -> Any:
        """Send one command and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{' '.join(map(str, self.process.args[:3]))} ended")  # type: ignore[index]

    def peak_mb(self) -> dict[str, int]:
        """Return the most memory the process had, and what of it was not files."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return {
            "peak": int(fields["VmHWM"].split()[0]) // 1024,
            "anonymous_now": int(fields["RssAnon"].split()[0]) // 1024,
        }

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


def limits(threads: int) -> dict[str, float]:
    """Measure the machine: memory read in GB/s (by a bare loop, and by torch's sum of 256 MB),
    and a bf16 matrix product in GFLOP/s (oneDNN).
    """
    torch.set_num_threads(threads)
    data = torch.ones(256 << 20, dtype=torch.uint8).repeat(2)
    library = native()
    reads, gemms, sums = [], [], []
    rows, inputs, outputs = GEMM
    x, w = torch.randn(rows, inputs).bfloat16(), torch.randn(outputs, inputs).bfloat16()
    for _ in range(7):
        started = perf_counter()
        if library is None:
            data.view(torch.float32).sum()
        else:
            library.call.tenuto_read(data.data_ptr(), data.nbytes, threads)
        reads.append(data.nbytes / (perf_counter() - started) / 1e9)
        started = perf_counter()
        data[: 256 << 20].view(torch.float32).sum()
        sums.append((256 << 20) / (perf_counter() - started) / 1e9)
        started = perf_counter()
        for _ in range(4):
            torch.nn.functional.linear(x, w)
        gemms.append(8 * rows * inputs * outputs / (perf_counter() - started) / 1e9)
    return {
        "read_gb_s": statistics.median(reads),
        "torch_sum_gb_s": statistics.median(sums),
        "gemm_gflop_s": statistics.median(gemms),
    }


Worker = WorkerProcess | IkBench


def compare(workers: dict[str, Worker], options: argparse.Namespace) -> dict[str, Any]:
    """Each engine's logits against the float32 reference: prompt, then tokens one by one."""
    g = torch.Generator().manual_seed(7)
    ids = torch.randint(200_000, (104,), generator=g).tolist()
    order = [ids[:96], *ids[96:]]
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        judge = WorkerProcess("float32", options)
        file = str(Path(folder) / "judge.npy")
        judge.ask(logits=order, file=file)
        judge.close()
        expected = np.load(file)
        for name, worker in workers.items():
            if isinstance(worker, IkBench):
                print(f"  {name:12} gives no logits")
                continue
            worker.ask(logits=order, file=file)
            got = np.load(file)[:, : expected.shape[1]]
            error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
            best = float((got.argmax(1) == expected.argmax(1)).mean())
            errors[name] = {"relative_error": round(float(error), 5), "same_best": best}
            print(f"  {name:12} relative error {error:.4f}, same best token {best:.0%}")
    return errors


def measure(
    workers: dict[str, Worker], options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, float]]:
    """Prefill and decode in turn: tokens a second of each round, and the machine's limits.

    The limits are taken anew in each round, since neighbours on a shared machine change them."""
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(200_000, (options.prompt,), generator=g).tolist()
    samples: dict[str, Any] = {name: {"prefill": [], "decode": []} for name in workers}
    for worker in workers.values():
        worker.ask(prefill=ids[:64])
        worker.ask(decode=2)
    seen: list[dict[str, float]] = []
    for _ in range(options.rounds):
        seen.append(limits(options.threads))
        for name, worker in workers.items():
            seconds = worker.ask(prefill=ids)["seconds"]
            samples[name]["prefill"].append(options.prompt / seconds)
            seconds = worker.ask(decode=options.decode)["seconds"]
            samples[name]["decode"].append(options.decode / seconds)
    return samples, {key: statistics.median(one[key] for one in seen) for key in seen[0]}


def start(options: argparse.Namespace) -> dict[str, Any]:
    """From a new process to the first token of a short prompt, weights in the page cache."""
    found = {}
    for name in OURS:
        WorkerProcess(name, options).close()
        seconds = []
        for _ in range(3):
            began = perf_counter()
            worker = WorkerProcess(name, options)
            worker.ask(prefill=list(range(16)))
            seconds.append(perf_counter() - began)
            memory = worker.peak_mb()
            worker.close()
        found[name] = {"seconds": round(statistics.median(seconds), 2), "memory_mb": memory}
        print(f"{name:6} first token {found[name]['seconds']} s after the start, MB {memory}")
    return found


def table(samples: dict[str, Any], facts: dict[str, Any], limit: dict[str, float], at: int) -> None:
    """Print medians, and for Tenuto what they move and what share of the limits that is."""
    print(f"{'engine':13}{'prefill':>9}{'decode':>8}   tokens/s, medians at {at} tokens")
    for name, taken in samples.items():
        rate = {kind: statistics.median(values) for kind, values in taken.items()}
        line = f"{name:13}{rate['prefill']:9.1f}{rate['decode']:8.1f}"
        if name in facts:
            fact = facts[name]
            kv = fact["kv_bytes_per_position"] * at
            moved = fact["weight_bytes"] + fact["state_bytes"] + kv
            line += (
                f"   weights {fact['weight_bytes'] / 1e6:.0f} MB + state "
                f"{fact['state_bytes'] / 1e6:.0f} + KV {kv / 1e6:.0f} a token: "
                f"{moved * rate['decode'] / 1e9:.1f} GB/s, "
                f"{moved * rate['decode'] / 1e9 / limit['read_gb_s']:.0%} of the read bandwidth; "
                f"prefill {rate['prefill'] * fact['flop'] / 1e9 / limit['gemm_gflop_s']:.0%}"
                " of the bf16 GEMM rate"
            )
        print(line)


def add(key: str, samples: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Add to the results file; returns all samples under ``key``."""
    held = {"settings": {}, **read("cpu_engine")}
    entry = held["settings"].setdefault(key, {"runs": [], "samples": {}})
    entry["runs"].append(more)
    for name, taken in samples.items():
        own = entry["samples"].setdefault(name, {"prefill": [], "decode": []})
        for kind, values in taken.items():
            own[kind] += [round(v, 2) for v in values]
            own[f"{kind}_median"] = round(statistics.median(own[kind]), 2)
    record("cpu_engine", {**held, **machine()})
    return {
        name: {k: own[k] for k in ("prefill", "decode")} for name, own in entry["samples"].items()
    }


def main() -> None:
    """Compare, measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--engines", default=",".join([*OURS, "BF16", "Q8_0", "Q4_K_M"]))
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--llama-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--ik-bench", type=Path)
    parser.add_argument("--no-compare", action="store_true")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--start", action="store_true", help="measure only the start")
    options = parser.parse_args()
    if options.start:
        found = start(options)
        if options.record:
            record("cpu_engine", read("cpu_engine") | machine() | {"start": found})
        return
    config = ModelConfig.load(make_checkpoint(options.work / "model"))
    shapes = tensor_shapes(config, mtp=False)
    # Two operations a weight; the head runs for one position only.
    flop = 2 * sum(s[0] * s[1] for n, s in shapes.items() if len(s) == 2 and "embed" not in n)
    workers: dict[str, Worker] = {
        name: (IkBench if name.startswith("ik-") else WorkerProcess)(name, options)
        for name in options.engines.split(",")
    }
    facts = {name: worker.ask() | {"flop": flop} for name, worker in workers.items() if ours(name)}
    errors = {} if options.no_compare else compare(workers, options)
    samples, limit = measure(workers, options)
    more = {
        **machine(),
        "threads": options.threads,
        **{key: round(value, 1) for key, value in limit.items()},
        "errors": errors,
        "facts": facts,
        "loaded_s": {name: round(worker.loaded_s, 3) for name, worker in workers.items()},
        "memory_mb": {name: worker.peak_mb() for name, worker in workers.items()},
    }
    for worker in workers.values():
        worker.close()
    if options.record:
        samples = add(f"prompt {options.prompt}", samples, more)
    print(
        f"read {limit['read_gb_s']:.1f} GB/s (torch sum {limit['torch_sum_gb_s']:.1f}),"
        f" bf16 GEMM {limit['gemm_gflop_s']:.0f} GFLOP/s"
    )
    table(samples, facts, limit, options.prompt)
    print(f"memory: {more['memory_mb']}")


if __name__ == "__main__":
    main()
