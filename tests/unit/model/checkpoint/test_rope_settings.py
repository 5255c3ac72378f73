"""YaRN: read, computed and asked for as transformers has it; what contradicts itself is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig
from transformers.models.qwen3_5 import modeling_qwen3_5

from kernels.rope import frequencies, tables
from model.checkpoint.config import ModelConfig
from model.checkpoint.rope_settings import read_rope, stretched
from model.engine import Engine
from model.errors import CheckpointError, MemoryFull
from model.state.pages import PAGE

SECTION = (11, 11, 10)
PLAIN: dict[str, Any] = {
    "rope_theta": 1e7,
    "partial_rotary_factor": 0.25,
    "mrope_section": list(SECTION),
}
TEXT: dict[str, Any] = {"head_dim": 256, "max_position_embeddings": 262_144}


def block(**more: Any) -> dict[str, Any]:
    """A YaRN block as the family's makers write it."""
    return PLAIN | {"rope_type": "yarn", "original_max_position_embeddings": 262_144} | more


@settings(max_examples=30, deadline=None)
@given(
    factor=st.sampled_from([1.0, 1.5, 2.0, 4.0]),
    more=st.fixed_dictionaries(
        {},
        optional={
            "attention_factor": st.sampled_from([None, 1.0, 1.3]),
            "beta_fast": st.sampled_from([32, 16.0]),
            "beta_slow": st.sampled_from([1, 2.0]),
            "mscale": st.sampled_from([0.7, 1.0]),
            "mscale_all_dim": st.sampled_from([0.5, 1.0]),
            "truncate": st.booleans(),
        },
    ),
    start=st.sampled_from([0, 5_000, 262_140, 1_009_990]),
)
def test_cosines_and_sines_equal_transformers(
    factor: float, more: dict[str, Any], start: int
) -> None:
    given_block = block(factor=factor, **more)
    theirs = modeling_qwen3_5.Qwen3_5TextRotaryEmbedding(
        Qwen3_5TextConfig(head_dim=256, rope_parameters=dict(given_block))
    )
    positions = torch.arange(start, start + 10).expand(3, -1)
    cos, sin = theirs(torch.zeros(1, 10, 1), positions.unsqueeze(1))
    ours = read_rope(TEXT | {"rope_parameters": given_block})
    speed, axis = frequencies(64, ours.theta, ours.section, ours.yarn)
    assert ours.yarn is not None
    got = tables(positions, speed, axis, ours.yarn.magnitude)
    for mine, wanted in zip(got, (cos, sin), strict=True):
        # The same float32 product: what is left is how an angle of a million turns is rounded.
        torch.testing.assert_close(mine, wanted[0, :, :32], atol=2e-4, rtol=0)


@pytest.mark.parametrize("native", [True, False])
def test_a_whole_model_equals_transformers_beyond_its_original_length(
    tmp_path: Path, tiny_checkpoint: Path, native: bool
) -> None:
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    text = config.get("text_config", config)
    text["rope_parameters"] = text["rope_parameters"] | {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    text["max_position_embeddings"] = 512
    wanted_config = Qwen3_5TextConfig(**{k: v for k, v in text.items() if k != "model_type"})
    torch.manual_seed(3)
    wanted = Qwen3_5ForCausalLM(wanted_config).eval().float()
    wanted.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["rope_parameters"]["factor"] == 4.0
    engine = Engine.load(tmp_path, name="t", dtype=torch.float32, native=native)
    assert engine.context_length == 512
    ids = [(i * 37) % 200 for i in range(500)]
    session = engine.session()
    session.extend(ids[:300])
    session.extend(ids[300:])
    with torch.inference_mode():
        logits = wanted(torch.tensor([ids])).logits[0, -1]
    found = session.snapshot().logits
    assert found is not None
    torch.testing.assert_close(found, logits[: len(found)], atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "longest"),
    [
        ({"factor": 4.0}, 1_048_576),
        ({"factor": 2.0}, 524_288),
        ({"factor": None, "original_max_position_embeddings": 65_536}, 262_144),
    ],
)
def test_the_context_is_as_long_as_the_block_makes_it(change: dict[str, Any], longest: int) -> None:
    assert read_rope(TEXT | {"rope_parameters": block(**change)}).context_length == longest


def test_a_length_that_the_factor_allows_stands() -> None:
    text = TEXT | {"max_position_embeddings": 1_010_000, "rope_parameters": block(factor=4.0)}
    assert read_rope(text).context_length == 1_010_000


