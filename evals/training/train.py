"""Training: token-budget batches of whole documents, Muon and AdamW, checkpoints to resume from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from evals.training.trainable import Hidden, TrainableNetwork
from sandboxes.paths import write_whole

DEPTH = 3
"""How many tokens in a row the MTP layer is trained to guess."""

Encoded = tuple[NDArray[np.uint16], NDArray[np.float16]]


@dataclass(frozen=True)
class Phase:
    """A stretch of training: for how long, and the share of the peak rates.

    The share falls linearly from ``rate_from`` to ``rate_to``. With ``draft_only`` the trunk stands
    still and the MTP layer alone is trained, on the hidden states that the trunk now gives.
    """

    steps: int
    rate_from: float = 1.0
    rate_to: float = 1.0
    draft_only: bool = False


@dataclass(frozen=True)
class TrainingRecipe:
    """The settings of a training; both rates are peaks."""

    phases: tuple[Phase, ...]
    tokens_per_step: int = 6144
    matrix_rate: float = 0.02
    other_rate: float = 0.003
    warmup: int = 50
    seed: int = 0

    @property
    def steps(self) -> int:
        """All phases together."""
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[Phase, int]:
        """Return the phase that a step is in, and how far into it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise ValueError("the step lies behind the last phase")


class Muon:
    """Momentum, orthogonalised by Newton-Schulz, for the matrices (K. Jordan et al., "Muon", 2024).

    Matrices of one shape are orthogonalised together.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], momentum: float = 0.95) -> None:
        self.groups: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            self.groups.setdefault(parameter.shape, []).append(parameter)
        self.momentum = momentum
        self.state = {id(p): torch.zeros_like(p) for group in self.groups.values() for p in group}

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update; gradients are read, not cleared."""
        for shape, group in self.groups.items():
            updates, moved = [], []
            for parameter in group:
                gradient = parameter.grad
                if gradient is None:
                    continue
                buffer = self.state[id(parameter)]
                buffer.lerp_(gradient, 1 - self.momentum)
                updates.append(gradient.lerp(buffer, self.momentum))
                moved.append(parameter)
            if not moved:
                continue
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, update in zip(moved, _orthogonal(torch.stack(updates)), strict=True):
                parameter.mul_(1 - rate * 0.02).add_(update, alpha=-rate * scale)

    def buffers(self) -> list[Tensor]:
        """Return the momenta, in a fixed order, for checkpoints."""
        return [self.state[id(p)] for group in self.groups.values() for p in group]


def _orthogonal(stack: Tensor, steps: int = 5) -> Tensor:
    """Each matrix of a stack moved towards the nearest orthogonal one."""
    x = stack.to(matrix_type())
    turned = x.shape[1] > x.shape[2]
    x = x.mT if turned else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    result: Tensor = (x.mT if turned else x).to(stack.dtype)
    return result


def matrix_type() -> torch.dtype:
    """Return the type of matrix products: bfloat16 where this processor has such instructions.

    Elsewhere bfloat16 is emulated and 25 times as slow as float32.
    """
    has = torch.cpu.get_capabilities()
    return torch.bfloat16 if has.get("avx512_bf16") or has.get("amx_bf16") else torch.float32


