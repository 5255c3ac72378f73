"""Rotary embedding against transformers, for text and for three different positions."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen3_5TextConfig
from transformers.models.qwen3_5 import modeling_qwen3_5

from kernels.rope import frequencies, rope, tables

SECTION = (11, 11, 10)


def by_transformers(positions: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    config = Qwen3_5TextConfig(
        head_dim=256,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 1e7,
            "partial_rotary_factor": 0.25,
            "mrope_section": list(SECTION),
        },
    )
    rotary = modeling_qwen3_5.Qwen3_5TextRotaryEmbedding(config)
    cos, sin = rotary(x, positions.unsqueeze(1))
    turned, _ = modeling_qwen3_5.apply_rotary_pos_emb(x, x, cos, sin, unsqueeze_dim=2)
    return turned


@pytest.mark.parametrize("text", [True, False])
def test_equals_transformers(text: bool) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 9, 3, 256, generator=g)
    positions = torch.arange(1000, 1009).expand(3, -1)
    if not text:
        positions = torch.randint(0, 5000, (3, 9), generator=g)
    got = rope(x, *tables(positions, *frequencies(64, 1e7, SECTION)))
    torch.testing.assert_close(got, by_transformers(positions, x), atol=1e-5, rtol=0)


def test_text_is_plain_rope_whatever_the_sections() -> None:
    x = torch.randn(1, 4, 2, 32, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(4).expand(3, -1)
    one, other = (
        rope(x, *tables(positions, *frequencies(16, 1e4, section)))
        for section in ((3, 3, 2), (8, 0, 0))
    )
    assert torch.equal(one, other)
    assert torch.equal(one[..., 16:], x[..., 16:])
    assert torch.equal(one[:, 0], x[:, 0])


def test_scores_depend_on_distance_only() -> None:
    g = torch.Generator().manual_seed(2)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=g)
    speed_axis = frequencies(16, 1e4, SECTION)

    def score(at_q: int, at_k: int) -> torch.Tensor:
        turned = [
            rope(x, *tables(torch.full((3, 1), at), *speed_axis))
            for x, at in ((q, at_q), (k, at_k))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score(7, 3), score(104, 100), atol=1e-4, rtol=0)
    assert not torch.allclose(score(7, 3), score(7, 4), atol=1e-3)
