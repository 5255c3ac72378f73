"""One engine for ``cpu_engine.py``: obeys JSON lines on stdin, answers in JSON lines on stdout.

    python -m benchmarks.support.cpu_worker KIND MODEL THREADS

KIND is ``tenuto-none``, ``tenuto-int8``, ``tenuto-int4``, ``tenuto-float32`` (torch, the judge),
``transformers`` or ``llama``. Commands: ``{"prefill": IDS}``, ``{"decode": COUNT}`` and
``{"logits": [IDS, IDS, ...], "file": PATH}``, and for Tenuto ``{"together": SEQUENCES, "tokens":
COUNT}``. Each kind imports only what it needs, so that
llama-cpp-python can live in an environment of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np


class MeasuredEngine(Protocol):
    """An engine to measure: a prompt in a new sequence, then token after token."""

    def start(self, ids: list[int]) -> np.ndarray:
        """Return the logits after ``ids`` in a new sequence."""
        ...

    def step(self, token: int) -> np.ndarray:
        """Return the logits after one more token."""
        ...


class Tenuto:
    """This project, at the seam that sessions use."""

    def __init__(self, model: Path, threads: int, mode: str) -> None:
        import torch

        from model.engine import Engine as Loaded

        torch.set_num_threads(threads)
        judge = mode == "float32"
        self.loaded = Loaded.load(
            model,
            name="benchmark",
            dtype=torch.float32 if judge else None,
            quantize="none" if judge else mode,  # type: ignore[arg-type]
            native=not judge,
        )
        self.network = self.loaded.network

    def start(self, ids: list[int]) -> np.ndarray:
        from model.network import Work, pieces

        self.state = self.network.new_state()
        cut = list(pieces(ids, 0, self.network.prefill_chunk))
        for piece in cut:
            work = Work(piece, self.state, piece is cut[-1])
            ((logits, self.state),) = self.network.run([work])
        assert logits is not None
        return logits.numpy()

    def step(self, token: int) -> np.ndarray:
        from model.network import Work

        ((logits, self.state),) = self.network.run([Work([token], self.state)])
        assert logits is not None
        return logits.numpy()

    def together(self, count: int, tokens: int) -> float:
        """Return the seconds that ``count`` sequences take for ``tokens`` more each, in passes."""
        from model.network import Work

        states, last = [self.state] * count, list(range(1, count + 1))
        started = perf_counter()
        for _ in range(tokens):
            work = [Work([token], state) for token, state in zip(last, states, strict=True)]
            out = self.network.run(work)
            states = [state for _, state in out]
            last = [int(logits.argmax()) for logits, _ in out if logits is not None]
        return perf_counter() - started

    def facts(self) -> dict[str, int]:
        """Bytes that a step moves, by their kind."""
        from model.hybrid.layers import FeedForward
        from model.hybrid.model import HybridNetwork

        network = self.network
        assert isinstance(network, HybridNetwork)
        weights = network.model.head.nbytes
        for block in network.model.blocks:
            mixer: Any = block.mixer
            out = mixer.o_proj if hasattr(mixer, "o_proj") else mixer.out_proj
            feed_forward = block.feed_forward
            assert isinstance(feed_forward, FeedForward)
            parts = (mixer.in_proj, out, feed_forward.gate_up, feed_forward.down)
            weights += sum(part.nbytes for part in parts)
        layout = network.layout
        return {
            "weight_bytes": weights,
            "state_bytes": 2 * layout.slot_bytes,
            "kv_bytes_per_position": layout.page_bytes // 256,
        }


class Transformers:
    """The reference implementation, in bfloat16."""

    def __init__(self, model: Path, threads: int) -> None:
        import torch
        from transformers import AutoConfig
        from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

        torch.set_num_threads(threads)
        config = AutoConfig.from_pretrained(model)
        self.torch = torch
        self.cache: Any = None
        found: Any = Qwen3_5ForCausalLM.from_pretrained(
            model, config=config.text_config, dtype=torch.bfloat16
        )
        self.model = found.eval()

    def _run(self, ids: list[int]) -> np.ndarray:
        with self.torch.inference_mode():
            out = self.model(
                input_ids=self.torch.tensor([ids]),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self.cache = out.past_key_values
        logits: np.ndarray = out.logits[0, -1].float().numpy()
        return logits

    def start(self, ids: list[int]) -> np.ndarray:
        self.cache = None
        return self._run(ids)

    def step(self, token: int) -> np.ndarray:
        return self._run([token])


class Llama:
    """llama.cpp through llama-cpp-python's low-level interface."""

    def __init__(self, model: Path, threads: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        self.loaded = llama_cpp.Llama(
            str(model),
            n_ctx=20480,
            n_batch=512,
            n_ubatch=512,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )

    def _run(self, ids: list[int]) -> np.ndarray:
        api, context = self.api, self.loaded.ctx
        for at in range(0, len(ids), 512):
            piece = ids[at : at + 512]
            tokens = (api.llama_token * len(piece))(*piece)
            if api.llama_decode(context, api.llama_batch_get_one(tokens, len(piece))):
                raise RuntimeError("llama_decode failed")
        vocab = self.loaded.n_vocab()
        return np.ctypeslib.as_array(api.llama_get_logits_ith(context, -1), (vocab,))

    def start(self, ids: list[int]) -> np.ndarray:
        self.api.llama_memory_clear(self.api.llama_get_memory(self.loaded.ctx), True)
        return self._run(ids)

    def step(self, token: int) -> np.ndarray:
        return self._run([token])


def open_engine(kind: str, model: Path, threads: int) -> MeasuredEngine:
    """Return the engine called ``kind``."""
    if kind == "transformers":
        return Transformers(model, threads)
    if kind == "llama":
        return Llama(model, threads)
    return Tenuto(model, threads, kind.removeprefix("tenuto-"))


def obey(engine: MeasuredEngine, order: dict[str, Any], last: np.ndarray | None) -> tuple[Any, Any]:
    """Run one command; returns the answer and the last logits."""
    started = perf_counter()
    if "prefill" in order:
        last = engine.start(order["prefill"])
        return {"seconds": perf_counter() - started}, last
    if "decode" in order:
        for _ in range(order["decode"]):
            assert last is not None
            last = engine.step(int(last.argmax()))
        return {"seconds": perf_counter() - started}, last
    if "together" in order and isinstance(engine, Tenuto):
        return {"seconds": engine.together(order["together"], order["tokens"])}, last
    if "logits" in order:
        first, *rest = order["logits"]
        rows = [engine.start(first).copy(), *(engine.step(i).copy() for i in rest)]
        np.save(order["file"], np.stack(rows))
        return {"rows": len(rows)}, None
    return engine.facts() if isinstance(engine, Tenuto) else {}, last


def main() -> None:
    """Load, say so, and obey until stdin ends."""
    kind, model, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    started = perf_counter()
    engine = open_engine(kind, model, threads)
    print(json.dumps({"loaded_s": perf_counter() - started}), flush=True)
    last = None
    for line in sys.stdin:
        answer, last = obey(engine, json.loads(line), last)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
