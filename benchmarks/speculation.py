"""Measure what drafts bring, and check that they change nothing.

    python -m benchmarks.speculation [--shape qwen3_5_0.8b] [--bits 4] [--tokens 300] [--runs 3]
        [--steps 6] [--threads N] [--only CASE ...] [--record NAME]

First the same prompt is answered without drafts and with those of each source, greedy and sampled:
ids and log-probabilities must be equal to the bit, or nothing is measured. The weights are random,
so each token is then forced to be what a text says; what passes and guesses cost is real. Cases:

``recorded``  the turns of a recorded agent (``record_trajectory.py``), with copies
``rewrite``   a file that stands in the prompt, written again with one line changed, with copies
``mtp``       text without copies, guessed by the MTP layer; its guesses are made right as often as
              is published for the first, second and third id (0.85, 0.7, 0.55)
``nothing``   random ids, with all sources: what drafts cost where nothing can be guessed

Each case runs alternately without and with drafts, ``--runs`` times; prompts are not timed. The
figures are medians with their ranges.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

import model.session as sessions
from benchmarks.agent_trajectory import Pair, trajectory
from benchmarks.support.random_model import random_engine
from benchmarks.support.recording import machine, record
from benchmarks.support.trajectory import chat_format
from model.drafting.drafts import Drafts
from model.engine import Engine
from model.network import Chain
from model.sampling import SamplingParams, TokenEvent
from model.scheduler import Scheduler
from model.session import Session

PUBLISHED = (0.85, 0.7, 0.55)
GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True)
class Case:
    """Pairs of a prompt and of what is said after it, and the drafts that are tried on it."""

    pairs: list[Pair]
    drafts: Drafts
    right: tuple[float, ...] = ()


class Forced:
    """Stands for ``sampling.choose``: the given ids, one after the other."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def __call__(self, *_: Any) -> TokenEvent:
        return TokenEvent(self.ids.pop(0), 0.0)


class Known(Scheduler):
    """Runs the MTP layer, and makes its guesses right as often as ``right`` says by their depth.

    With a share for each depth the likeliest of the ids that are guessed stands for the id that is
    wanted, whether it is among them or not.
    """

    def __init__(self, engine: Engine, case: Case, forced: Forced) -> None:
        super().__init__(engine.network, drafts=case.drafts)
        self._right, self._forced = case.right, forced
        self._random = random.Random(0)
        self._depth = self._said = 0

    @property
    def guessable(self) -> Sequence[int]:
        """The ids that are guessed: the one to be said in place of them all."""
        return _Always(self._said) if self._right else super().guessable

    def chain(self, state: sessions.State) -> Chain | None:
        """Begin to guess anew."""
        self._depth = 0
        return super().chain(state)

    def guess(self, chain: Chain, token: int) -> tuple[Tensor, Chain]:
        """Run the layer; answer with the id that comes next, or with another."""
        logits, chain = super().guess(chain, token)
        if self._right:
            share = self._right[min(self._depth, len(self._right) - 1)]
            at, self._depth = self._depth, self._depth + 1
            known = self._forced.ids[at] if at < len(self._forced.ids) else 0
            vocab = self.network.vocab_size
            self._said = known if self._random.random() < share else (known + 1) % vocab
        return logits, chain


