"""Errors that ``--quantize`` makes: of weights, and of the embedded model's distributions.

    python -m benchmarks.quantized_quality [--tokens 1500] [--calibrate] [--record]

Weight errors are relative (Frobenius) on normal weights, with 1 % of the inputs eight times as
large, and on the embedded model's matrices; the divergence is the mean Kullback-Leibler divergence
from float32 over the tokens of this repository's Python, inputs rounded as the compiled path does.
``--calibrate`` instead tries int4 whose scales are chosen by errors weighted with the inputs' mean
squares on other files of this repository, against the same without weights; inputs are not rounded.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor

from agent.loading import load_model
from benchmarks.parity import all_logits
from benchmarks.support.importance import round_by_importance, squares_of_inputs
from benchmarks.support.recording import machine, record
from kernels.linear import dequantize, quantize
from model.chat.tokenizer import Tokenizer
from model.checkpoint import hub
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.quantize import groups
from model.hybrid.model import HybridModel, HybridNetwork
from model.scoring import score

ROOT = Path(__file__).resolve().parent.parent


def weight_error(weights: list[Tensor], bits: int) -> float:
    """Return the error of all matrices together, relative to their size."""
    lost = whole = 0.0
    for weight in weights:
        lost += float((dequantize(quantize(weight, bits)) - weight).square().sum())
        whole += float(weight.square().sum())
    return math.sqrt(lost / whole)


def calibrated(ids: list[int], calibration: list[int]) -> dict[str, dict[str, float]]:
    """Return the divergence from float32 over ``ids`` of int4 rounded by text and without it."""
    checkpoint = Checkpoint.open(hub.resolve("embedded"))
    config = checkpoint.config
    tensors = {n: t.read().float() for n, t in checkpoint.tensors.items() if n[:4] != "mtp."}
    exact = HybridModel.build(config, tensors, torch.float32)
    with squares_of_inputs(exact) as squares:
        logits_of(exact, calibration)
    expected = logits_of(exact, ids).log_softmax(-1)
    ways = {
        "plain": None,
        "squares of inputs": False,
        "squares of inputs and size of weights": True,
    }
    found = {}
    for way, by_size in ways.items():
        made = {}
        for names in groups(config):
            weight = torch.cat([tensors[name] for name in names])
            even = torch.ones(weight.shape[1])
            by = even if by_size is None else squares[names[0]]
            made[names[0]] = round_by_importance(weight, by, by_size=bool(by_size))
        own = logits_of(HybridModel.build(config, tensors, torch.float32, made), ids)
        got = own.log_softmax(-1)
        kl = float((expected.exp() * (expected - got)).sum(1).mean())
        same = float((expected.argmax(1) == got.argmax(1)).float().mean())
        found[way] = {"kl": round(kl, 5), "top1": round(same, 4)}
        print(way, found[way])
    return found


def logits_of(model: HybridModel, ids: list[int]) -> Tensor:
    """Return the logits of every id in float32, by torch."""
    return all_logits(HybridNetwork(model, fingerprint="quality"), ids, range(256, len(ids), 256))


def main() -> None:
    """Measure, print, and record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1500)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    tokenizer = Tokenizer.load(hub.resolve("embedded"))
    text = (ROOT / "model" / "session.py").read_text()
    ids = tokenizer.encode_text(text)[: options.tokens]
    if options.calibrate:
        other = "".join(path.read_text() for path in sorted((ROOT / "kernels").glob("*.py")))
        calibration = tokenizer.encode_text(other)[: 4 * options.tokens]
        tried = calibrated(ids, calibration)
        if options.record:
            kept = {"tokens": len(ids), "calibration": len(calibration), "ways": tried}
            record("quantized_quality_calibrated", machine() | kept)
        return
    g = torch.Generator().manual_seed(0)
    normal = torch.randn(1024, 1024, generator=g)
    outliers = normal * torch.where(torch.rand(1024, generator=g) < 0.01, 8.0, 1.0)
    stored = Checkpoint.open(hub.resolve("embedded")).tensors.values()
    trained = [t.read().float() for t in stored if len(t.shape) == 2 and t.shape[1] % 128 == 0]
    exact = load_model("embedded")
    forms = {}
    for name, bits in (("int4", 4), ("int8", 8)):
        rounded = load_model("embedded", quantize=name)  # type: ignore[arg-type]
        compared = score(exact.engine, ids, rounded.engine).against
        assert compared is not None
        held = quantize(normal, bits)
        forms[name] = {
            "bits": round(held.nbytes * 8 / normal.numel(), 3),
            "normal": round(weight_error([normal], bits), 4),
            "outliers": round(weight_error([outliers], bits), 4),
            "embedded": round(weight_error(trained, bits), 4),
            "kl": round(compared.kl, 5),
            "top1": round(compared.top1, 4),
        }
        print(name, forms[name])
    if options.record:
        record("quantized_quality", machine() | {"tokens": len(ids), "forms": forms})


if __name__ == "__main__":
    main()
