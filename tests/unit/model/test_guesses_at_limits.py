"""Guesses of the MTP layer where room runs out, and from checkpoints that hold it otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from kernels.linear import QuantizedWeight
from model.checkpoint.quantize import Quantize
from model.drafting.drafts import Draft, Drafter, Drafts
from model.engine import Engine
from model.errors import CheckpointError
from model.scheduler import Scheduler
from model.session import Session
from tests.support.compiled_checkpoint import make
from tests.support.drafting import GREEDY, WARM, mtp_network, say


class Eager(Drafter):
    """Guesses as much as it may, whatever that costs."""

    def copied(self, *_: object) -> Draft:
        return Draft()

    def depth(self, draft: Draft, most: int, company: int) -> int:
        return most

    def another(self, guessed: Draft, company: int) -> bool:
        return True


def opened(scheduler: Scheduler, seed: int = 1) -> Session:
    session = Session(scheduler, seed=seed)
    session._drafter = Eager(scheduler.costs, scheduler.guess_costs)
    return session


@pytest.mark.parametrize("short_of_full", [1, 2, 3, 6])
def test_a_context_that_is_nearly_full(short_of_full: int) -> None:
    network = mtp_network(context_length=40)
    said = []
    for scheduler in (Scheduler(network, drafts="off"), Scheduler(network)):
        session = opened(scheduler)
        session.extend(range(40 - short_of_full))
        said.append(say(session, 20))
        assert session.length == 40
        assert say(session, 5) == []
    assert said[0] == said[1]
    assert len(said[0]) == short_of_full


def test_memory_for_no_wider_pass() -> None:
    roomy = mtp_network()
    layout = roomy.layout
    plain = Session(Scheduler(roomy, drafts="off"), seed=1)
    tight = mtp_network(limit=2 * layout.slot_bytes + layout.page_bytes)
    drafted = opened(Scheduler(tight))
    for session in (plain, drafted):
        session.extend(range(30))
    assert say(drafted, 40) == say(plain, 40)
    assert drafted.usage.drafted_tokens == 0


def says_the_same(checkpoint: Path, quantize: Quantize = "none") -> int:
    """Compare what is said with and without guesses; how many ids were guessed."""
    for params in (GREEDY, WARM):
        said = {}
        sources: tuple[Drafts, ...] = ("off", "mtp")
        for drafts in sources:
            engine = Engine.load(checkpoint, name="tiny", quantize=quantize, drafts=drafts)
            session = opened(engine.scheduler)
            session.extend(range(30))
            said[drafts] = say(session, 30, params)
        assert said["mtp"] == said["off"]
    return session.usage.mtp_drafted_tokens


def test_a_layer_in_a_file_of_its_own(tmp_path: Path) -> None:
    folder = make(tmp_path / "split", seed=0)
    tensors = load_file(folder / "model.safetensors")
    own = {name: t.clone() for name, t in tensors.items() if name.startswith("mtp.")}
    rest = {name: t.clone() for name, t in tensors.items() if name not in own}
    assert own
    save_file(rest, folder / "model.safetensors")
    save_file(own, folder / "mtp.safetensors")
    assert says_the_same(folder) > 0
    # Without that file there is nothing to guess with, and with half of it the load is refused.
    (folder / "mtp.safetensors").unlink()
    assert says_the_same(folder) == 0
    del own["mtp.fc.weight"]
    save_file(own, folder / "mtp.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks the tensor mtp\.fc\.weight; fetch it again"):
        Engine.load(folder, name="tiny")


@pytest.mark.parametrize("quantize", ["int4", "int8"])
def test_a_quantised_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quantize: Quantize
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make(tmp_path / "model", seed=0)
    assert says_the_same(folder, quantize) > 0
    layer = Engine.load(folder, name="x", quantize=quantize).network.model.mtp
    assert layer is not None
    assert isinstance(layer.project, QuantizedWeight)
    assert layer.project.bits == 8
