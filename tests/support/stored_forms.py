"""Write a matrix in the form of each maker, with the values that it then has.

compressed-tensors' forms come from that library. The others are written by their documented layouts
and read back here by plain numpy in float64, which shares no code with the product.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from torch import Tensor

Parts = dict[str, Tensor]
Written = tuple[Parts, Tensor]
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1 = np.concatenate([E2M1, -E2M1])


def _compressed(form: str, weight: Tensor, scales: Parts, **arguments: object) -> Written:
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**arguments))
    tool = BaseCompressor.get_value_from_registry(CompressionFormat(form).value)
    parts = tool.compress({"weight": weight, **scales}, scheme)
    values = tool.decompress(dict(parts), scheme)["weight"]
    return {k: v.contiguous() for k, v in parts.items() if v is not None}, values


def _ranges(weight: Tensor, group: int, levels: int) -> Tensor:
    grouped = weight.float().reshape(len(weight), -1, group)
    return (grouped.abs().amax(-1) / levels).clamp(min=1e-6).bfloat16().to(weight.dtype)


def packed(bits: int, group: int, asymmetric: bool = False) -> Callable[[Tensor], Written]:
    def write(weight: Tensor) -> Written:
        size = group or weight.shape[1]
        scales: Parts = {"weight_scale": _ranges(weight, size, (1 << bits - 1) - 1)}
        if asymmetric:
            g = torch.Generator().manual_seed(1)
            low, high = -(1 << bits - 1), 1 << bits - 1
            shape = scales["weight_scale"].shape
            scales["weight_zero_point"] = torch.randint(
                low, high, shape, generator=g, dtype=torch.int8
            )
        how = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
        return _compressed(
            "pack-quantized", weight, scales, num_bits=bits, symmetric=not asymmetric, **how
        )

    return write


def reordered(bits: int, group: int) -> Callable[[Tensor], Written]:
    """As compressed-tensors packs weights in the order of activations, with ``weight_g_idx``."""

    def write(weight: Tensor) -> Written:
        parts, plain = packed(bits, group)(weight)
        g = torch.Generator().manual_seed(2)
        order = (torch.randperm(weight.shape[1], generator=g) // group).int()
        by = parts["weight_scale"].float().repeat_interleave(group, dim=1)
        return {**parts, "weight_g_idx": order}, (plain.float() / by).round() * parts[
            "weight_scale"
        ].float()[:, order.long()]

    return write


def int8_rows(weight: Tensor) -> Written:
    scales = {"weight_scale": _ranges(weight, weight.shape[1], 127)}
    return _compressed("int-quantized", weight, scales, num_bits=8, strategy="channel")


def fp8_rows(weight: Tensor) -> Written:
    scales = {"weight_scale": _ranges(weight, weight.shape[1], 448)}
    return _compressed(
        "float-quantized", weight, scales, num_bits=8, type="float", strategy="channel"
    )


def nvfp4(weight: Tensor) -> Written:
    whole = torch.tensor([448 * 6 / float(weight.abs().max())])
    scales = (weight.float().reshape(len(weight), -1, 16).abs().amax(-1) / 6 * whole).clamp(0.02)
    parts, values = _compressed(
        "nvfp4-pack-quantized",
        weight,
        {"weight_scale": scales, "weight_global_scale": whole},
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
    )
    if weight.dtype == torch.float32:  # the library rounds what it gives to bfloat16
        by = (parts["weight_scale"].float() / whole).double().numpy()
        values = torch.from_numpy(E2M1[_pairs(parts["weight_packed"].numpy())] * by.repeat(16, 1))
    return parts, values


def mxfp4(weight: Tensor) -> Written:
    top = weight.float().reshape(len(weight), -1, 32).abs().amax(-1)
    scales = {"weight_scale": torch.exp2(torch.floor(torch.log2(top)) - 2).to(weight.dtype)}
    return _compressed(
        "mxfp4-pack-quantized",
        weight,
        scales,
        num_bits=4,
        type="float",
        strategy="group",
        group_size=32,
    )


def fp8_blocks(suffix: str, dimensions: int = 2) -> Callable[[Tensor], Written]:
    """Write e4m3 numbers with a scale for each 128 x 128 (``dimensions`` 4: as ModelOpt does)."""

    def write(weight: Tensor) -> Written:
        outputs, inputs = weight.shape
        high, wide = -(-outputs // 128), -(-inputs // 128)
        g = torch.Generator().manual_seed(3)
        scales = (torch.rand(high, wide, generator=g) * 0.01 + 1e-4).bfloat16()
        spread = scales.repeat_interleave(128, 0).repeat_interleave(128, 1)[:outputs, :inputs]
        numbers = (weight.float() / spread.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
        values = _e4m3(numbers) * spread.double().numpy()
        if dimensions == 4:
            scales = scales.float().reshape(high, 1, wide, 1)
        return {"weight": numbers, suffix: scales}, torch.from_numpy(values)

    return write


def fp8_tensor(weight: Tensor) -> Written:
    scale = torch.tensor(float(weight.abs().max()) / 448)
    numbers = (weight.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    values = torch.from_numpy(_e4m3(numbers) * float(scale))
    return {"weight": numbers, "weight_scale": scale, "input_scale": torch.tensor(1.0)}, values


def modelopt_nvfp4(weight: Tensor) -> Written:
    parts, _ = nvfp4(weight)
    whole = 1 / parts["weight_global_scale"].reshape(())
    octets = parts["weight_packed"].numpy()
    # The maker multiplies the two scales in float32.
    by = (parts["weight_scale"].float() * whole).double().numpy()
    values = E2M1[_pairs(octets)] * np.repeat(by, 16, 1)
    made = {"weight": parts["weight_packed"], "weight_scale": parts["weight_scale"]}
    return {**made, "weight_scale_2": whole, "input_scale": torch.tensor(1.0)}, torch.from_numpy(
        values
    )


def gptq(
    bits: int, group: int, *, asymmetric: bool = False, shuffled: bool = False, stored: int = 1
) -> Callable[[Tensor], Written]:
    """Write GPTQ's packing; ``stored`` is what its version takes from each zero point."""

    def write(weight: Tensor) -> Written:
        outputs, inputs = weight.shape
        random = np.random.default_rng(4)
        half, groups = 1 << bits - 1, inputs // group
        codes = random.integers(0, 2 * half, (inputs, outputs))
        zeros = np.full((groups, outputs), half)
        if asymmetric:
            zeros = random.integers(1, 2 * half, (groups, outputs))
        scales = torch.from_numpy(random.uniform(1e-3, 1e-2, (groups, outputs))).half()
        index = np.arange(inputs) // group
        if shuffled:
            index = random.permutation(index)
        parts = {
            "qweight": torch.from_numpy(_words(codes.T, bits).T.copy()),
            "qzeros": torch.from_numpy(_words(zeros - stored, bits)),
            "scales": scales,
            "g_idx": torch.from_numpy(index.astype(np.int32)),
        }
        values = ((codes - zeros[index]) * scales.double().numpy()[index]).T
        return parts, torch.from_numpy(np.ascontiguousarray(values))

    return write


