"""Do our logits equal those of transformers? The same random float32 weights, run by both.

    python -m benchmarks.parity [tiny] [grouped] [0.8b] [experts] [experts-35b] [experts-12]

Prints, for each configuration, the largest absolute difference of the logits when the prompt is run
in one piece, cut at random places, and token by token, and how many greedy tokens agree; and, to
compare with, how far transformers' own token-by-token logits are from its one-piece logits.
``0.8b`` is the exact published configuration and needs about 7 GB of memory and a few minutes.
``experts-35b`` has the heads and experts of 35B-A3B at a small width, ``experts-12`` runs three of
twelve experts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint.config import ModelConfig
from model.hybrid.model import HybridModel, HybridNetwork
from model.scheduler import Scheduler
from model.state.passes import Pass

CONFIGS = Path(__file__).resolve().parent.parent / "tests" / "golden" / "configs"
EXPERTS = {"experts": (8, 2, 96), "experts-35b": (256, 8, 32), "experts-12": (12, 3, 64)}
"""How many experts, how many of them a token runs, and how wide they are."""
CASES = ("tiny", "grouped", "0.8b", *EXPERTS)


@dataclass(frozen=True)
class Parity:
    """The results of one configuration: the largest differences, and greedy tokens in agreement."""

    case: str
    one_shot: float
    cut: float
    token_by_token: float
    reference_itself: float
    greedy_equal: int
    greedy_total: int

    @property
    def worst(self) -> float:
        """The largest of the three differences."""
        return max(self.one_shot, self.cut, self.token_by_token)


def text_config(case: str) -> dict[str, Any]:
    """Return the configuration of a case as the text part of a ``config.json``."""
    if case == "0.8b":
        given = json.loads((CONFIGS / "qwen3_5_0.8b.config.json").read_text(encoding="utf-8"))
        return {**given["text_config"], "dtype": "float32"}
    if case in EXPERTS:
        count, chosen, wide = EXPERTS[case]
        published = {"num_attention_heads": 16, "head_dim": 256, "linear_num_key_heads": 16}
        published |= {"linear_num_value_heads": 32}
        published |= {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
        return {
            **text_config("tiny"),
            **(published if case == "experts-35b" else {}),
            "model_type": "qwen3_5_moe_text",
            "num_hidden_layers": 4,
            "num_experts": count,
            "num_experts_per_tok": chosen,
            "moe_intermediate_size": wide,
            "shared_expert_intermediate_size": 96,
        }
    grouped = case == "grouped"
    return {
        "model_type": "qwen3_5_text",
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 8,
        "full_attention_interval": 4,
        "num_attention_heads": 24 if grouped else 4,
        "num_key_value_heads": 4 if grouped else 2,
        "head_dim": 256 if grouped else 32,
        "linear_num_key_heads": 16 if grouped else 2,
        "linear_num_value_heads": 48 if grouped else 4,
        "linear_key_head_dim": 128 if grouped else 32,
        "linear_value_head_dim": 128 if grouped else 32,
        "linear_conv_kernel_dim": 4,
        "max_position_embeddings": 4096,
        "mtp_num_hidden_layers": 0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": not grouped,
        "dtype": "float32",
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000_000,
            "partial_rotary_factor": 0.25,
            "mrope_section": [11, 11, 10],
            "mrope_interleaved": True,
        },
    }


def reference_model(config: dict[str, Any], seed: int = 0) -> Any:
    """transformers' model with random weights, none of them at a value that hides a mistake.

    Decay rates are those of heads with a memory of a few to some hundred tokens. Heads that forget
    at once have outputs near zero, whose rounding errors the norm after them blows up; then even
    two runs of transformers differ by more than 1e-3.
    """
    import transformers

    torch.manual_seed(seed)
    known = {key: value for key, value in config.items() if key != "model_type"}
    kind = "Qwen3_5Moe" if "num_experts" in config else "Qwen3_5"
    made = getattr(transformers, f"{kind}TextConfig")(**known, attn_implementation="eager")
    model = getattr(transformers, f"{kind}ForCausalLM")(made).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # As built, norms are all 0 or 1, dt_bias is 1, and logits hardly depend on the input.
            if name.endswith(("norm.weight", "dt_bias")):
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif name.endswith("A_log"):
                parameter.uniform_(0.003, 0.3).log_()
            elif parameter.dim() >= 2:
                spread = parameter.shape[-1] ** -0.5
                if parameter.dim() == 2:
                    spread = config.get("initializer_range", spread)
                parameter.normal_(std=spread)
    return model


def our_network(model: Any, config: dict[str, Any]) -> HybridNetwork:
    """Our network over the very tensors of ``model``."""
    ours = ModelConfig.from_dict(config)
    tensors = {name.removeprefix("model."): t for name, t in model.state_dict().items()}
    with torch.inference_mode():
        return HybridNetwork(HybridModel.build(ours, tensors, torch.float32), fingerprint="parity")


def pieces(ids: Sequence[int], cuts: Sequence[int]) -> Iterator[list[int]]:
    """Return ``ids`` cut before each index in ``cuts``."""
    edges = [0, *sorted(set(cuts) - {0, len(ids)}), len(ids)]
    for start, end in pairwise(edges):
        yield list(ids[start:end])


def all_logits(network: HybridNetwork, ids: Sequence[int], cuts: Sequence[int]) -> Tensor:
    """Return the logits ``[time, vocab]`` of every position, with ``ids`` run piece by piece."""
    state, rows = network.new_state(), []
    kinds = network.model.config.layer_types
    with torch.inference_mode(), network.layout.memory.passing():
        for piece in pieces(ids, cuts):
            running = Pass(network.layout, kinds, [state], len(piece))
            rows.append(
                network.model.logits(network.model.hidden(torch.tensor([piece]), running)[0])
            )
            (state,) = running.states()
    return torch.cat(rows)


def greedy(network: HybridNetwork, ids: Sequence[int], count: int) -> list[int]:
    """Return ``count`` greedy tokens after ``ids``."""
    scheduler = Scheduler(network)
    logits, state = scheduler.forward(ids, network.new_state())
    out = [int(logits.argmax())]
    while len(out) < count:
        logits, state = scheduler.forward(out[-1:], state)
        out.append(int(logits.argmax()))
    return out


def reference_greedy(model: Any, ids: Sequence[int], count: int) -> list[int]:
    """Generate the same by transformers, with its cache."""
    result = model.generate(
        torch.tensor([list(ids)]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )
    return [int(token) for token in result[0, len(ids) :]]


def reference_token_by_token(model: Any, ids: Sequence[int]) -> Tensor:
    """Return the logits ``[time, vocab]`` of transformers with its cache, one token at a time."""
    rows, cache = [], None
    with torch.inference_mode():
        for token in ids:
            out = model(torch.tensor([[token]]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            rows.append(out.logits[0].float())
    return torch.cat(rows)


def measure(
    case: str, *, prompt: int, new_tokens: int = 64, cuts: int = 5, itself: bool = True
) -> Parity:
    """Run one case on a prompt of ``prompt`` random tokens; ``reference_itself`` on request."""
    config = text_config(case)
    model = reference_model(config)
    # Also at 0.8b the weights exist once: ours are views of theirs, or fused copies.
    network = our_network(model, config)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(config["vocab_size"], (prompt,), generator=generator).tolist()
    places = torch.randint(1, prompt, (cuts,), generator=generator).tolist()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].float()

    def difference(where: Sequence[int]) -> float:
        return float((all_logits(network, ids, where) - expected).abs().max())

    ours, theirs = greedy(network, ids, new_tokens), reference_greedy(model, ids, new_tokens)
    own = reference_token_by_token(model, ids) if itself else expected
    return Parity(
        case,
        one_shot=difference([]),
        cut=difference(places),
        token_by_token=difference(range(prompt)),
        reference_itself=float((own - expected).abs().max()),
        greedy_equal=sum(a == b for a, b in zip(ours, theirs, strict=True)),
        greedy_total=new_tokens,
    )


def main() -> None:
    """Print one line a case."""
    for case in sys.argv[1:] or CASES:
        got = measure(case, prompt=96 if case == "0.8b" else 300)
        print(
            f"{got.case:8} max abs diff: one-shot {got.one_shot:.2e}, cut {got.cut:.2e},"
            f" token by token {got.token_by_token:.2e};"
            f" greedy {got.greedy_equal} of {got.greedy_total} equal;"
            f" transformers itself {got.reference_itself:.2e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
