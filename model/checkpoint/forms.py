"""The forms in which safetensors checkpoints store a matrix, told apart by the tensors present.

The layouts are those that the makers' own tools write: compressed-tensors 0.20, transformers' FP8,
NVIDIA ModelOpt 0.47, GPTQ and AutoRound 0.16, AutoAWQ 0.2.9, MLX 0.32. Configurations are known to
say the wrong thing, so they are asked for nothing but the zero point of GPTQ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.fp8_linear import Fp8Weight
from kernels.linear import INT4, INT8, Code, Part
from kernels.linear.ggml import E2M1
from model.checkpoint.stored import Coded, StoredTensor
from model.errors import CheckpointError

FLOATS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_FP8 = ("F8_E4M3",)
_KINDS = {"I8": "int8", "U8": "uint8", "I32": "int32", "U32": "uint32", "I64": "int64"}
_KINDS |= {"F8_E4M3": "float8 e4m3", "F8_E5M2": "float8 e5m2", "F8_E8M0": "float8 e8m0"} | FLOATS
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""The place in a word of each of eight neighbouring outputs."""
ACTIVATIONS = frozenset(
    {"input_scale", "input_global_scale", "input_zero_point", "output_scale", "k_scale", "v_scale"}
)
"""Tensors for rounding activations and the cache, which weights do not need."""


@dataclass(frozen=True)
class StoredModule:
    """The stored tensors of one matrix: ``kinds`` and ``shapes`` by suffix, and how to map them.

    ``shape`` is that of the matrix; ``minus_one`` tells whether GPTQ zero points are stored less
    one where they do not show it themselves.
    """

    name: str
    shape: tuple[int, ...]
    kinds: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    load: Callable[[str], Tensor]
    minus_one: bool = True

    def need(self, suffix: str, *shapes: tuple[int, ...]) -> Tensor:
        """Map a part that must have one of ``shapes``. Raises ``CheckpointError``."""
        if suffix not in self.kinds:
            raise CheckpointError(f"{self.name} lacks its {suffix}; fetch the checkpoint again")
        if shapes and self.shapes[suffix] not in shapes:
            wanted = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
            found = list(self.shapes[suffix])
            raise CheckpointError(f"{suffix} of {self.name} has shape {found}; it must be {wanted}")
        return self.load(suffix)

    def scales(self, suffix: str, *shapes: tuple[int, ...]) -> Tensor:
        """Map scales as float32; raise if one is NaN or infinite."""
        found = self.need(suffix, *shapes).float()
        if not bool(torch.isfinite(found).all()):
            raise CheckpointError(f"{suffix} of {self.name} holds NaN or infinity; fetch it again")
        return found

    def stored(self, form: str, parts: tuple[str, ...], **ways: object) -> StoredTensor:
        """Return the matrix with the named parts."""
        held = {suffix: self.load(suffix) for suffix in parts}
        return StoredTensor(self.name, form, self.shape, held, **ways)  # type: ignore[arg-type]


def identify(module: StoredModule) -> StoredTensor:
    """Tell the form of a matrix by its parts and return it, ready to read.

    Raises ``CheckpointError`` if a part is missing, left over, or of a wrong shape, or the form is
    not supported. A number that needs a scale is never taken without it, and a scale never left.
    """
    parts = set(module.kinds) - ACTIVATIONS
    if "bias" in parts:
        parts.discard("bias")
        if bool(module.load("bias").float().ne(0).any()):
            raise CheckpointError(f"{module.name} has a bias, which this architecture does not")
    for required, optional, reader in _FORMS:
        if required <= parts and parts <= required | optional:
            found = reader(module)
            if found is not None:
                return found
    kinds = ", ".join(
        f"{suffix} ({_KINDS.get(module.kinds[suffix], module.kinds[suffix])})"
        for suffix in sorted(parts)
    )
    hint = ""
    if parts == {"weight"}:
        hint = " without its scale"
    elif not parts & {"weight", "weight_packed", "qweight"}:
        raise CheckpointError(f"the checkpoint lacks the tensor {module.name}; fetch it again")
    raise CheckpointError(
        f"{module.name} is stored in a form that is not supported: {kinds}{hint};"
        " use another quantisation of the model, or fetch it again"
    )