def awq(group: int) -> Callable[[Tensor], Written]:
    def write(weight: Tensor) -> Written:
        outputs, inputs = weight.shape
        random = np.random.default_rng(5)
        codes = random.integers(0, 16, (inputs, outputs))
        zeros = random.integers(0, 16, (inputs // group, outputs))
        scales = torch.from_numpy(random.uniform(1e-3, 1e-2, zeros.shape)).half()

        def words(numbers: np.ndarray) -> Tensor:
            turned = numbers.reshape(len(numbers), -1, 8)[:, :, [0, 2, 4, 6, 1, 3, 5, 7]]
            return torch.from_numpy(_words(turned.reshape(len(numbers), -1), 4))

        index = np.arange(inputs) // group
        values = ((codes - zeros[index]) * scales.double().numpy()[index]).T
        parts = {"qweight": words(codes), "qzeros": words(zeros), "scales": scales}
        return parts, torch.from_numpy(np.ascontiguousarray(values))

    return write


def mlx(bits: int, group: int) -> Callable[[Tensor], Written]:
    """Write MLX's affine form: a row is one string of bits."""

    def write(weight: Tensor) -> Written:
        outputs, inputs = weight.shape
        random = np.random.default_rng(6)
        codes = random.integers(0, 1 << bits, (outputs, inputs))
        shape = (outputs, inputs // group)
        scales = torch.from_numpy(random.uniform(1e-3, 1e-2, shape)).bfloat16()
        biases = torch.from_numpy(random.uniform(-0.1, 0.1, shape)).bfloat16()
        string = (codes[..., None] >> np.arange(bits) & 1).astype(np.uint8)
        octets = np.packbits(string.reshape(outputs, -1), axis=1, bitorder="little")
        words = torch.from_numpy(octets.view(np.uint32).view(np.int32)).view(torch.uint32)
        by, term = (np.repeat(t.double().numpy(), group, 1) for t in (scales, biases))
        parts = {"weight": words, "scales": scales, "biases": biases}
        return parts, torch.from_numpy(codes * by + term)

    return write


def mlx_float4(group: int) -> Callable[[Tensor], Written]:
    """Write MLX's mxfp4 (groups of 32) or nvfp4 (groups of 16)."""

    def write(weight: Tensor) -> Written:
        outputs, inputs = weight.shape
        random = np.random.default_rng(7)
        octets = random.integers(0, 256, (outputs, inputs // 2)).astype(np.uint8)
        raw = random.integers(110, 125, (outputs, inputs // group)).astype(np.uint8)
        if group == 16:
            raw = random.integers(1, 120, raw.shape).astype(np.uint8)
            by = _e4m3(torch.from_numpy(raw).view(torch.float8_e4m3fn))
        else:
            by = 2.0 ** (raw.astype(float) - 127)
        values = E2M1[_pairs(octets)] * np.repeat(by, group, 1)
        words = torch.from_numpy(octets.view(np.uint32).view(np.int32)).view(torch.uint32)
        return {"weight": words, "scales": torch.from_numpy(raw)}, torch.from_numpy(values)

    return write


FORMS: dict[str, Callable[[Tensor], Written]] = {
    "int4 g32": packed(4, 32),
    "int4 g64": packed(4, 64),
    "int4 g128": packed(4, 128),
    "int4 by row": packed(4, 0),
    "int4 g32 asymmetric": packed(4, 32, asymmetric=True),
    "int4 by row asymmetric": packed(4, 0, asymmetric=True),
    "int8 g128": packed(8, 128),
    "int8 g64 asymmetric": packed(8, 64, asymmetric=True),
    "int4 g32 reordered": reordered(4, 32),
    "int8 by row": int8_rows,
    "fp8 by row": fp8_rows,
    "fp8 official": fp8_blocks("weight_scale_inv"),
    "fp8 blocks": fp8_blocks("weight_scale"),
    "fp8 ModelOpt blocks": fp8_blocks("weight_scale", 4),
    "fp8 ModelOpt": fp8_tensor,
    "nvfp4": nvfp4,
    "nvfp4 ModelOpt": modelopt_nvfp4,
    "mxfp4": mxfp4,
    "GPTQ int4": gptq(4, 128),
    "GPTQ int8": gptq(8, 64),
    "GPTQ int4 as is": gptq(4, 32, stored=0),
    "GPTQ int4 asymmetric": gptq(4, 32, asymmetric=True),
    "GPTQ int4 desc_act": gptq(4, 64, shuffled=True),
    "AWQ": awq(128),
    "MLX 2": mlx(2, 64),
    "MLX 3": mlx(3, 64),
    "MLX 4": mlx(4, 64),
    "MLX 5": mlx(5, 32),
    "MLX 6": mlx(6, 128),
    "MLX 8": mlx(8, 32),
    "MLX mxfp4": mlx_float4(32),
    "MLX nvfp4": mlx_float4(16),
}
"""Every form by a name of its own: a function from a matrix to its parts and values."""


def _e4m3(numbers: Tensor) -> np.ndarray:
    raw = numbers.view(torch.uint8).numpy().astype(int)
    e, m = raw >> 3 & 15, raw & 7
    value = np.where(e == 0, m * 2.0**-9, (8 + m) * 2.0 ** (e - 10.0))
    return np.where(raw >> 7, -1.0, 1.0) * np.where((raw & 127) == 127, np.nan, value)


def _pairs(octets: np.ndarray) -> np.ndarray:
    wide = octets.astype(int)
    return np.stack([wide & 15, wide >> 4], -1).reshape(*wide.shape[:-1], -1)


def _words(numbers: np.ndarray, bits: int) -> np.ndarray:
    """Pack rows of unsigned numbers into int32 words, the lowest first."""
    per = 32 // bits
    fields = numbers.astype(np.uint32).reshape(len(numbers), -1, per)
    words = (fields << np.arange(0, 32, bits, dtype=np.uint32)).sum(-1, dtype=np.uint32)
    return np.ascontiguousarray(words).view(np.int32)
