"""Sessions with pictures: logits and positions against transformers, states to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import Qwen3_5ForConditionalGeneration
from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5Config

from benchmarks import parity
from kernels.native import native
from model.engine import Engine
from model.errors import PictureError
from model.hybrid.model import HybridNetwork
from model.sampling import SamplingParams
from model.session import Session
from model.vision.image_ids import placeholders
from model.vision.looking import look
from model.vision.picture import read_picture
from tests.support.sighted import PREPROCESSOR, png, tower_tensors, vision_config

TOLERANCE = 2e-4
compiled = pytest.mark.skipif(
    native() is None,
    reason="the compiled CPU path is not built (agent setup --native): only it gives a row the same"
    " bits in any company, and there is nothing to compare the torch path with",
)
PAD, START, END = 500, 501, 502
GREEDY = SamplingParams(temperature=0.0)


class Sighted:
    """A small model with eyes, and transformers' own with the same weights."""

    def __init__(self, directory: Path, case: str = "tiny") -> None:
        text = parity.text_config(case)
        vision = vision_config(text["hidden_size"])
        moe = "moe" in text["model_type"]
        whole = {
            "model_type": "qwen3_5_moe" if moe else "qwen3_5",
            "text_config": text,
            "vision_config": vision,
            "image_token_id": PAD,
            "vision_start_token_id": START,
            "vision_end_token_id": END,
            "tie_word_embeddings": text["tie_word_embeddings"],
        }
        language = parity.reference_model(text)
        self.reference = _reference(whole, text, language, tower_tensors(vision))
        named = {}
        for name, tensor in language.state_dict().items():
            if name != "lm_head.weight" or not text["tie_word_embeddings"]:
                named[name.replace("model.", "model.language_model.", 1)] = tensor
        named |= {f"model.visual.{n}": t for n, t in tower_tensors(vision).items()}
        (directory / "config.json").write_text(json.dumps(whole))
        (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
        save_file({n: t.contiguous() for n, t in named.items()}, directory / "model.safetensors")
        self.directory = directory
        self.engine = Engine.load(directory, name=case)

    def prompt(self, *sizes: tuple[int, int]) -> list[int]:
        """Text, and a picture of each size with text behind it."""
        ids = _text(9, 0)
        assert self.engine.eyes is not None
        for number, size in enumerate(sizes, 1):
            picture = read_picture(png(*size, seed=number))
            ids += [START, *self.engine.eyes.take(picture), END, *_text(7 * number, number)]
        return ids

    def expected(self, ids: list[int], sizes: tuple[tuple[int, int], ...]) -> tuple[Any, Any]:
        """transformers' logits ``[time, vocab]`` and positions ``[3, time]``."""
        eyes = self.engine.eyes
        assert eyes is not None
        prepared = [
            eyes.preparing.patches(read_picture(png(*size, seed=n)).pixels())
            for n, size in enumerate(sizes, 1)
        ]
        grids = torch.tensor([[1, 2 * grid.rows, 2 * grid.columns] for _, grid in prepared])
        plain = torch.tensor([placeholders(ids, PAD)])
        kinds = (plain == PAD).int()
        with torch.inference_mode():
            positions, _ = self.reference.model.get_rope_index(plain, kinds, image_grid_thw=grids)
            logits = self.reference(
                plain,
                pixel_values=torch.cat([patches for patches, _ in prepared]),
                image_grid_thw=grids,
                mm_token_type_ids=kinds,
            ).logits[0]
        return logits, positions[:, 0]


def _reference(whole: dict[str, Any], text: dict[str, Any], language: Any, tower: Any) -> Any:
    if whole["model_type"] == "qwen3_5":
        kind, settings = Qwen3_5ForConditionalGeneration, Qwen3_5Config
    else:
        from transformers import Qwen3_5MoeForConditionalGeneration as kind
        from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import (
            Qwen3_5MoeConfig as settings,
        )
    made = kind(settings(**whole, attn_implementation="eager")).eval()
    made.model.language_model.load_state_dict(language.model.state_dict())
    made.lm_head.load_state_dict(language.lm_head.state_dict())
    made.model.visual.load_state_dict(tower)
    return made


def _text(count: int, seed: int) -> list[int]:
    return torch.randint(400, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory) -> Sighted:
    return Sighted(tmp_path_factory.mktemp("sighted"))


def logits_at_cuts(engine: Engine, ids: list[int], cuts: list[int]) -> list[torch.Tensor]:
    """The logits after each of ``cuts`` and at the end."""
    session = engine.session()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        session.extend(ids[start:end])
        logits = session.snapshot().logits
        assert logits is not None
        found.append(logits)
    return found


SIZES = [((40, 50),), ((200, 70), (64, 300)), ((1, 1), (333, 777), (900, 30))]


@pytest.mark.parametrize("sizes", SIZES)
def test_positions_and_logits(sighted: Sighted, sizes: tuple[tuple[int, int], ...]) -> None:
    ids = sighted.prompt(*sizes)
    logits, positions = sighted.expected(ids, sizes)
    eyes = sighted.engine.eyes
    assert eyes is not None
    seen = look(ids, 0, 0, "", eyes)
    assert seen is not None
    assert seen.positions.tolist() == positions.tolist()
    assert seen.shift == int(positions.max()) + 1 - len(ids)
    legal = [at for at in range(1, len(ids)) if ids[at] >= 0 or ids[at - 1] >= 0]
    cuts = legal if sizes == SIZES[1] else legal[::5]
    got = logits_at_cuts(sighted.engine, ids, cuts)
    wanted = logits[[*(cut - 1 for cut in cuts), -1]]
    torch.testing.assert_close(torch.stack(got), wanted, atol=TOLERANCE, rtol=0)


def test_a_mixture_of_experts_with_eyes(tmp_path: Path) -> None:
    sighted = Sighted(tmp_path, "experts")
    sizes = ((200, 70), (64, 300))
    ids = sighted.prompt(*sizes)
    logits, _ = sighted.expected(ids, sizes)
    got = logits_at_cuts(sighted.engine, ids, [9, 60])
    torch.testing.assert_close(got[-1], logits[-1], atol=TOLERANCE, rtol=0)


@compiled
def test_the_torch_path_sees_the_same(sighted: Sighted) -> None:
    ids = sighted.prompt((200, 70), (64, 300))
    plain = Engine.load(sighted.directory, name="torch", native=False)
    for number, size in enumerate(((200, 70), (64, 300)), 1):
        assert plain.eyes is not None
        plain.eyes.take(read_picture(png(*size, seed=number)))
    (got,), (wanted,) = logits_at_cuts(plain, ids, []), logits_at_cuts(sighted.engine, ids, [])
    torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("before", [511, 500, 490, 470, 430])
def test_a_pass_that_ends_inside_a_picture_is_exact(sighted: Sighted, before: int) -> None:
    """Passes end at position 512, which is before, among and behind a picture's first tokens."""
    eyes = sighted.engine.eyes
    assert eyes is not None
    size = (200, 200)
    picture = read_picture(png(*size, seed=1))
    ids = [*_text(before - 1, 5), START, *eyes.take(picture), END, *_text(9, 6)]
    logits, _ = sighted.expected(ids, (size,))
    (got,) = logits_at_cuts(sighted.engine, ids, [])
    torch.testing.assert_close(got, logits[-1], atol=TOLERANCE, rtol=0)


def say(session: Session, count: int = 12, params: SamplingParams = GREEDY) -> list[int]:
    return [t.id for t in session.generate(params, max_tokens=count, stop_ids=frozenset())]


def test_states_across_a_picture_are_equal_to_the_bit(sighted: Sighted, tmp_path: Path) -> None:
    ids = sighted.prompt((200, 70), (64, 300))
    more = sighted.prompt((120, 130))
    sampled = SamplingParams(temperature=0.8, top_k=50)
    trunk = sighted.engine.session(seed=4)
    trunk.extend(ids)
    place = trunk.snapshot()
    fork = trunk.fork()
    said = say(trunk, 20, sampled)
    trunk.save(tmp_path / "saved")
    later = say(trunk, 20, sampled)

    assert say(fork, 40, sampled) == said + later
    resumed = sighted.engine.resume(tmp_path / "saved")
    assert resumed.ids == trunk.ids[: len(ids) + 20]
    assert say(resumed, 20, sampled) == later
    trunk.restore(place)
    trunk.extend(more)
    fresh = sighted.engine.session()
    fresh.extend(ids)
    fresh.extend(more)
    assert say(trunk) == say(fresh)
    assert torch.equal(_state(trunk)["recurrent"], _state(fresh)["recurrent"])
    assert _state(trunk)["shift"].tolist() == _state(fresh)["shift"].tolist()


@compiled
def test_drafts_and_company_change_nothing_behind_a_picture(sighted: Sighted) -> None:
    ids = [*sighted.prompt((200, 70)), *([7, 8, 9, 10] * 8)]
    plain = Engine.load(sighted.directory, name="plain", drafts="off")
    assert plain.eyes is not None
    plain.eyes.take(read_picture(png(200, 70, seed=1)))
    alone = plain.session()
    alone.extend(ids)
    expected = say(alone, 40)
    drafting = sighted.engine.session()
    drafting.extend(ids)
    assert say(drafting, 40) == expected

    # Text beside a picture in one pass, at other positions.
    scheduler = plain.scheduler
    text = plain.session()
    text.extend(_text(30, 3))
    wanted = say(text.fork(), 4)
    states = [alone.snapshot().state, text.snapshot().state]
    last = expected[-1]
    assert isinstance(plain.network, HybridNetwork)
    from model.network import Work

    first = int(text.snapshot().logits.argmax())  # type: ignore[union-attr]
    assert first == wanted[0]
    joined = plain.network.run([Work([last], states[0]), Work([first], states[1])])
    for one, state, token in zip(joined, states, (last, first), strict=True):
        single, _ = scheduler.forward([token], state)
        assert one[0] is not None
        assert torch.equal(one[0], single)


def _state(session: Session) -> dict[str, torch.Tensor]:
    return session.snapshot().state.tensors()


def test_a_picture_is_encoded_once(sighted: Sighted) -> None:
    eyes = sighted.engine.eyes
    assert eyes is not None
    ids = sighted.prompt((77, 55))
    before = eyes.encoded
    for _ in range(3):
        sighted.engine.session().extend(ids)
    assert eyes.encoded == before + 1


def test_what_is_no_whole_picture_is_refused(sighted: Sighted) -> None:
    ids = sighted.prompt((200, 70))
    first = next(at for at, i in enumerate(ids) if i < 0)
    last = max(at for at, i in enumerate(ids) if i < 0)
    session = sighted.engine.session()
    for wrong in (ids[:last], ids[first + 1 :], [ids[first] - 1, *ids[first + 1 :]], [-(2**31)]):
        with pytest.raises(ValueError, match="picture"):
            session.extend(wrong)
    assert session.length == 0
    strange = [i - (5 << 14) * (i < 0) if n % 16 == 3 else i for n, i in enumerate(ids)]
    with pytest.raises((PictureError, ValueError)):
        session.extend(strange)


def test_two_pictures_of_one_size_have_different_ids(sighted: Sighted) -> None:
    eyes = sighted.engine.eyes
    assert eyes is not None
    one, two = (eyes.take(read_picture(png(64, 64, seed=n))) for n in (1, 2))
    assert len(one) == len(two)
    assert not set(one) & set(two)
    assert placeholders(one, PAD) == placeholders(two, PAD)