class Trainer:
    """A network, its optimisers and where in the recipe they are.

    ``tokens`` counts what the network was trained on, padding included.
    """

    def __init__(self, network: TrainableNetwork, recipe: TrainingRecipe) -> None:
        self.network, self.recipe, self.step_index, self.tokens = network, recipe, 0, 0
        hidden = [p for n, p in network.named_parameters() if _is_matrix(n, p)]
        others = [p for n, p in network.named_parameters() if not _is_matrix(n, p)]
        self.muon = Muon(hidden)
        self.adam = torch.optim.AdamW(others, betas=(0.9, 0.98), eps=1e-10, weight_decay=0.0)

    def rate(self) -> float:
        """Return the share of the peak rates at this step."""
        phase, done = self.recipe.at(self.step_index)
        share = phase.rate_from + (phase.rate_to - phase.rate_from) * done / phase.steps
        return share * min(1.0, (self.step_index + 1) / self.recipe.warmup)

    def step(self, ids: Tensor, weights: Tensor) -> float:
        """One update on a batch, [rows, time]; returns the weighted loss per weighted token."""
        phase, _ = self.recipe.at(self.step_index)
        with torch.autocast("cpu", torch.bfloat16, enabled=matrix_type() is torch.bfloat16):
            loss = self.draft_loss(ids, weights) if phase.draft_only else self.loss(ids, weights)
        torch.autograd.backward(loss)
        share = self.rate()
        for group in self.adam.param_groups:
            group["lr"] = self.recipe.other_rate * share
        self.adam.step()
        self.muon.step(self.recipe.matrix_rate * share)
        self.network.zero_grad(set_to_none=True)
        self.step_index += 1
        self.tokens += ids.numel()
        return float(loss.detach())

    def loss(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Next-token loss."""
        states = self.network(ids).states
        return self._loss(states[:, :-1], ids[:, 1:], weights[:, 1:])

    def draft_loss(self, ids: Tensor, weights: Tensor) -> Tensor:
        """Return the MTP layer's loss on the ``DEPTH`` tokens after the next one, averaged.

        Each depth reads the layer's own output of the depth before, as a draft does. The gradient
        stays in the layer.
        """
        with torch.no_grad():
            hidden = self.network(ids)
            head = self.network.embed_tokens.weight.detach()
        losses = []
        for depth in range(1, min(DEPTH, ids.shape[1] - 2) + 1):
            states = self.network.draft(hidden, ids[:, depth - 1 :])
            targets = ids[:, depth + 1 :]
            losses.append(self._loss(states[:, :-1], targets, weights[:, depth + 1 :], head))
            hidden = Hidden(states, hidden.cos, hidden.sin)
        return torch.stack(losses).mean()

    def _loss(
        self, states: Tensor, targets: Tensor, weights: Tensor, head: Tensor | None = None
    ) -> Tensor:
        """Return the mean loss of the targets by their weights.

        A weight below 0 asks for less of its target: unlikelihood, -log(1 - p) (Welleck et al.,
        "Neural text generation with unlikelihood training", 2020).
        """
        # The head is the largest matrix: compute it only where a target counts.
        counted = weights != 0
        head = self.network.embed_tokens.weight if head is None else head
        logits = F.linear(states[counted], head).float()
        each = F.cross_entropy(logits, targets[counted], reduction="none")
        asked = weights[counted]
        less = -torch.log1p(-torch.exp(-each).clamp(max=1 - 1e-4))
        return torch.where(
            asked < 0, less * -asked, each * asked
        ).sum() / weights.abs().sum().clamp(min=1e-6)

    def save(self, path: Path) -> None:
        """Write everything needed to go on, whole or not at all."""
        state = {
            "network": self.network.state_dict(),
            "adam": self.adam.state_dict(),
            "muon": self.muon.buffers(),
            "step": self.step_index,
            "tokens": self.tokens,
        }
        with write_whole(path) as draft:
            torch.save(state, draft)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of ``save``."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.adam.load_state_dict(state["adam"])
        for buffer, saved in zip(self.muon.buffers(), state["muon"], strict=True):
            buffer.copy_(saved)
        self.step_index, self.tokens = state["step"], state["tokens"]


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and "embed_tokens" not in name and min(parameter.shape) > 16


def batches(
    documents: Sequence[Encoded], tokens: int, seed: int, start: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless padded batches of about ``tokens`` tokens, rows of like length together.

    Seeded; ``start`` skips that many batches, so that a resumed run sees what it would have seen.
    """
    produced = 0
    epoch = 0
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(len(documents))
        pool = 256
        for first in range(0, len(order), pool):
            chosen = sorted(order[first : first + pool], key=lambda i: len(documents[i][0]))
            groups = list(_grouped(documents, chosen, tokens))
            shuffle = np.random.default_rng((seed, epoch, first)).permutation(len(groups))
            for index in shuffle:
                produced += 1
                if produced > start:
                    yield _padded([documents[i] for i in groups[index]])
        epoch += 1


def _grouped(
    documents: Sequence[Encoded], chosen: Sequence[int], tokens: int
) -> Iterator[list[int]]:
    group: list[int] = []
    for index in chosen:
        length = len(documents[index][0])
        if group and (len(group) + 1) * length > tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _padded(rows: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    weights = torch.zeros(len(rows), longest)
    for row, (row_ids, row_weights) in enumerate(rows):
        ids[row, : len(row_ids)] = torch.from_numpy(row_ids.astype(np.int64))
        weights[row, : len(row_ids)] = torch.from_numpy(row_weights.astype(np.float32))
    return ids, weights


class DocumentSource(Protocol):
    """Documents by number, such as ``shards.Shards``."""

    def documents(self, number: int) -> Sequence[Encoded]:
        """Return the documents of a shard."""
        ...


def train(
    trainer: Trainer,
    source: DocumentSource,
    steps_each: int,
    checkpoint: Path,
    log: Path,
    save_every_s: float = 120.0,
) -> None:
    """Run the recipe to its end, ``steps_each`` steps a shard, saving now and then.

    A killed run goes on from its checkpoint, which is where the numbers of shards go on too.
    """
    if checkpoint.exists():
        trainer.load(checkpoint)
    recipe = trainer.recipe
    saved = time.monotonic()
    running = math.nan
    while trainer.step_index < recipe.steps:
        number, done = divmod(trainer.step_index, steps_each)
        found = batches(source.documents(number), recipe.tokens_per_step, recipe.seed, done)
        for _ in range(min(steps_each - done, recipe.steps - trainer.step_index)):
            ids, weights = next(found)
            begun = time.monotonic()
            loss = trainer.step(ids, weights)
            took = time.monotonic() - begun
            running = loss if math.isnan(running) else 0.95 * running + 0.05 * loss
            if trainer.step_index % 10 == 0:
                _log(log, trainer, running, round(ids.numel() / took))
            if time.monotonic() - saved > save_every_s:
                trainer.save(checkpoint)
                saved = time.monotonic()
        trainer.save(checkpoint)


def _log(path: Path, trainer: Trainer, loss: float, speed: int) -> None:
    record = {
        "step": trainer.step_index,
        "tokens": trainer.tokens,
        "loss": round(loss, 4),
        "tokens_per_s": speed,
    }
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
