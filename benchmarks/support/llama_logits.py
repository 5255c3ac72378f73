"""llama.cpp's logits of every position, and a greedy continuation, for ``gguf_agreement``.

    PYTHON benchmarks/support/llama_logits.py FILE.gguf OUT.npz

``{"ids": [...], "greedy": COUNT}`` is read from stdin. It imports nothing of Tenuto, so that any
environment with llama-cpp-python can run it.
"""

from __future__ import annotations

import json
import sys

import llama_cpp
import numpy as np


def main() -> None:
    """Run the ids, then continue their first half, and write both."""
    file, out = sys.argv[1:]
    asked = json.loads(sys.stdin.read())
    ids, count = asked["ids"], asked["greedy"]
    model = llama_cpp.Llama(
        file, n_ctx=len(ids) + count + 8, n_batch=512, n_threads=2, logits_all=True, verbose=False
    )
    model.eval(ids)
    logits = model.scores[: len(ids)].copy()
    model.reset()
    model.eval(ids[: len(ids) // 2])
    tokens = []
    for _ in range(count):
        tokens.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval(tokens[-1:])
    np.savez(out, logits=logits, greedy=np.array(tokens))


if __name__ == "__main__":
    main()