class _Always(Sequence[int]):
    """Gives the same id at every place."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __len__(self) -> int:
        return 1

    def __getitem__(self, place: Any) -> Any:
        return self._value


def check(engine: Engine, prompt: list[int]) -> None:
    """Raise unless drafts of every source change nothing."""
    for params in (GREEDY, SamplingParams()):
        said = {}
        sources: tuple[Drafts, ...] = ("off", "copy", "mtp", "auto")
        for drafts in sources:
            session = Session(Scheduler(engine.network, drafts=drafts), seed=7)
            session.extend(prompt)
            said[drafts] = list(session.generate(params, max_tokens=40, stop_ids=frozenset()))
        assert all(events == said["off"] for events in said.values()), "drafts change what is said"


def decode(engine: Engine, case: Case, drafts: Drafts) -> dict[str, float]:
    """Say what ``case`` says, token by token, and return rates and counts."""
    forced = Forced()
    known = Known(engine, Case(case.pairs, drafts, case.right), forced)
    session = Session(known)
    sessions.choose = forced  # type: ignore[assignment, attr-defined]
    for prompt, said in case.pairs:
        session.extend(prompt)
        forced.ids = list(said)
        for _ in session.generate(GREEDY, max_tokens=len(said), stop_ids=frozenset()):
            pass
    assert session.ids == tuple(i for pair in case.pairs for ids in pair for i in ids)
    usage = session.usage
    session.close()
    return {
        "tokens": usage.generated_tokens,
        "tokens_per_s": usage.generated_tokens / usage.decode_s,
        "drafted": usage.drafted_tokens,
        "accepted": usage.accepted_tokens,
        "mtp_drafted": usage.mtp_drafted_tokens,
        "mtp_accepted": usage.mtp_accepted_tokens,
    }


def cases(steps: int, tokens: int, vocab: int) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Yield the cases by name."""
    draw = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        chat, tokenizer = chat_format(Path(name))
        yield "recorded", lambda: Case(trajectory(chat, tokenizer, steps)[1:], "copy")
        source = Path(__file__).with_name("agent_trajectory.py").read_text()
        file = tokenizer.encode_text(source)[:tokens]
        changed = [*file[: tokens // 2], *file[tokens // 2 + 9 :]]
        yield "rewrite", lambda: Case([(file, changed)], "copy")
        noise = [draw.randrange(vocab) for _ in range(2 * tokens)]
        half = noise[:tokens], noise[tokens:]
        yield "mtp", lambda: Case([half], "mtp", PUBLISHED)
        yield "nothing", lambda: Case([half], "auto")


def measure(engine: Engine, case: Case, runs: int) -> dict[str, Any]:
    """Run ``case`` alternately without and with its drafts."""
    found: dict[str, list[dict[str, float]]] = {"off": [], case.drafts: []}
    for _ in range(runs):
        for drafts in ("off", case.drafts):
            found[drafts].append(decode(engine, case, drafts))
    rates = {name: sorted(run["tokens_per_s"] for run in seen) for name, seen in found.items()}
    ratios = [
        ours["tokens_per_s"] / plain["tokens_per_s"]
        for ours, plain in zip(found[case.drafts], found["off"], strict=True)
    ]
    return {
        "drafts": case.drafts,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        "tokens_per_s": {
            name: [round(rate, 2) for rate in (seen[0], statistics.median(seen), seen[-1])]
            for name, seen in rates.items()
        },
        "counts": {k: v for k, v in found[case.drafts][-1].items() if k != "tokens_per_s"},
    }


def main() -> None:
    """Check, measure, and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="qwen3_5_0.8b")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="round the weights")
    parser.add_argument("--steps", type=int, default=6, help="turns of the recorded agent")
    parser.add_argument("--tokens", type=int, default=300, help="of the other cases")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", metavar="CASE")
    parser.add_argument("--record", metavar="NAME", help="write benchmarks/results/NAME.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = random_engine(options.shape, mtp=True, bits=options.bits, context_length=1 << 16)
    started = perf_counter()
    check(engine, [i * 7 % 1000 for i in range(200)])
    print(f"{options.shape}: equal with and without ({perf_counter() - started:.0f} s)")
    found = {}
    for name, make in cases(options.steps, options.tokens, engine.network.vocab_size):
        if options.only is None or name in options.only:
            found[name] = measure(engine, make(), options.runs)
            print(name, found[name], flush=True)
    if options.record:
        facts = {"shape": options.shape, "bits": options.bits, "threads": options.threads}
        record(options.record, {**machine(), **facts, "cases": found})


if __name__ == "__main__":
    main()
