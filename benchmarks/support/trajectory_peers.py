"""One engine of ``agent_trajectory.py`` in a process of its own, run step by step through pipes.

    PYTHON benchmarks/support/trajectory_peers.py transformers CHECKPOINT THREADS
    PYTHON benchmarks/support/trajectory_peers.py llama FILE.gguf THREADS

Each line on stdin is a step as JSON: ``prompt``, all ids of the session so far with the step's new
ones at the end, and ``known``, how many of them the client knows to be in the cache. Each answer:
``seconds`` until the logits after the prompt are there, ``tokens`` that were run for it, and
``top``, the likeliest next token. It imports nothing of Tenuto, so that any environment can run it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

Step = Callable[[list[int], int], tuple[int, int]]


def transformers(checkpoint: str, threads: int) -> Step:
    """transformers with its cache kept by hand: only what is new is given to it."""
    import torch
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    torch.set_num_threads(threads)
    config = json.loads(Path(checkpoint, "config.json").read_text())
    config = config.get("text_config", config)
    config.pop("model_type", None)
    model: Any = Qwen3_5ForCausalLM.from_pretrained(
        checkpoint, config=Qwen3_5TextConfig(**config), dtype=torch.bfloat16
    )
    model.eval()
    cache: Any = None

    @torch.inference_mode()
    def step(prompt: list[int], known: int) -> tuple[int, int]:
        nonlocal cache
        new = torch.tensor([prompt[known:]])
        out = model(input_ids=new, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        return len(prompt) - known, int(out.logits[0, -1].argmax())

    return step


def llama(file: str, threads: int) -> Step:
    """llama-cpp-python, given the whole prompt each time: it finds the common beginning itself."""
    import llama_cpp

    model = llama_cpp.Llama(
        model_path=file, n_ctx=32768, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    run = 0
    plain = model.eval

    def counted(tokens: Any) -> None:
        nonlocal run
        run += len(tokens)
        plain(tokens)

    model.eval = counted

    def step(prompt: list[int], known: int) -> tuple[int, int]:
        nonlocal run
        run = 0
        token = next(model.generate(prompt, temp=0.0))
        return run, int(token)

    return step


def main() -> None:
    """Answer until stdin ends."""
    kind, model, threads = sys.argv[1:]
    step = {"transformers": transformers, "llama": llama}[kind](model, int(threads))
    print(json.dumps({"ready": kind}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        started = perf_counter()
        tokens, top = step(asked["prompt"], asked["known"])
        seconds = perf_counter() - started
        print(json.dumps({"seconds": seconds, "tokens": tokens, "top": top}), flush=True)


if __name__ == "__main__":
    main()