def _plain(module: StoredModule) -> StoredTensor | None:
    kind = module.kinds["weight"]
    if kind not in FLOATS:
        return None
    tensor = module.need("weight", module.shape)
    return StoredTensor(module.name, FLOATS[kind], module.shape, {"weight": tensor}, tensor)


def _scaled(module: StoredModule) -> StoredTensor | None:
    """Read a matrix of FP8 or int8 numbers with a scale a tensor, row, or block."""
    suffix = "weight_scale_inv" if "weight_scale_inv" in module.kinds else "weight_scale"
    kind = module.kinds["weight"]
    if kind in _FP8:
        return _fp8(module, suffix)
    if kind != "I8" or suffix != "weight_scale":
        return None
    outputs, inputs = module.shape
    codes = module.need("weight", module.shape)
    rows = (outputs, 1)
    groups = module.shapes[suffix][-1] if len(module.shapes[suffix]) == 2 else 1
    shapes = [rows, (outputs,), (1,), ()]
    if groups and inputs % groups == 0:
        shapes.append((outputs, groups))
    scales = module.scales(suffix, *shapes)
    scales = scales.reshape(outputs, -1) if scales.numel() > 1 else scales.expand(outputs, 1)
    zero = None
    if "weight_zero_point" in module.kinds:
        zero = module.need("weight_zero_point", *shapes).to(torch.int16).reshape(-1, 1)
        zero = zero.expand(outputs, scales.shape[1])

    def coded(first: int, last: int) -> Coded:
        got = codes[first:last].to(torch.int16)
        if zero is not None:
            got = got - _spread(zero[first:last], inputs)
        return Coded(got, scales[first:last].clone())

    form = "int8" + ("" if scales.shape[1] == 1 else f" g{inputs // scales.shape[1]}")
    ways: dict[str, object] = {"coded": coded, "code": INT8}
    if zero is not None:
        ways = _with_zero(
            lambda f, last: codes[f:last].to(torch.int16) + 128, zero + 128, scales, 8
        )
    return module.stored(form, tuple(module.kinds), **ways)


