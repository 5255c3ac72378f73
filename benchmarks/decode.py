"""How fast does a small model decode and prefill on this CPU? Random weights, one thread.

    python benchmarks/decode.py [--threads N] [--context TOKENS] [--torch]

The model has the shape of the embedded one: about 5 million parameters in 8 layers. Both wall
and processor time are printed: on a busy machine only the latter says something of the code.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from time import perf_counter, process_time

import torch

from model.config import ModelConfig
from model.engine import Engine
from model.hybrid import HybridModel, HybridNetwork
from model.native import NativeModel
from model.sampling import SamplingParams
from model.weights import parameter_count, tensor_shapes


def small_engine(*, native: bool) -> Engine:
    """An engine over about 5 million random weights, on the compiled path or on torch."""
    config = replace(
        ModelConfig.tiny(vocab_size=4096, context_length=1 << 16),
        hidden_size=192,
        intermediate_size=448,
        layer_types=(("linear_attention",) * 3 + ("full_attention",)) * 2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=64,
        rotary_dim=16,
        mrope_section=(3, 3, 2),
    )
    torch.manual_seed(0)
    tensors = {
        name: torch.randn(shape) * shape[-1] ** -0.5
        for name, shape in tensor_shapes(config).items()
    }
    with torch.inference_mode():
        model = HybridModel.build(config, tensors, torch.float32)
    compiled = NativeModel(model) if native else None
    network = HybridNetwork(model, fingerprint="benchmark", compiled=compiled)
    return Engine(network, config, name="random", generation=SamplingParams())


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--torch", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = small_engine(native=not options.torch)
    session = engine.session()
    ids = torch.randint(4096, (options.context,)).tolist()
    session.extend(ids[:64])
    list(session.generate(engine.generation, max_tokens=16, stop_ids=frozenset()))

    started = perf_counter()
    session.extend(ids)
    prefill = len(ids) / (perf_counter() - started)
    rates: list[float] = []
    busy_rates: list[float] = []
    for _ in range(5):
        started, busy = perf_counter(), process_time()
        said = list(session.generate(engine.generation, max_tokens=100, stop_ids=frozenset()))
        rates.append(len(said) / (perf_counter() - started))
        busy_rates.append(len(said) / (process_time() - busy))
    rates.sort()
    busy_rates.sort()
    print(
        f"{parameter_count(engine.config) / 1e6:.1f}M parameters, {options.threads} thread(s),"
        f" context {options.context}, {'torch' if options.torch else 'compiled'}:"
        f" prefill {prefill:.0f} tokens/s,"
        f" decode {rates[2]:.0f} tokens/s (median of 5, {rates[0]:.0f} to {rates[-1]:.0f}),"
        f" {busy_rates[2]:.0f} tokens per processor second"
    )


if __name__ == "__main__":
    main()
