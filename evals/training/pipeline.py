"""The embedded model from nothing: ``python -m evals.training.pipeline all --work DIR``.

The stages, in order: ``fetch``, ``tasks``, ``train``, ``cool``, ``export``. Each reads what the one
before left in the work folder, and each but ``fetch`` works offline. ``train`` goes on at a
constant rate, over as many sessions as it needs: killed at any moment, it goes on from its last
checkpoint. ``cool`` takes a copy of that checkpoint to a low rate, trains the MTP layer, and leaves
``train`` where it was. ``benchmarks/repair.py`` then measures the model on ``held_out.jsonl``.
"""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer
from tokenizers import Tokenizer, models

import model
from evals.training.bpe import train_tokenizer
from evals.training.card import write_prints
from evals.training.corpus import Function, is_held_out
from evals.training.make_tasks import tasks_of
from evals.training.publish import export as export_weights
from evals.training.publish import load_weights
from evals.training.shards import Shards, ShardSize, name_words
from evals.training.sources import PINS, functions
from evals.training.sources import fetch as fetch_sources
from evals.training.task import RepairTask, read_tasks, write_tasks
from evals.training.train import Phase, Trainer, TrainingRecipe
from evals.training.train import train as run_recipe
from evals.training.trainable import TrainableNetwork
from model.checkpoint.config import ModelConfig

EMBEDDED = Path(model.__file__).parent / "embedded"
VOCABULARY = 4096
app = typer.Typer(no_args_is_help=True, help=__doc__)
Work = Annotated[Path, typer.Option(help="The folder that holds everything made on the way.")]
Target = Annotated[Path, typer.Option(help="The model directory: its config.json is the size.")]
Pins = Annotated[Path, typer.Option(help="A file of distributions, one NAME==VERSION a line.")]
ScaleName = Annotated[Literal["full", "tiny"], typer.Option("--scale", help="How much of it all.")]


@dataclass(frozen=True)
class Scale:
    """Amount of work in a pipeline; ``tiny`` shows in a minute that all stages fit together.

    ``library`` takes the standard library's functions too; ``most`` limits the functions tried on
    each side of the split.
    """

    shard: ShardSize
    steps: int
    cool_steps: int
    draft_steps: int
    tokens_per_step: int
    library: bool = True
    most: int | None = None
    compiled: bool = False


SCALES = {
    "full": Scale(ShardSize(), 10_800, 700, 250, 6144),
    "tiny": Scale(ShardSize(4, 3, 3, 2), 3, 2, 2, 1500, library=False, most=12),
}


@app.command()
def fetch(work: Work, pins: Pins = PINS) -> None:
    """Download the pinned distributions (from the package index)."""
    work.joinpath("sources").mkdir(parents=True, exist_ok=True)
    fetch_sources(work, typer.echo, pins)


@app.command()
def tasks(work: Work, scale: ScaleName = "full") -> None:
    """Collect functions, break them, find tests: ``train.jsonl`` and ``held_out.jsonl``."""
    size = SCALES[scale]
    found = functions(work, library=size.library)
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
        for function in chosen[: size.most]:
            made += tasks_of(function, 0, words, most)
        write_tasks(made, work / file)
        typer.echo(f"{file}: {len(made)} tasks of {len(chosen)} functions tried")


@app.command()
def train(
    work: Work, target: Target = EMBEDDED, threads: int = 1, scale: ScaleName = "full"
) -> None:
    """Train at a constant rate, from the target's weights if it has any, or go on."""
    size = SCALES[scale]
    shards = _shards(work, target, size)
    trainer = _trainer(target, size, (Phase(size.steps, 0.6, 0.6),), threads)
    checkpoint = work / "checkpoint.pt"
    if not checkpoint.exists() and (target / "model.safetensors").exists():
        load_weights(trainer.network, target)
    run_recipe(trainer, shards, size.shard.steps, checkpoint, work / "train.log")


@app.command()
def cool(
    work: Work, target: Target = EMBEDDED, threads: int = 1, scale: ScaleName = "full"
) -> None:
    """Take a copy of the newest checkpoint to a low rate, then train its MTP layer."""
    size = SCALES[scale]
    phases = (Phase(size.cool_steps, 0.6, 0.01), Phase(size.draft_steps, 0.4, 0.02, True))
    trainer = _trainer(target, size, phases, threads, warmup=1)
    checkpoint = work / "cooled.pt"
    if not checkpoint.exists():
        trainer.load(work / "checkpoint.pt")
        trainer.step_index = 0
        trainer.save(checkpoint)
    shards = _shards(work / "cooling", target, size, offset=1_000_000, origin=work)
    run_recipe(trainer, shards, size.shard.steps, checkpoint, work / "cool.log")


@app.command()
def export(work: Work, target: Target = EMBEDDED) -> None:
    """Put the cooled weights into the target, with the prints of the texts they know."""
    network = TrainableNetwork(ModelConfig.load(target))
    state = torch.load(work / "cooled.pt", weights_only=True)
    network.load_state_dict(state["network"])
    size = export_weights(network, target)
    write_prints(target)
    typer.echo(json.dumps({"step": state["step"], "tokens": state["tokens"], "bytes": size}))


@app.command("all")
def run_all(
    work: Work,
    target: Target = EMBEDDED,
    pins: Pins = PINS,
    threads: int = 1,
    scale: ScaleName = "full",
) -> None:
    """Run all stages; tasks that are there already are not made again."""
    fetch(work, pins)
    if not (work / "train.jsonl").exists():
        tasks(work, scale)
    train(work, target, threads, scale)
    (work / "cooled.pt").unlink(missing_ok=True)
    cool(work, target, threads, scale)
    export(work, target)


def _trainer(
    target: Path, size: Scale, phases: tuple[Phase, ...], threads: int, warmup: int = 50
) -> Trainer:
    """Return a trainer of a new network of the target's shape."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = TrainableNetwork(ModelConfig.load(target))
    if size.compiled:
        # The norms see several widths and strides; each is compiled once.
        torch._dynamo.config.recompile_limit = 64
        network.compile_small_parts()
    recipe = TrainingRecipe(phases, tokens_per_step=size.tokens_per_step, warmup=warmup)
    return Trainer(network, recipe)


def _shards(
    work: Path, target: Path, size: Scale, *, offset: int = 0, origin: Path | None = None
) -> Shards:
    """Return the shards of ``work``, out of the tasks of ``origin``; none is held out."""
    origin = origin or work
    work.mkdir(parents=True, exist_ok=True)
    found: list[Function] = pickle.loads((origin / "functions.pickle").read_bytes())
    known = [function for function in found if not is_held_out(function.source)]
    made = list(read_tasks(origin / "train.jsonl"))
    if not (target / "tokenizer.json").exists():
        blank = Shards(known, made, Tokenizer(models.BPE()), work, size.shard)
        texts = [function.module_text for function in known]
        train_tokenizer([*texts, *(d.text for d in blank.write(0))], VOCABULARY, target)
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    return Shards(known, made, tokenizer, work, size.shard, offset)


def _body(function: Function) -> str:
    """Return the function without its first line, so that a renamed copy is found."""
    return function.text.partition("\n")[2]


if __name__ == "__main__":
    app()
