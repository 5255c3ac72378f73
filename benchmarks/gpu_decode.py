"""Decode on a CUDA device: a network with random weights in torch, by the Triton kernels, and by
those captured as a CUDA graph.

    python -m benchmarks.gpu_decode [--model 0.8B] [--contexts 512 16384] [--batch 1 8]

One table: tokens a second, and the share of the limit that the bandwidth measured in the same run
sets on the weights, states and keys that a step must move. First the three are compared.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from time import perf_counter

import torch

from benchmarks.support.gpu_measure import bandwidth, describe, require_gpu
from model.checkpoint.config import ModelConfig


def config_of(name: str) -> ModelConfig:
    """Return the text model of the 27B or the 0.8B checkpoint."""
    from benchmarks.support.kernel_cases import SHAPES

    shape = next(one for one in SHAPES if one.name == name)
    layers = 64 if name == "27B" else 24
    return replace(
        ModelConfig.tiny(vocab_size=248_320, context_length=1 << 18),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        layer_types=(("linear_attention",) * 3 + ("full_attention",)) * (layers // 4),
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.dim,
        linear_num_key_heads=shape.key_heads,
        linear_num_value_heads=shape.value_heads,
        linear_key_head_dim=shape.delta_dim,
        linear_value_head_dim=shape.delta_dim,
        rope_theta=1e7,
        rotary_dim=64,
        mrope_section=(11, 11, 10),
        tie_word_embeddings=name != "27B",
        mtp_num_hidden_layers=0,
        dtype=torch.bfloat16,
    )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="0.8B", choices=["0.8B", "27B"])
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 16_384])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=50)
    options = parser.parse_args()
    require_gpu()

    from model.checkpoint.weights import tensor_shapes
    from model.hybrid.gpu import DeviceModel
    from model.hybrid.model import HybridModel, HybridNetwork
    from model.network import State, Work

    config = config_of(options.model)
    torch.manual_seed(0)
    with torch.inference_mode():
        tensors = {
            name: (torch.randn(shape, device="cuda") * shape[-1] ** -0.5).bfloat16()
            for name, shape in tensor_shapes(config).items()
        }
        weights = sum(t.nbytes for name, t in tensors.items())
        model = HybridModel.build(config, tensors, torch.bfloat16)
    del tensors
    if not config.tie_word_embeddings:
        weights -= model.embedding.nbytes  # only its rows for the ids at hand are read
    speed = bandwidth()
    print(describe())
    print(f"measured: {speed / 1e9:.0f} GB/s copied; {weights / 1e9:.2f} GB of weights\n")
    networks = {
        "torch": HybridNetwork(model, fingerprint="x"),
        "triton": HybridNetwork(model, fingerprint="x", compiled=DeviceModel(model, graphs=False)),
        "triton, graph": HybridNetwork(model, fingerprint="x", compiled=DeviceModel(model)),
    }
    print(f"{options.model:<16}{'context':>9}{'batch':>7}{'tokens/s':>11}{'of limit':>10}")
    for context in options.contexts:
        prompt = torch.randint(0, 248_000, (context,)).tolist()
        for batch in options.batch:
            first = None
            for name, network in networks.items():
                state: State = network.new_state()
                for start in range(0, context, 512):
                    piece = prompt[start : start + 512]
                    [(logits, state)] = network.run([Work(piece, state, logits=True)])
                first = logits if first is None else first
                assert logits is not None and first is not None
                off = float((logits - first).abs().max() / first.abs().max())
                states: list[State] = [state] * batch
                for step in range(5 + options.tokens):
                    if step == 5:
                        torch.cuda.synchronize()
                        began = perf_counter()
                    works = [Work([step], one, logits=True) for one in states]
                    states = [after for _, after in network.run(works)]
                torch.cuda.synchronize()
                rate = batch * options.tokens / (perf_counter() - began)
                layout = network.layout
                own = 2 * layout.slot_bytes + layout.page_bytes * context / 256
                limit = speed / (weights / batch + own)
                print(
                    f"{name:<16}{context:>9}{batch:>7}{rate:>11.1f}{rate / limit:>10.0%}"
                    f"   logits within {off:.1%} of torch's",
                    flush=True,
                )


if __name__ == "__main__":
    main()
