"""The embedded model from nothing: ``python -m evals.training.pipeline STAGE --work DIR``.

The stages, in order: ``fetch``, ``tasks``, ``documents``, ``train``, ``export``. Each reads what
the one before left in the work folder, and each but ``fetch`` works offline. A killed ``train``
goes on from its last checkpoint. ``benchmarks/repair.py`` then measures the model on
``held_out.jsonl``.
"""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from tokenizers import Tokenizer

import model
from evals.training.bpe import train_tokenizer
from evals.training.corpus import Function, is_held_out
from evals.training.documents import Document, drill, trajectory
from evals.training.make_tasks import tasks_of
from evals.training.publish import export as export_weights
from evals.training.sources import fetch as fetch_sources
from evals.training.sources import functions
from evals.training.task import RepairTask, read_tasks, write_tasks
from evals.training.train import Encoded, Phase, Trainer, TrainingRecipe
from evals.training.train import train as run_recipe
from evals.training.trainable import TrainableNetwork
from model.checkpoint.config import ModelConfig

app = typer.Typer(no_args_is_help=True, help=__doc__)
Work = Annotated[Path, typer.Option(help="The folder that holds everything made on the way.")]
EMBEDDED = Path(model.__file__).parent / "embedded"
DRILLS, TRAJECTORIES, VOCABULARY, LONGEST = 45_000, 8_000, 4096, 3000
PHASES = (
    Phase(("drills",), 436),
    Phase(("drills", "trajectories"), 400),
    Phase(("drills", "trajectories"), 650, 1.0, 0.05),
    Phase(("trajectories",), 100, 0.5, 0.05, draft_only=True),
)
MISSES = ((0, 1, 2, 3, 4, 6, 8), (0.38, 0.2, 0.15, 0.1, 0.08, 0.05, 0.04))
"""How many wrong edits a trajectory has before the right one, and how often."""


@app.command()
def fetch(work: Work) -> None:
    """Download the pinned distributions (from the package index)."""
    fetch_sources(work, typer.echo)


@app.command()
def tasks(work: Work) -> None:
    """Collect functions, break them, find tests: ``train.jsonl`` and ``held_out.jsonl``."""
    found = functions(work)
    (work / "functions.pickle").write_bytes(pickle.dumps(found))
    typer.echo(f"{len(found)} functions")
    words = name_words(found)
    taught = {_body(function) for function in found if not is_held_out(function.source)}
    for held_out, file, most in ((True, "held_out.jsonl", 3), (False, "train.jsonl", 6)):
        chosen = [f for f in found if f.self_contained and is_held_out(f.source) == held_out]
        if held_out:
            # The same function in another package would be no test.
            chosen = [function for function in chosen if _body(function) not in taught]
        random.Random(0).shuffle(chosen)
        made: list[RepairTask] = []
        for function in chosen:
            made += tasks_of(function, 0, words, most)
        write_tasks(made, work / file)
        typer.echo(f"{file}: {len(made)} tasks of {len(chosen)} functions tried")


@app.command()
def documents(work: Work) -> None:
    """Write the training documents and, where it is missing, train the tokenizer on them."""
    found: list[Function] = pickle.loads((work / "functions.pickle").read_bytes())
    known = [function for function in found if not is_held_out(function.source)]
    random_ = random.Random(1)
    words = name_words(known)
    drills = list(_some(DRILLS, lambda: _drill(random_, known, words)))
    made = list(read_tasks(work / "train.jsonl"))
    runs = list(_some(TRAJECTORIES, lambda: _trajectory(random_, made)))
    if not (EMBEDDED / "tokenizer.json").exists():
        texts = [f.module_text for f in known] + [d.text for d in (drills[:3000] + runs[:3000])]
        train_tokenizer(texts, VOCABULARY, EMBEDDED)
    tokenizer = Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))
    for name, docs in (("drills", drills), ("trajectories", runs)):
        encoded = [document.encode(tokenizer) for document in docs]
        (work / f"{name}.pickle").write_bytes(pickle.dumps(encoded))
        typer.echo(f"{name}: {len(docs)}, {sum(len(ids) for ids, _ in encoded)} tokens")


@app.command()
def train(work: Work, threads: int = 2) -> None:
    """Train through all phases, or go on where the last run stopped."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    data: dict[str, Sequence[Encoded]] = {
        name: pickle.loads((work / f"{name}.pickle").read_bytes())
        for name in ("drills", "trajectories")
    }
    network = TrainableNetwork(ModelConfig.load(EMBEDDED))
    # The norms see several widths and strides; each is compiled once.
    torch._dynamo.config.recompile_limit = 64
    network.compile_small_parts()
    trainer = Trainer(network, TrainingRecipe(PHASES))
    run_recipe(trainer, data, work / "checkpoint.pt", work / "train.log")


@app.command()
def export(work: Work) -> None:
    """Put the trained weights into the package."""
    network = TrainableNetwork(ModelConfig.load(EMBEDDED))
    state = torch.load(work / "checkpoint.pt", weights_only=True)
    network.load_state_dict(state["network"])
    size = export_weights(network, EMBEDDED)
    typer.echo(json.dumps({"step": state["step"], "bytes": size}))


def name_words(found: Sequence[Function]) -> list[str]:
    """Plain words out of function names, for file names."""
    parts = {part for f in found for part in f.name.strip("_").lower().split("_")}
    return sorted(part for part in parts if 2 < len(part) < 10 and part.isalpha())


def _body(function: Function) -> str:
    """Return the function without its first line, so that a renamed copy is found."""
    return function.text.partition("\n")[2]


def _some(count: int, make: Callable[[], Document | None]) -> Iterator[Document]:
    """Yield ``count`` documents from a maker that sometimes has none."""
    made = 0
    while made < count:
        document = make()
        if document is not None and len(document.text) < LONGEST * 3:
            made += 1
            yield document


def _drill(random_: random.Random, known: list[Function], words: list[str]) -> Document | None:
    # Self-contained functions look most like the tasks: a third of the drills use them.
    while True:
        function = random_.choice(known)
        if len(function.text) < 330 and (function.self_contained or random_.random() < 0.12):
            return drill(random_, function, f"{random_.choice(words)}.py", most=4)


def _trajectory(random_: random.Random, made: list[RepairTask]) -> Document | None:
    misses = random_.choices(*MISSES)[0]
    return trajectory(random_, random_.choice(made), misses)


if __name__ == "__main__":
    app()
