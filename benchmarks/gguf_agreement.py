"""Do Tenuto and llama.cpp compute the same from the same GGUF file?

    python -m benchmarks.gguf_agreement --work DIR --llama-python PYTHON [--ids 512] [--greedy 64]
        [--record]

DIR gets small files of the embedded model: dense (``qwen35``) and with experts (``qwen35moe``), in
F32 and in several block types. Its key heads are padded with zeros to the width of its value heads,
because llama.cpp has only one width; the experts are random and small beside a shared expert that
is the model's own network. So the models still know what comes next, and a likeliest token means
something. Text of this repository gives the ids. In each file the log-probabilities of all ids are
compared; in F32 also the greedy continuation. On such text the small models are unsure (7 nats a
token), so that what rounding does to close calls shows. PYTHON has llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.support.recording import machine, record
from model.chat.tokenizer import Tokenizer
from model.checkpoint.checkpoint import Checkpoint
from model.engine import Engine
from model.hybrid.model import HybridNetwork
from model.network import State, Work
from tests.support.make_gguf import make_gguf

ROOT = Path(__file__).resolve().parent.parent
EMBEDDED = ROOT / "model" / "embedded"
TEXT = ROOT / "kernels" / "storage.py"
TYPES = {
    "dense": ("F32", "F16", "BF16", "Q8_0", "Q5_0", "Q4_0"),
    "experts": ("F32", "Q8_0", "Q4_0"),
}
EXPERTS, CHOSEN, INNER = 12, 3, 64
LEAST_AGREEMENT = 0.99
"""The least share of equal likeliest tokens where weights are floating point numbers."""
MOST_KL = 0.002
"""The largest mean divergence elsewhere: each engine rounds activations to 8 bits its own way."""


def padded(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Widen the key heads by zeros to the width of the value heads, in ``config`` too."""
    heads, dim = config["linear_num_key_heads"], config["linear_key_head_dim"]
    wide = config["linear_value_head_dim"]
    keys = heads * dim

    def widen(rows: Tensor) -> Tensor:
        made = rows.new_zeros(heads, wide, *rows.shape[1:])
        made[:, :dim] = rows.reshape(heads, dim, *rows.shape[1:])
        return made.reshape(heads * wide, *rows.shape[1:])

    made = {}
    for name, tensor in tensors.items():
        if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
            tensor = torch.cat(
                [widen(tensor[:keys]), widen(tensor[keys : 2 * keys]), tensor[2 * keys :]]
            )
        made[name] = tensor
    config["linear_key_head_dim"] = wide
    return made


def with_experts(tensors: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """Make each layer's network the shared expert of a mixture, beside small random ones."""
    g = torch.Generator().manual_seed(0)
    hidden = config["hidden_size"]
    config |= {
        "model_type": "qwen3_5_moe_text",
        "num_experts": EXPERTS,
        "num_experts_per_tok": CHOSEN,
        "moe_intermediate_size": INNER,
        "shared_expert_intermediate_size": config["intermediate_size"],
    }
    made = {}
    for name, tensor in tensors.items():
        layer, found, rest = name.partition("mlp.")
        if not found:
            made[name] = tensor
            continue
        # A gate of zeros lets half of it through.
        own = tensor * 2 if rest.startswith("down") else tensor
        made[f"{layer}mlp.shared_expert.{rest}"] = own
        if rest.startswith("down"):
            made[f"{layer}mlp.shared_expert_gate.weight"] = torch.zeros(1, hidden)
            made[f"{layer}mlp.gate.weight"] = torch.randn(EXPERTS, hidden, generator=g)
            shapes = {"gate_up": (2 * INNER, hidden), "down": (hidden, INNER)}
            for part, shape in shapes.items():
                weight = torch.randn(EXPERTS, *shape, generator=g) * shape[1] ** -0.5
                made[f"{layer}mlp.experts.{part}_proj"] = weight * 0.5
    return made


def write_files(folder: Path) -> list[Path]:
    """Write the files of all cases; return them."""
    files = []
    for kind, types in TYPES.items():
        config = json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))
        with torch.inference_mode():
            stored = Checkpoint.open(EMBEDDED).tensors
            tensors = {n: t.read().float() for n, t in stored.items() if not n.startswith("mtp.")}
            tensors = padded(tensors, config)
            if kind == "experts":
                tensors = with_experts(tensors, config)
        words = [f"t{number}" for number in range(config["vocab_size"])]
        own = {"tokens": words, "types": [1] * len(words), "merges": ["t 1"], "eos": len(words) - 1}
        for quant in types:
            path = folder / f"{kind}-{quant}.gguf"
            exact = {f"blk.{i}.ffn_gate_inp.weight": "F32" for i in range(64)}
            make_gguf(path, config, tensors, {"": quant, **exact}, tokenizer=own)
            files.append(path)
    return files


