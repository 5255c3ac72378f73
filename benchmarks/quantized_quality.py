"""Errors that ``--quantize`` makes: of weights, and of the embedded model's distributions.

    python -m benchmarks.quantized_quality [--tokens 1500] [--record]

Weight errors are relative (Frobenius) on normal weights, with 1 % of the inputs eight times as
large, and on the embedded model's matrices; the divergence is the mean Kullback-Leibler divergence
from float32 over the tokens of this repository's Python, inputs rounded as the compiled path does.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from agent.loading import load_model
from benchmarks.support.recording import machine, record
from kernels.linear import dequantize, quantize
from model.chat.tokenizer import Tokenizer
from model.checkpoint import hub
from model.checkpoint.checkpoint import Checkpoint
from model.scoring import score

ROOT = Path(__file__).resolve().parent.parent


def weight_error(weights: list[Tensor], bits: int) -> float:
    """Return the error of all matrices together, relative to their size."""
    lost = whole = 0.0
    for weight in weights:
        lost += float((dequantize(quantize(weight, bits)) - weight).square().sum())
        whole += float(weight.square().sum())
    return math.sqrt(lost / whole)


def main() -> None:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    g = torch.Generator().manual_seed(0)
    normal = torch.randn(1024, 1024, generator=g)
    outliers = normal * torch.where(torch.rand(1024, generator=g) < 0.01, 8.0, 1.0)
    stored = Checkpoint.open(hub.resolve("embedded")).tensors.values()
    trained = [t.read().float() for t in stored if len(t.shape) == 2 and t.shape[1] % 128 == 0]
    exact = load_model("embedded")
    text = (ROOT / "model" / "session.py").read_text()
    ids = Tokenizer.load(hub.resolve("embedded")).encode_text(text)[: options.tokens]
    found = {}
    for name, bits in (("int4", 4), ("int8", 8)):
        rounded = load_model("embedded", quantize=name)  # type: ignore[arg-type]
        compared = score(exact.engine, ids, rounded.engine).against
        assert compared is not None
        kept = quantize(normal, bits)
        found[name] = {
            "bits": round(kept.nbytes * 8 / normal.numel(), 3),
            "normal": round(weight_error([normal], bits), 4),
            "outliers": round(weight_error([outliers], bits), 4),
            "embedded": round(weight_error(trained, bits), 4),
            "kl": round(compared.kl, 5),
            "top1": round(compared.top1, 4),
        }
        print(name, found[name])
    if options.record:
        record("quantized_quality", machine() | {"tokens": len(ids), "forms": found})


if __name__ == "__main__":
    main()
