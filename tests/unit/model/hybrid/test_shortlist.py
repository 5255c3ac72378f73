"""Guesses among the most frequent ids: equal to those by the whole head, with nothing copied."""

from __future__ import annotations

import pytest
import torch

import model.hybrid.cpu_mtp as cpu_mtp
from kernels.linear import Weight, quantize, stack
from model.drafting.drafts import Drafts
from model.hybrid.cpu_mtp import shortlist
from model.scheduler import Scheduler
from model.session import Session
from tests.support.drafting import GREEDY, WARM, mtp_network, say

VOCAB, FIRST, LAST = 300, 64, 44


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vocabulary of 300 counts as a large one."""
    monkeypatch.setattr(cpu_mtp, "_FREQUENT", FIRST)
    monkeypatch.setattr(cpu_mtp, "_SPECIAL", 40)


def test_its_logits_are_those_of_the_whole_head() -> None:
    network, whole = mtp_network(), mtp_network()
    runner = network._mtp
    assert runner is not None
    assert list(runner.ids) == [*range(FIRST), *range(256, VOCAB)] == list(network.guessable)
    hidden = torch.randn(5, network.model.config.hidden_size)
    assert whole.compiled is not None
    wanted = whole.compiled.logits(hidden)
    assert torch.equal(runner.logits(hidden), wanted[:, list(runner.ids)])


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantised_head_is_cut_where_its_blocks_end(bits: int) -> None:
    head = quantize(torch.randn(VOCAB, 64), bits)
    (first, _), (last, ids) = shortlist(head)
    assert (first.shape, last.shape, ids) == ((FIRST, 64), (LAST, 64), range(256, VOCAB))
    assert first.data.data_ptr() == head.data.data_ptr()  # type: ignore[union-attr]
    assert last.data.untyped_storage().data_ptr() == head.data.data_ptr()  # type: ignore[union-attr]


def test_what_cannot_be_cut_is_guessed_whole() -> None:
    halves = torch.randn(VOCAB // 2, 64), torch.randn(VOCAB // 2, 64)
    weights: list[Weight] = [torch.randn(100, 64), stack(halves, copy_below=0)]
    for weight in weights:
        assert shortlist(weight) == [(weight, range(weight.shape[0]))]


def test_what_is_said_is_chosen_from_all_ids() -> None:
    network = mtp_network()
    for params in (GREEDY, WARM):
        said = {}
        sources: tuple[Drafts, ...] = ("off", "mtp")
        for drafts in sources:
            session = Session(Scheduler(network, drafts=drafts), seed=5)
            session.extend(range(VOCAB))
            said[drafts] = say(session, 40, params)
        assert said["mtp"] == said["off"]