def test_rope_scaling_stands_above_default_parameters() -> None:
    text = TEXT | {"rope_parameters": PLAIN | {"rope_type": "default"}}
    text["rope_scaling"] = {"type": "yarn", "factor": 2.0}
    found = read_rope(text)
    # As transformers: what the block does not say falls back to the family's defaults.
    assert (found.theta, found.context_length) == (10_000.0, 524_288)
    assert found.yarn is not None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "lacks factor"),
        ({"factor": 0.5}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"factor": 1e9}, "factor"),
        ({"factor": 2.0, "original_max_position_embeddings": 65_536}, "contradicts itself"),
        ({"factor": 2.0, "beta_fast": 1, "beta_slow": 32}, "beta_slow"),
        ({"factor": 2.0, "attention_factor": -1.0}, "attention_factor"),
        ({"factor": 2.0, "rope_type": "longrope"}, "longrope"),
    ],
)
def test_a_block_that_cannot_be_meant_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_rope(TEXT | {"rope_parameters": block(**change)})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_block_beside_the_text_configuration_is_told(tiny_checkpoint: Path) -> None:
    text = json.loads((tiny_checkpoint / "config.json").read_text())
    text = text.get("text_config", text)
    nested = {"model_type": "qwen3_5", "text_config": text}
    assert ModelConfig.from_dict(nested).note == ""
    found = ModelConfig.from_dict(nested | {"rope_scaling": {"type": "yarn", "factor": 4.0}})
    assert "rope_scaling beside text_config" in found.note
    assert found == ModelConfig.from_dict(nested)


def test_a_context_is_stretched_only_where_it_must() -> None:
    assert stretched(None, 262_144, 100_000) == (None, 100_000)
    assert stretched(None, 262_144, 262_144) == (None, 262_144)
    for wanted, factor in ((262_145, 2), (524_288, 2), (1_010_000, 4)):
        yarn, length = stretched(None, 262_144, wanted)
        assert yarn is not None
        assert (yarn.factor, length) == (factor, wanted)
    with pytest.raises(CheckpointError, match="at most 1,048,576"):
        stretched(None, 262_144, 2_000_000)
    yarn, _ = stretched(None, 1_000, 2_000)
    with pytest.raises(CheckpointError, match="at most 2,000"):
        stretched(yarn, 2_000, 2_001)


def test_a_longer_context_is_another_network_and_a_shorter_one_is_not(
    tiny_checkpoint: Path,
) -> None:
    plain = Engine.load(tiny_checkpoint, name="t")
    short = Engine.load(tiny_checkpoint, name="t", context=1_024)
    assert short.context_length == 1_024
    assert short.fingerprint == plain.fingerprint
    longer = Engine.load(tiny_checkpoint, name="t", context=2 * plain.context_length)
    assert longer.context_length == 2 * plain.context_length
    assert longer.fingerprint != plain.fingerprint
    sessions = [engine.session() for engine in (plain, longer)]
    for session in sessions:
        session.extend(range(50))
    first, second = (session.snapshot().logits for session in sessions)
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)


def test_a_context_that_memory_does_not_hold_is_refused_with_what_fits(
    tiny_checkpoint: Path,
) -> None:
    layout = Engine.load(tiny_checkpoint, name="t").network.layout  # type: ignore[attr-defined]
    limit = 2 * layout.slot_bytes + 5 * layout.page_bytes
    assert Engine.load(tiny_checkpoint, name="t", kv_memory=limit, context=5 * PAGE)
    with pytest.raises(MemoryFull, match=f"at most {5 * PAGE:,} tokens of t do"):
        Engine.load(tiny_checkpoint, name="t", kv_memory=limit, context=6 * PAGE, kv="bf16")


def test_auto_takes_int8_where_a_context_fits_no_other_way(tiny_checkpoint: Path) -> None:
    plain = Engine.load(tiny_checkpoint, name="t")
    layout = plain.network.layout  # type: ignore[attr-defined]
    assert plain.placement is not None
    assert (plain.placement.kv, plain.placement.kv_reason) == ("float32", "")
    limit = 2 * layout.slot_bytes + 5 * layout.page_bytes
    small = Engine.load(tiny_checkpoint, name="t", kv_memory=limit, context=6 * PAGE).placement
    assert small is not None
    assert small.kv == "int8"
    assert f"would hold {5 * PAGE:,} of the {6 * PAGE:,} tokens" in small.kv_reason
    assert "\n" not in small.kv_reason
    with pytest.raises(MemoryFull, match="tokens of t do"):
        Engine.load(tiny_checkpoint, name="t", kv_memory=limit, context=20 * PAGE)
