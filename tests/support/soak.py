"""Random work on many sessions of one engine, held against a plain model of what they must be.

The plain model of a session is the list of what was done to it since it began: tokens put in,
tokens drawn, seeds set. Doing that again on an engine without any memory limit, in one thread, is
what the session must equal to the last bit, however it was forked, rewound, parked, saved, killed
and resumed in between.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from model.engine import Engine
from model.hybrid.model import HybridNetwork
from model.sampling import SamplingParams
from model.session import Session, Snapshot
from model.state.trail import HybridTrail, settle

PARAMS = (
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=1.0, top_k=50, top_p=0.9, presence_penalty=0.5),
)
NEVER: frozenset[int] = frozenset()
LONG = 800
"""From this length on a session is not extended any more, so that any one fits the budget."""

TIGHT = 700_000
"""Bytes of state: one long session and a little more."""

ROOT = Path(__file__).resolve().parents[2]
Done = tuple[str, int, int]
"""What was done: ``(kind, first, second)``, see ``act``."""

OPERATIONS = (
    "extend",
    "generate",
    "begin",
    "fork",
    "fork_seeded",
    "fork_generating",
    "snapshot",
    "restore",
    "rewind",
    "park",
    "save",
    "resume",
    "close",
)


def act(session: Session, done: Done) -> None:
    """Do one thing to ``session``."""
    kind, first, second = done
    if kind == "extend":
        session.extend([(first * 31 + i * i) % 1000 for i in range(second)])
    elif kind == "generate":
        list(session.generate(PARAMS[first % 2], max_tokens=second, stop_ids=NEVER))
    else:
        raise ValueError(kind)


@dataclass
class Live:
    """A session, the seed it draws with, and what was done since that seed was set.

    ``before`` is what was done before that.
    """

    session: Session
    seed: int
    done: list[Done] = field(default_factory=list)
    before: list[tuple[int, list[Done]]] = field(default_factory=list)
    points: list[tuple[Snapshot, int, list[Done], list[tuple[int, list[Done]]]]] = field(
        default_factory=list
    )
    saved: Path | None = None
    at_save: tuple[int, list[Done], list[tuple[int, list[Done]]]] | None = None

    def copy(self, session: Session) -> Live:
        """The same past in ``session``."""
        return Live(session, self.seed, list(self.done), list(self.before), list(self.points))

    def history(self) -> tuple[int, list[Done], list[tuple[int, list[Done]]]]:
        """Its past as a value."""
        return self.seed, list(self.done), list(self.before)


class Soak:
    """Does what it is told to sessions of ``engine`` and knows what each must be.

    ``plain`` is an engine with the same weights and no memory limit.
    """

    def __init__(self, engine: Engine, plain: Engine, folder: Path) -> None:
        self.engine = engine
        self.plain = plain
        self.folder = folder
        self.lives: list[Live] = []
        self.count = 0
        self.begin(0, 0)

    def do(self, operation: str, which: int, size: int) -> None:
        """One operation on the session that ``which`` chooses. ``size`` is how much, or what."""
        live = self.lives[which % len(self.lives)]
        getattr(self, operation)(live if operation != "begin" else which, size)

    def extend(self, live: Live, size: int) -> None:
        if live.session.length < LONG:
            self._act(live, ("extend", size, 1 + size % 700))

    def generate(self, live: Live, size: int) -> None:
        self._act(live, ("generate", size, 1 + size % 9))

    def begin(self, seed: int, _: int) -> None:
        if len(self.lives) < 6:
            live = Live(self.engine.session(seed=seed), seed)
            self.lives.append(live)
            self._act(live, ("extend", seed, 5))

    def fork(self, live: Live, _: int) -> None:
        if len(self.lives) < 6:
            self.lives.append(live.copy(live.session.fork()))

    def fork_seeded(self, live: Live, seed: int) -> None:
        if len(self.lives) < 6:
            twin = live.copy(live.session.fork(seed=seed))
            twin.before.append((twin.seed, twin.done))
            twin.seed, twin.done = seed, []
            self.lives.append(twin)

    def fork_generating(self, live: Live, size: int) -> None:
        """Forked between two tokens; both go on."""
        events = live.session.generate(PARAMS[size % 2], max_tokens=4, stop_ids=NEVER)
        next(events)
        live.done.append(("generate", size, 1))
        self.fork(live, size)
        list(events)
        live.done[-1] = ("generate", size, 4)

    def snapshot(self, live: Live, _: int) -> None:
        live.points.append((live.session.snapshot(), *live.history()))

    def restore(self, live: Live, size: int) -> None:
        if live.points:
            point, seed, done, before = live.points[size % len(live.points)]
            live.session.restore(point)
            live.seed, live.done, live.before = seed, list(done), list(before)

    def rewind(self, live: Live, size: int) -> None:
        """There and back: work that is given up."""
        point = live.session.snapshot()
        live.session.extend([1] * (1 + size % 300))
        live.session.restore(point)

    def park(self, live: Live, _: int) -> None:
        live.session.park()

    def save(self, live: Live, _: int) -> None:
        if live.saved is None:
            self.count += 1
            live.saved = self.folder / f"session-{self.count}"
        live.session.save(live.saved)
        live.at_save = live.history()

    def resume(self, live: Live, _: int) -> None:
        """What was saved last; the session that was is gone."""
        if live.saved is not None and live.at_save is not None:
            live.session.close()
            live.session = self.engine.resume(live.saved)
            seed, done, before = live.at_save
            live.seed, live.done, live.before, live.points = seed, list(done), list(before), []

    def close(self, live: Live, _: int) -> None:
        if len(self.lives) > 1:
            live.session.close()
            if live.saved is not None:
                shutil.rmtree(live.saved)
            # By identity: two lives may be equal.
            self.lives = [other for other in self.lives if other is not live]

    def kill(self, live: Live, checkpoint: Path, rng: random.Random) -> None:
        """Another process goes on with the session, saving after each turn, and is killed."""
        self.save(live, 0)
        assert live.saved is not None
        command = [sys.executable, "-m", "tests.support.soak_child", str(checkpoint)]
        child = subprocess.Popen(
            [*command, str(live.saved)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert child.stdout is not None
        turns = 0
        for _ in range(rng.randrange(1, 6)):
            turns += child.stdout.readline() == "saved\n"
        try:
            child.wait(rng.random() * 0.05)
        except subprocess.TimeoutExpired:
            child.kill()
        child.wait()
        child.stdout.close()
        live.session.close()
        live.session = self.engine.resume(live.saved)
        live.points = []
        before = sum(1 for kind, *_ in live.done if kind == "generate")
        length = live.session.length
        while self._length(live) < length:
            live.done += [("extend", 7, 3), ("generate", 1, 4)]
        assert self._length(live) == length
        took = sum(1 for kind, *_ in live.done if kind == "generate") - before
        assert took >= turns, "a turn that was saved is lost"
        live.at_save = live.history()

    def check(self) -> None:
        """Every session equals its plain model to the last bit, and every byte is accounted for."""
        for live in self.lives:
            expected = self._replay(live)
            assert live.session.ids == expected.ids
            ours, theirs = live.session.snapshot(), expected.snapshot()
            assert ours.logits is not None
            assert theirs.logits is not None
            assert torch.equal(ours.logits, theirs.logits)
            wanted = theirs.state.tensors() | theirs.state.span(0, theirs.state.length)
            got = ours.state.tensors() | ours.state.span(0, ours.state.length)
            assert all(torch.equal(got[name], tensor) for name, tensor in wanted.items())
            expected.close()
        self._accounted()

    def end(self) -> None:
        """Close everything; nothing may be left in memory, in the swap file, or on disk."""
        while len(self.lives) > 1:
            self.close(self.lives[0], 0)
        last = self.lives.pop()
        last.session.close()
        if last.saved is not None:
            shutil.rmtree(last.saved)
        del last
        assert list(self.folder.iterdir()) == []
        self._accounted()
        network = self.engine.network
        assert isinstance(network, HybridNetwork)
        assert network.layout.memory.used == network.layout.memory.parked_bytes == 0

    def _accounted(self) -> None:
        network = self.engine.network
        assert isinstance(network, HybridNetwork)
        held = [live.session.snapshot() for live in self.lives]
        held += [point[0] for live in self.lives for point in live.points]
        blocks = set()
        for each in held:
            state, ahead = settle(each.state), each.point.ahead
            blocks |= {page.block for page in state.all_pages} | ({state.slot} - {None})
            if ahead is not None:
                assert isinstance(ahead.trail, HybridTrail)
                blocks |= ahead.trail.blocks()
        memory = network.layout.memory
        assert memory.limit is None or memory.used <= memory.limit
        assert memory.used + memory.parked_bytes == sum(block.size for block in blocks if block)

    def _act(self, live: Live, done: Done) -> None:
        act(live.session, done)
        live.done.append(done)

    def _replay(self, live: Live) -> Session:
        parts: Sequence[tuple[int, list[Done]]] = [*live.before, (live.seed, live.done)]
        session = self.plain.session(seed=parts[0][0])
        for number, (seed, done) in enumerate(parts):
            if number:
                session = session.fork(seed=seed)
            for each in done:
                act(session, each)
        return session

    def _length(self, live: Live) -> int:
        return sum(
            second for _, done in [*live.before, (live.seed, live.done)] for _, _, second in done
        )
