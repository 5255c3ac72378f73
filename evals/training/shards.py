"""Training documents in shards, each made from its number when training comes to it.

A long training reads more documents than are worth keeping. Shard ``n`` is made from the seed
``n``, used for a fixed number of steps and thrown away, so that a training that goes on over
several sessions needs its checkpoint and the tasks alone.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from evals.training.corpus import Function
from evals.training.documents import Document, drill, trajectory
from evals.training.task import RepairTask
from evals.training.train import Encoded
from evals.training.wide import wide_tasks

LONGEST = 3000
"""Longest document, in tokens; three characters are taken for a token."""
MISSES = ((0, 1, 2, 3, 4, 6, 8), (0.38, 0.2, 0.15, 0.1, 0.08, 0.05, 0.04))
"""How many wrong edits a trajectory has before the right one, and how often."""


@dataclass(frozen=True)
class ShardSize:
    """Numbers of drills, plain runs and runs on wide tasks in a shard, and of steps on it."""

    drills: int = 2500
    runs: int = 400
    wide: int = 400
    steps: int = 250


@dataclass(frozen=True)
class Shards:
    """The maker of shards, from the functions and tasks of the training side.

    The newest shard is kept in ``folder``, so that a killed training need not make it again.
    ``offset`` is added to a shard's number for its seed: two trainings then read other documents.
    """

    functions: Sequence[Function]
    tasks: Sequence[RepairTask]
    tokenizer: Tokenizer
    folder: Path
    size: ShardSize
    offset: int = 0

    def documents(self, number: int) -> list[Encoded]:
        """Return the encoded documents of a shard: read, or made now."""
        path = self.folder / f"shard-{number}.pickle"
        if path.exists():
            found: list[Encoded] = pickle.loads(path.read_bytes())
            return found
        made = [document.encode(self.tokenizer) for document in self.write(number)]
        for old in self.folder.glob("shard-*.pickle"):
            old.unlink()
        path.with_suffix(".part").write_bytes(pickle.dumps(made))
        path.with_suffix(".part").rename(path)
        return made

    def write(self, number: int) -> Iterator[Document]:
        """Write the documents of a shard; always the same ones."""
        random_ = random.Random(f"shard {number + self.offset}")
        words = name_words(self.functions)
        alone = [function for function in self.functions if function.self_contained]

        def one_drill() -> Document | None:
            # Self-contained functions look most like the tasks: most drills use them.
            function = random_.choice(alone if random_.random() < 0.6 else self.functions)
            if len(function.text) >= 330:
                return None
            return drill(random_, function, f"{random_.choice(words)}.py", most=4)

        def one_run() -> Document | None:
            return trajectory(random_, random_.choice(self.tasks), _misses(random_))

        def one_wide() -> Document | None:
            function, others = random_.choice(alone), random_.sample(alone, min(3, len(alone)))
            path = f"{random_.choice(words)}.py"
            made = wide_tasks(function, others, random_, path, most=1)
            return trajectory(random_, made[0], _misses(random_)) if made else None

        yield from _some(self.size.drills, one_drill)
        yield from _some(self.size.runs, one_run)
        yield from _some(self.size.wide, one_wide)


def name_words(found: Sequence[Function]) -> list[str]:
    """Plain words out of function names, for file names."""
    parts = {part for f in found for part in f.name.strip("_").lower().split("_")}
    return sorted(part for part in parts if 2 < len(part) < 10 and part.isalpha())


def _misses(random_: random.Random) -> int:
    return random_.choices(*MISSES)[0]


def _some(count: int, make: Callable[[], Document | None]) -> Iterator[Document]:
    """Yield ``count`` documents from a maker that sometimes has none."""
    made = 0
    for _ in range(count * 200):
        if made == count:
            return
        document = make()
        if document is not None and len(document.text) < LONGEST * 3:
            made += 1
            yield document
    raise ValueError(f"only {made} of {count} documents could be made: too few usable functions")