def theirs(python: Path, path: Path, ids: list[int], greedy: int) -> tuple[Tensor, list[int]]:
    """Return llama.cpp's logits of every id, and its greedy continuation of their first half."""
    worker = Path(__file__).with_name("support") / "llama_logits.py"
    out = path.with_suffix(".npz")
    asked = json.dumps({"ids": ids, "greedy": greedy})
    command = [str(python), str(worker), str(path), str(out)]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"llama.cpp ended on {path.name}: {done.stderr.strip()[-400:]}")
    found = np.load(out)
    return torch.from_numpy(found["logits"]), found["greedy"].tolist()


def ours(path: Path, ids: list[int], greedy: int, *, exact: bool) -> tuple[Tensor, list[int]]:
    """Return the same of Tenuto: in float32 on an exact file, else as it would run."""
    dtype = torch.float32 if exact else torch.bfloat16
    network = Engine.load(path, name="agreement", device="cpu", dtype=dtype, drafts="off").network
    assert isinstance(network, HybridNetwork)
    rows = []
    state: State = network.new_state()
    for token in ids:
        ((logits, state),) = network.run([Work([token], state)])
        assert logits is not None
        rows.append(logits.clone())
    ((logits, state),) = network.run([Work(ids[: len(ids) // 2], network.new_state())])
    out = []
    for _ in range(greedy):
        assert logits is not None
        out.append(int(logits.argmax()))
        ((logits, state),) = network.run([Work(out[-1:], state)])
    return torch.stack(rows), out


def compare(path: Path, options: argparse.Namespace, ids: list[int]) -> dict[str, Any]:
    """Return how far the two are apart on one file."""
    exact = path.stem.endswith("F32")
    ref, their_tokens = theirs(options.llama_python, path, ids, options.greedy)
    own, our_tokens = ours(path, ids, options.greedy, exact=exact)
    p, q = ref.log_softmax(-1), own.log_softmax(-1)
    pairs = enumerate(zip(our_tokens, their_tokens, strict=True))
    differ = next((place for place, (one, other) in pairs if one != other), options.greedy)
    return {
        "same_best": round(float((p.argmax(1) == q.argmax(1)).float().mean()), 4),
        "kl": float((p.exp() * (p - q)).sum(1).mean()),
        "largest": round(float((p - q).abs().max()), 5),
        "nats_a_token": round(float(-q[:-1].gather(1, torch.tensor(ids)[1:, None]).mean()), 4),
        "greedy_equal": differ,
    }


def main() -> None:
    """Write the files, compare, print, and record if asked to; fail if they do not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--llama-python", type=Path, required=True)
    parser.add_argument("--ids", type=int, default=512)
    parser.add_argument("--greedy", type=int, default=64)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.load(EMBEDDED)
    ids = tokenizer.encode_text(TEXT.read_text(encoding="utf-8"))[: options.ids]
    result: dict[str, Any] = {}
    bad = []
    for path in write_files(options.work):
        found = result[path.stem] = compare(path, options, ids)
        print(f"{path.stem:14}" + "  ".join(f"{name} {value:.6g}" for name, value in found.items()))
        apart = found["greedy_equal"] < options.greedy and path.stem.endswith("F32")
        floats = path.stem.endswith(("F32", "F16"))
        few = floats and found["same_best"] < LEAST_AGREEMENT
        if few or apart or found["kl"] > MOST_KL:
            bad.append(path.stem)
    if options.record:
        kept = {"ids": len(ids), "greedy": options.greedy, "files": result}
        record("gguf_agreement", {**machine(**{"llama-cpp-python": "0.3.36"}), **kept})
    if bad:
        raise SystemExit(f"the engines do not agree on {', '.join(bad)}")


if __name__ == "__main__":
    main()