def _fp8(module: StoredModule, suffix: str) -> StoredTensor:
    outputs, inputs = module.shape
    numbers = module.need("weight", module.shape)
    given = module.shapes[suffix]
    flat = tuple(n for n in given if n != 1) if len(given) == 4 else given
    if len(given) == 4 and len(flat) < 2:
        flat = (given[0], given[2])
    high, wide = -(-outputs // 128), -(-inputs // 128)
    scales = module.scales(suffix)
    if scales.numel() == 1:
        blocks, height, width, form = scales.reshape(1, 1), outputs, inputs, "fp8"
    elif flat == (high, wide):
        blocks, height, width, form = scales.reshape(high, wide), 128, 128, "fp8 128x128"
    elif flat in ((outputs, 1), (outputs,)):
        blocks, height, width, form = scales.reshape(-1, 1), 1, inputs, "fp8 by row"
    else:
        raise CheckpointError(
            f"{suffix} of {module.name} has shape {list(given)}; it must be [1], [{outputs}, 1] or"
            f" [{high}, {wide}]"
        )

    def rows(first: int, last: int) -> Tensor:
        by = blocks[torch.arange(first, last) // height]
        got = numbers[first:last].float()
        if not bool(torch.isfinite(got).all()):
            raise CheckpointError(f"{module.name} holds NaN; fetch the checkpoint again")
        return got * by.repeat_interleave(width, dim=1)[:, :inputs]

    def held() -> Part | None:
        if bool(((numbers.view(torch.uint8) & 127) == 127).any()):
            raise CheckpointError(f"{module.name} holds NaN; fetch the checkpoint again")
        if inputs % 128:
            return None
        by = blocks.expand(high if blocks.numel() == 1 else -1, wide)
        return Fp8Weight(numbers.view(torch.uint8), by.contiguous())

    return module.stored(form, ("weight", suffix), rows=rows, held=held)


def _packed(module: StoredModule) -> StoredTensor | None:
    """Read compressed-tensors' integers of 4 or 8 bits in words of 32."""
    if module.kinds["weight_packed"] != "I32":
        return None
    outputs, inputs = module.shape
    words = module.shapes["weight_packed"][-1]
    bits = next((b for b in (4, 8) if -(-inputs * b // 32) == words), 0)
    if not bits:
        raise CheckpointError(
            f"weight_packed of {module.name} has {words} words a row for {inputs} inputs; only 4"
            " and 8 bits are supported"
        )
    held = module.need("weight_packed", (outputs, words))
    if module.need("weight_shape", (2,)).tolist() != [outputs, inputs]:
        raise CheckpointError(f"weight_shape of {module.name} is not {[outputs, inputs]}")
    groups = module.shapes.get("weight_scale", (0, 0))[-1]
    if not groups or inputs % groups:
        raise CheckpointError(f"{groups} scales of {module.name} do not divide {inputs} inputs")
    scales = module.scales("weight_scale", (outputs, groups))
    half = 1 << bits - 1
    zero = None
    if "weight_zero_point" in module.kinds:
        packed = module.need("weight_zero_point", (-(-outputs * bits // 32), groups))
        zero = _fields(packed.T.contiguous(), bits)[:, :outputs].T - half
    order = _group_index(module, "weight_g_idx", inputs, groups)

    def codes(first: int, last: int) -> Tensor:
        return _fields(held[first:last], bits)[:, :inputs]

    def coded(first: int, last: int) -> Coded:
        return Coded((codes(first, last) - half).to(torch.int16), scales[first:last].clone())

    def rows(first: int, last: int) -> Tensor:
        assert order is not None
        got = (_fields(held[first:last], bits)[:, :inputs] - half).float()
        if zero is not None:
            got -= zero[first:last][:, order]
        return got * scales[first:last][:, order]

    form = f"int{bits} g{inputs // groups}{'' if zero is None else ' asymmetric'}"
    parts = tuple(set(module.kinds) - ACTIVATIONS)
    if order is not None:
        return module.stored(form + " reordered", parts, rows=rows)
    if zero is not None:
        return module.stored(form, parts, **_with_zero(codes, zero + half, scales, bits))
    return module.stored(form, parts, coded=coded, code=Code(bits, half))


def _float4(module: StoredModule) -> StoredTensor | None:
    """Read E2M1 numbers in pairs: NVFP4 of compressed-tensors and ModelOpt, and MXFP4."""
    suffix = "weight_packed" if "weight_packed" in module.kinds else "weight"
    if module.kinds[suffix] != "U8":
        return None
    outputs, inputs = module.shape
    held = module.need(suffix, (outputs, inputs // 2))
    micro = not {"weight_global_scale", "weight_scale_2"} & set(module.kinds)
    group = 32 if micro else 16
    by = module.need("weight_scale", (outputs, inputs // group))
    if micro:
        if module.kinds["weight_scale"] not in ("U8", "F8_E8M0"):
            return None
        scales = _powers(by, module.name)
    else:
        scales = module.scales("weight_scale")
        if "weight_scale_2" in module.kinds:
            scales = scales * module.scales("weight_scale_2", (), (1,)).reshape(())
        else:
            whole = module.scales("weight_global_scale", (), (1,)).reshape(())
            if not float(whole):
                raise CheckpointError(f"weight_global_scale of {module.name} is 0; fetch it again")
            scales = scales / whole
    form = "mxfp4" if micro else "nvfp4"
    return module.stored(form, tuple(module.kinds), coded=_doubled(held, scales), code=E2M1)


def _gptq(module: StoredModule) -> StoredTensor | None:
    """Read GPTQ's packing (inputs in words) or AutoAWQ's (outputs in words)."""
    outputs, inputs = module.shape
    high, wide = module.shapes["qweight"]
    if high == inputs:
        return _awq(module)
    bits = next((b for b in (2, 4, 8) if inputs * b == high * 32 and wide == outputs), 0)
    if not bits:
        raise CheckpointError(
            f"qweight of {module.name} has shape {[high, wide]}, which is none of 2, 4 or 8 bits"
            f" for {[outputs, inputs]}; use another quantisation of the model"
        )
    groups = module.shapes.get("scales", (0,))[0]
    if not groups or inputs % groups:
        raise CheckpointError(f"{groups} scales of {module.name} do not divide {inputs} inputs")
    held = module.need("qweight")
    scales = module.scales("scales", (groups, outputs))
    zero = _fields(module.need("qzeros", (groups, -(-outputs * bits // 32))), bits)[:, :outputs]
    half = 1 << bits - 1
    same = bool((zero == zero.flatten()[0]).all())
    first_zero = int(zero.flatten()[0])
    minus_one = first_zero == half - 1 if same and first_zero in (half - 1, half) else None
    zero = zero + (module.minus_one if minus_one is None else minus_one)
    order = _group_index(module, "g_idx", inputs, groups)
    if order is not None and torch.equal(order, torch.arange(inputs) // (inputs // groups)):
        order = None

    def integers(first: int, last: int) -> Tensor:
        return _fields(held[:, first:last].T.contiguous(), bits)

    def coded(first: int, last: int) -> Coded:
        got = integers(first, last) - half
        return Coded(got.to(torch.int16), scales[:, first:last].T.contiguous())

    def rows(first: int, last: int) -> Tensor:
        assert order is not None
        got = integers(first, last) - zero[:, first:last].T[:, order]
        return got.float() * scales[:, first:last].T[:, order]

    symmetric = same and int(zero.flatten()[0]) == half
    form = f"int{bits} g{inputs // groups} GPTQ{'' if symmetric else ' asymmetric'}"
    parts = tuple(set(module.kinds) - ACTIVATIONS - {"bias"})
    if order is not None:
        return module.stored(form + " reordered", parts, rows=rows)
    if not symmetric:
        return module.stored(form, parts, **_with_zero(integers, zero.T, scales.T, bits))
    return module.stored(form, parts, coded=coded, code=INT8 if bits == 8 else INT4)


def _awq(module: StoredModule) -> StoredTensor:
    outputs, inputs = module.shape
    held = module.need("qweight", (inputs, outputs // 8))
    groups = module.shapes.get("scales", (0,))[0]
    if not groups or inputs % groups or outputs % 8:
        raise CheckpointError(f"{groups} scales of {module.name} do not divide {inputs} inputs")
    scales = module.scales("scales", (groups, outputs))
    order = torch.tensor(_AWQ_ORDER)

    def outs(words: Tensor) -> Tensor:
        fields = _fields(words.contiguous(), 4)
        return fields.reshape(len(words), -1, 8)[:, :, order].reshape(len(words), -1)

    zero = outs(module.need("qzeros", (groups, outputs // 8))).T

    def integers(first: int, last: int) -> Tensor:
        # A word holds eight neighbouring outputs; pieces begin at multiples of 16.
        return outs(held[:, first // 8 : -(-last // 8)]).T[: last - first]

    parts = ("qweight", "qzeros", "scales")
    ways = _with_zero(integers, zero, scales.T, 4)
    return module.stored(f"int4 g{inputs // groups} AWQ", parts, **ways)


def _mlx(module: StoredModule) -> StoredTensor | None:
    """Read MLX's words: affine integers of 2 to 8 bits, MXFP4 and NVFP4."""
    if module.kinds["weight"] != "U32":
        return None
    outputs, inputs = module.shape
    words, groups = module.shapes["weight"][-1], module.shapes["scales"][-1]
    bits, rest = divmod(words * 32, inputs)
    if rest or bits not in (2, 3, 4, 5, 6, 8) or not groups or inputs % groups:
        raise CheckpointError(
            f"weight of {module.name} has {words} words and {groups} scales a row for {inputs}"
            " inputs; use another quantisation of the model"
        )
    held = module.need("weight", (outputs, words)).view(torch.int32)
    parts = tuple(module.kinds)
    if "biases" not in module.kinds:
        if module.kinds["scales"] != "U8" or bits != 4 or inputs // groups not in (16, 32):
            return None
        raw = module.need("scales", (outputs, groups))
        micro = inputs // groups == 32
        scales = _powers(raw, module.name) if micro else raw.view(torch.float8_e4m3fn).float()
        if not bool(torch.isfinite(scales).all()):
            raise CheckpointError(f"scales of {module.name} hold NaN; fetch it again")
        ways = _doubled(held.view(torch.uint8), scales)
        return module.stored("mxfp4 MLX" if micro else "nvfp4 MLX", parts, coded=ways, code=E2M1)
    scales = module.scales("scales", (outputs, groups))
    biases = module.scales("biases", (outputs, groups))

    def coded(first: int, last: int) -> Coded:
        got = _bit_string(held[first:last], bits)
        return Coded(got, scales[first:last].clone(), biases[first:last].clone())

    form = f"int{bits} g{inputs // groups} MLX"
    return module.stored(form, parts, coded=coded, code=Code(max(4, bits)))


_Reader = Callable[[StoredModule], StoredTensor | None]
_FORMS: tuple[tuple[frozenset[str], frozenset[str], _Reader], ...] = (
    (frozenset({"weight"}), frozenset(), _plain),
    (frozenset({"weight", "weight_scale_inv"}), frozenset(), _scaled),
    (frozenset({"weight", "weight_scale"}), frozenset({"weight_zero_point"}), _scaled),
    (
        frozenset({"weight_packed", "weight_scale", "weight_shape"}),
        frozenset({"weight_zero_point", "weight_g_idx"}),
        _packed,
    ),
    (frozenset({"weight_packed", "weight_scale"}), frozenset({"weight_global_scale"}), _float4),
    (frozenset({"weight", "weight_scale", "weight_scale_2"}), frozenset(), _float4),
    (frozenset({"qweight", "qzeros", "scales"}), frozenset({"g_idx"}), _gptq),
    (frozenset({"weight", "scales"}), frozenset({"biases"}), _mlx),
)
"""Each form's required parts, those it may have, and its reader; None means another form."""


def _fields(words: Tensor, bits: int) -> Tensor:
    """Return the unsigned fields of int32 ``words [rows, n]``, the lowest first; int32."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    got = (words.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    return got.reshape(*words.shape[:-1], -1)


def _bit_string(words: Tensor, bits: int) -> Tensor:
    """Return the fields of rows that are one string of bits, the lowest first; int16."""
    octets = words.view(torch.uint8).reshape(len(words), -1, bits).to(torch.int64)
    joined = (octets << (8 * torch.arange(bits))).sum(-1, keepdim=True)
    fields = (joined >> (bits * torch.arange(8))) & ((1 << bits) - 1)
    return fields.reshape(len(words), -1).to(torch.int16)


def _spread(by_group: Tensor, inputs: int) -> Tensor:
    return by_group.repeat_interleave(inputs // by_group.shape[1], dim=1)


def _with_zero(
    integers: Callable[[int, int], Tensor], zero: Tensor, scales: Tensor, bits: int
) -> dict[str, object]:
    """Return the ways to read ``(integer - zero) * scale``, by ``integers(first, last)`` and by
    ``zero`` and ``scales [outputs, groups]``.

    Where scales are numbers of 16 bits, the zero point is exactly a term; else it goes into the
    integers, which are those of a code of one bit more.
    """
    short = any(torch.equal(scales.to(d).float(), scales) for d in (torch.bfloat16, torch.float16))

    def coded(first: int, last: int) -> Coded:
        got, by = integers(first, last), scales[first:last].contiguous()
        if short:
            return Coded(got.to(torch.int16), by, -zero[first:last].float() * by)
        return Coded((got - _spread(zero[first:last], got.shape[1])).to(torch.int16), by)

    if short:
        return {"coded": coded, "code": Code(max(4, bits))}
    return {"coded": coded, "code": Code(5, 16) if bits <= 4 else None}


def _powers(exponents: Tensor, name: str) -> Tensor:
    """Return the powers of two that E8M0 bytes stand for."""
    raw = exponents.view(torch.uint8).to(torch.int32)
    if bool((raw == 255).any()):
        raise CheckpointError(f"a scale of {name} is NaN; fetch the checkpoint again")
    return torch.ldexp(torch.ones(raw.shape), raw - 127)


def _doubled(octets: Tensor, scales: Tensor) -> Callable[[int, int], Coded]:
    """Return the reader of E2M1 pairs, the even element in the low half, as doubled integers."""

    def coded(first: int, last: int) -> Coded:
        got = octets[first:last]
        both = torch.stack([got & 15, got >> 4], dim=-1).reshape(last - first, -1)
        return Coded(E2M1.integers(both), scales[first:last] / 2)

    return coded


def _group_index(module: StoredModule, suffix: str, inputs: int, groups: int) -> Tensor | None:
    """Return the group of each input where a file says it. Raises ``CheckpointError``."""
    if suffix not in module.kinds:
        return None
    found = module.need(suffix, (inputs,)).to(torch.int64)
    if bool((found < 0).any()) and bool((found == -1).all()):
        return None
    if bool(((found < 0) | (found >= groups)).any()):
        raise CheckpointError(
            f"{suffix} of {module.name} names a group outside 0 to {groups - 1}; fetch it again"
        )
    return found
