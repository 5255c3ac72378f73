"""Stored forms of a matrix: the values their makers give them, and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.linear import plain
from model.checkpoint.forms import StoredModule, identify
from model.checkpoint.stored import StoredTensor
from model.errors import CheckpointError
from tests.support.stored_forms import FORMS, Parts, gptq, mlx, packed

KINDS = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.int32: "I32",
    torch.uint32: "U32",
    torch.int64: "I64",
}


def module(parts: Parts, shape: tuple[int, ...], **more: object) -> StoredModule:
    kinds = {name: KINDS[part.dtype] for name, part in parts.items()}
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    return StoredModule("m.weight", shape, kinds, shapes, parts.__getitem__, **more)  # type: ignore[arg-type]


def matrix(outputs: int, inputs: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (torch.randn(outputs, inputs, generator=g) * 0.05).bfloat16()


def equal(stored: StoredTensor, values: Tensor) -> None:
    """The values are equal once rounded as the maker gives them, and in float32."""
    own = values.dtype if values.dtype == torch.bfloat16 else torch.float32
    assert torch.equal(stored.read().to(own), values.to(own))
    assert torch.equal(stored.read(torch.bfloat16), stored.read().bfloat16())


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("shape", [(64, 256), (272, 384)])
def test_the_values_are_those_of_the_maker(name: str, shape: tuple[int, int]) -> None:
    parts, values = FORMS[name](matrix(*shape))
    stored = identify(module(parts, shape))
    equal(stored, values)
    assert stored.nbytes < 0.8 * 2 * shape[0] * shape[1]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_the_values_for_any_shape(name: str, rows: int, groups: int, seed: int) -> None:
    shape = (rows * 16, groups * 128)
    parts, values = FORMS[name](matrix(*shape, seed))
    equal(identify(module(parts, shape)), values)


@pytest.mark.parametrize("name", FORMS)
def test_what_stays_integers_keeps_its_values(name: str) -> None:
    shape = (80, 256)
    parts, _ = FORMS[name](matrix(*shape))
    stored = identify(module(parts, shape))
    kept = stored.weight()
    assert (kept is None) == (stored.plain is not None or "reordered" in stored.form)
    if kept is not None:
        assert torch.equal(plain(kept, torch.float32), stored.read())
        assert kept.nbytes < 1.01 * 80 * 256 * (
            0.8 if "int4" in stored.form or "fp4" in stored.form else 1.13
        )


@pytest.mark.parametrize("name", FORMS)
def test_a_part_that_is_missing_or_of_another_shape_is_named(name: str) -> None:
    shape = (64, 256)
    parts, _ = FORMS[name](matrix(*shape))
    optional = {"g_idx", "weight_g_idx", "input_scale", "weight_zero_point"}
    if "reordered" in name or "asymmetric" in name or "shape" in name:
        optional |= {"weight_shape"}
    for missing in parts.keys() - optional:
        left = {key: part for key, part in parts.items() if key != missing}
        if missing == "weight_global_scale" or (name, missing) == ("MLX nvfp4", "biases"):
            continue
        with pytest.raises(CheckpointError, match=r"m\.weight") as caught:
            identify(module(left, shape)).read()
        assert "\n" not in str(caught.value)
    for spoilt in parts.keys() - {"input_scale"}:
        if parts[spoilt].numel() < 2:
            continue
        bad = parts | {spoilt: torch.cat([parts[spoilt], parts[spoilt][:1]])}
        with pytest.raises(CheckpointError, match=r"m\.weight"):
            identify(module(bad, shape)).read()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8, torch.int32])
def test_numbers_that_need_a_scale_are_never_taken_without(dtype: torch.dtype) -> None:
    with pytest.raises(CheckpointError, match=r"m\.weight .*not supported.*without its scale"):
        identify(module({"weight": torch.zeros(64, 256).to(dtype)}, (64, 256)))


@pytest.mark.parametrize("suffix", ["weight_scale", "weight_scale_inv", "scales", "weight_odd"])
def test_a_scale_is_never_ignored(suffix: str) -> None:
    parts = {"weight": matrix(64, 256), suffix: torch.ones(64, 1)}
    with pytest.raises(CheckpointError, match=suffix):
        identify(module(parts, (64, 256)))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["int4 g32", "fp8 official", "GPTQ int4", "MLX 4", "nvfp4"])
def test_scales_that_are_no_numbers_are_refused(name: str, bad: float) -> None:
    parts, _ = FORMS[name](matrix(64, 256))
    suffix = next(s for s in ("weight_scale", "weight_scale_inv", "scales") if s in parts)
    parts[suffix] = parts[suffix].clone()
    parts[suffix].view(-1)[1] = float("nan") if name == "nvfp4" else bad
    with pytest.raises(CheckpointError, match=rf"{suffix} of m\.weight holds NaN or infinity"):
        identify(module(parts, (64, 256)))


def test_numbers_of_fp8_that_are_nan_are_refused() -> None:
    parts, _ = FORMS["fp8 official"](matrix(64, 256))
    parts["weight"].view(torch.uint8)[3, 5] = 0x7F
    with pytest.raises(CheckpointError, match=r"m\.weight holds NaN"):
        identify(module(parts, (64, 256))).read()


@pytest.mark.parametrize("bad", [-1, 2])
def test_groups_out_of_range_are_refused(bad: int) -> None:
    parts, _ = gptq(4, 128, shuffled=True)(matrix(64, 256))
    parts["g_idx"][7] = bad
    with pytest.raises(CheckpointError, match=r"g_idx of m\.weight names a group outside 0 to 1"):
        identify(module(parts, (64, 256)))


def test_zero_points_of_the_newer_gptq_form_are_taken_as_they_are() -> None:
    parts, values = gptq(4, 32, asymmetric=True, stored=0)(matrix(64, 256))
    equal(identify(module(parts, (64, 256), minus_one=False)), values)


def test_a_bias_is_refused_unless_it_is_zero() -> None:
    parts, values = gptq(4, 32)(matrix(64, 256))
    equal(identify(module({**parts, "bias": torch.zeros(64)}, (64, 256))), values)
    with pytest.raises(CheckpointError, match="has a bias"):
        identify(module({**parts, "bias": torch.ones(64)}, (64, 256)))


@pytest.mark.parametrize("write", [packed(4, 32), mlx(4, 32)])
def test_a_shape_that_is_no_multiple_of_the_group_is_refused(write: object) -> None:
    parts, _ = write(matrix(64, 256))  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=r"m\.weight"):
        identify(module(parts, (64, 248)))
