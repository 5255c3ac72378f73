"""The tensors of a GGUF file of this family, with the converter's changes undone.

llama.cpp's converter adds one to the zero-centred norms, stores ``-exp(A_log)``, and orders the
value heads of DeltaNet layers as ``[values a key, key heads]``, so that those of one key head lie
apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.linear import Part
from kernels.linear.ggml import from_ggml
from model.checkpoint.config import ModelConfig
from model.checkpoint.expert_tensors import is_experts, pieces_of, stacked
from model.checkpoint.gguf.blocks import BLOCKS
from model.checkpoint.gguf.header import GgufFile
from model.checkpoint.stored import Coded, StoredTensor
from model.errors import CheckpointError

_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "post_attention_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
    "mlp.experts.gate_up_proj": "ffn_gate_up_exps.weight",
    "mlp.experts.gate_proj": "ffn_gate_exps.weight",
    "mlp.experts.up_proj": "ffn_up_exps.weight",
    "mlp.experts.down_proj": "ffn_down_exps.weight",
    "mlp.shared_expert_gate.weight": "ffn_gate_inp_shexp.weight",
    "mlp.shared_expert.gate_proj.weight": "ffn_gate_shexp.weight",
    "mlp.shared_expert.up_proj.weight": "ffn_up_shexp.weight",
    "mlp.shared_expert.down_proj.weight": "ffn_down_shexp.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "linear_attn.in_proj_qkv.weight": "attn_qkv.weight",
    "linear_attn.in_proj_z.weight": "attn_gate.weight",
    "linear_attn.in_proj_a.weight": "ssm_alpha.weight",
    "linear_attn.in_proj_b.weight": "ssm_beta.weight",
    "linear_attn.A_log": "ssm_a",
    "linear_attn.dt_bias": "ssm_dt.bias",
    "linear_attn.conv1d.weight": "ssm_conv1d.weight",
    "linear_attn.norm.weight": "ssm_norm.weight",
    "linear_attn.out_proj.weight": "ssm_out.weight",
}
_MTP = {
    "mtp.fc.weight": "nextn.eh_proj.weight",
    "mtp.pre_fc_norm_embedding.weight": "nextn.enorm.weight",
    "mtp.pre_fc_norm_hidden.weight": "nextn.hnorm.weight",
    "mtp.norm.weight": "nextn.shared_head_norm.weight",
}
_TOP = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_OWN_MTP = ("nextn.embed_tokens.weight", "nextn.shared_head_head.weight")


class GgufSource:
    """The tensors of a GGUF file, its other parts, and the MTP file beside it."""

    def __init__(self, opened: list[GgufFile], config: ModelConfig) -> None:
        self._config = config
        self._opened = [*opened, *_mtp_beside(opened[0], config)]
        self._where = {name: file for file in self._opened for name in file.tensors}
        self.files = tuple(file.path for file in self._opened)

    @property
    def has_mtp(self) -> bool:
        """Tell whether the MTP layer is there; one with an embedding of its own is left out."""
        layer = f"blk.{self._config.num_hidden_layers}."
        own = any(layer + name in self._where for name in _OWN_MTP)
        return layer + _MTP["mtp.fc.weight"] in self._where and not own

    def find(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """Return one tensor. Raises ``CheckpointError`` if it is missing or cannot be read."""
        stored = self._name(name)
        if is_experts(name):
            return self._experts(name, shape)
        flat = (shape[0], shape[2]) if len(shape) == 3 else shape
        file = self._holder(stored, flat, shape, shape[1:] if shape[0] == 1 else shape)
        found = file.tensors[stored]
        block = BLOCKS[found.kind]
        scale = self._scale(stored)
        if block.read is None and scale is None:
            return self._floats(name, shape, file, stored)
        if len(flat) != 2 or block.read is None:
            raise CheckpointError(
                f"{stored} in {file.path} is stored as {block.name}; fetch it again"
            )
        return self._matrix(name, flat, file, stored, scale)

    def _holder(self, stored: str, *shapes: tuple[int, ...]) -> GgufFile:
        """Return the file with a tensor that must have one of ``shapes``."""
        file = self._where.get(stored)
        if file is None:
            raise CheckpointError(
                f"{self.files[0]} lacks the tensor {stored}; use a complete file of the model"
            )
        found = file.tensors[stored].shape
        if found not in shapes:
            raise CheckpointError(
                f"{stored} in {file.path} has shape {list(found)};"
                f" by the file's own keys it must be {list(shapes[0])}"
            )
        return file

    def _experts(self, name: str, shape: tuple[int, ...]) -> StoredTensor:
        """Join the matrices of all experts: gate and up may be one stack or two."""
        joined = [name]
        if self._name(name) not in self._where:
            joined = [name.replace("gate_up", piece) for piece in pieces_of(name)]
        each = (shape[0], shape[1] // len(joined), shape[2])
        stacks = [self._stack(piece, each) for piece in joined]
        return stacked(name, shape, list(zip(*stacks, strict=True)))

    def _stack(self, name: str, shape: tuple[int, ...]) -> list[StoredTensor]:
        """Return the matrix of each expert in one stack."""
        stored = self._name(name)
        file = self._holder(stored, shape)
        block, raw, scale = BLOCKS[file.tensors[stored].kind], file.raw(stored), None
        if self._scale_name(stored) is not None:
            scale = self._scale(stored, shape[0])
        made = []
        for expert, own in enumerate(torch.split(raw, shape[1])):
            by = None if scale is None else scale[expert]
            if block.read is not None:
                made.append(self._matrix(name, shape[1:], file, stored, by, own))
                continue
            plain = own.view(block.dtype)
            made.append(StoredTensor(name, block.name, shape[1:], {"": own}, plain))
        return made

    def _floats(
        self, name: str, shape: tuple[int, ...], file: GgufFile, stored: str
    ) -> StoredTensor:
        block = BLOCKS[file.tensors[stored].kind]
        mapped = file.raw(stored).view(block.dtype).reshape(shape)
        rows, columns = self._order(name)
        if rows is not None:
            mapped = mapped[rows]
        if columns is not None:
            mapped = mapped[:, columns].contiguous()
        if name.endswith("A_log"):
            if not bool((mapped < 0).all()):
                raise CheckpointError(f"{stored} in {file.path} is not negative; fetch it again")
            mapped = torch.log(-mapped.float())
        elif "norm" in name and not name.endswith("linear_attn.norm.weight"):
            mapped = mapped.float() - 1
        return StoredTensor(name, block.name, shape, {"": file.raw(stored)}, mapped)

    def _matrix(
        self,
        name: str,
        shape: tuple[int, ...],
        file: GgufFile,
        stored: str,
        scale: Tensor | None,
        raw: Tensor | None = None,
    ) -> StoredTensor:
        kind, whole = file.tensors[stored].kind, raw is None
        block, raw = BLOCKS[kind], file.raw(stored) if raw is None else raw
        rows, columns = self._order(name)
        width = self._config.linear_value_head_dim
        runs = None if columns is None else columns[::width] // width

        def coded(first: int, last: int) -> Coded:
            run = block.coded(raw[first:last] if rows is None else raw[rows[first:last]])
            _require_finite(run.scales, stored, file)
            if run.term is not None:
                _require_finite(run.term, stored, file)
            if scale is not None:
                run = Coded(run.codes, run.scales * scale, run.term)
            return run if columns is None else _reordered(run, columns)

        parts = {"": raw} if scale is None else {"": raw, "scale": scale}
        if columns is None or self._config.linear_value_head_dim % block.group == 0:

            def held() -> Part | None:
                # Mapped anew, so that what was read is let go of once it lies in blocks.
                given, made = file.raw(stored) if whole else raw, None
                if scale is None:
                    made = from_ggml(kind, given, shape[1], rows=rows, runs=runs)
                numbers = () if made is None else (made.scales, made.tops)
                for part in numbers:
                    if part is not None and part.is_floating_point():
                        _require_finite(part, stored, file)
                return made

            ways = {"coded": coded, "code": block.code, "held": held}
            return StoredTensor(name, block.name, shape, parts, **ways)  # type: ignore[arg-type]

        def floats(first: int, last: int) -> Tensor:
            assert columns is not None
            return block.coded(raw[first:last]).floats()[:, columns]

        return StoredTensor(name, block.name, shape, parts, rows=floats)

    def _scale_name(self, stored: str) -> str | None:
        """Return the name of the tensor with a matrix's own scale, which NVFP4 keeps beside it."""
        beside = stored.removesuffix(".weight") + ".scale"
        return beside if stored.endswith(".weight") and beside in self._where else None

    def _scale(self, stored: str, experts: int | None = None) -> Tensor | None:
        """Return the scale of a whole matrix, or of each expert's, if there is one."""
        beside = self._scale_name(stored)
        if beside is None:
            return None
        file = self._where[beside]
        found = file.tensors[beside]
        wanted = ((1,), ()) if experts is None else ((experts,),)
        if BLOCKS[found.kind].name != "F32" or found.shape not in wanted:
            count = "a single number" if experts is None else f"{experts} numbers"
            raise CheckpointError(f"{beside} in {file.path} is not {count}; fetch it again")
        return file.raw(beside).view(torch.float32).reshape(() if experts is None else (experts,))

    def _name(self, name: str) -> str:
        if name in _TOP:
            return _TOP[name]
        if name in _MTP:
            return f"blk.{self._config.num_hidden_layers}.{_MTP[name]}"
        if name.startswith("mtp."):
            rest = name.removeprefix("mtp.layers.0.")
            return f"blk.{self._config.num_hidden_layers}.{_LAYER[rest]}"
        _, index, rest = name.split(".", 2)
        return f"blk.{index}.{_LAYER[rest]}"

    def _order(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """Return where each row, and each column, of a tensor lies in the file; None: in place."""
        c = self._config
        if ".linear_attn." not in name or c.linear_num_key_heads == c.linear_num_value_heads:
            return None, None
        heads, wide = self._tiled(1), self._tiled(c.linear_value_head_dim)
        behind = torch.cat([torch.arange(2 * c.linear_key_dim), wide + 2 * c.linear_key_dim])
        part = name.partition(".linear_attn.")[2]
        rows = {
            "in_proj_qkv.weight": behind,
            "conv1d.weight": behind,
            "in_proj_z.weight": wide,
            "in_proj_a.weight": heads,
            "in_proj_b.weight": heads,
            "A_log": heads,
            "dt_bias": heads,
        }
        return rows.get(part), wide if part == "out_proj.weight" else None

    def _tiled(self, width: int) -> Tensor:
        """Return where the file has each value head's ``width`` entries."""
        keys = self._config.linear_num_key_heads
        each = self._config.linear_num_value_heads // keys
        return (
            torch.arange(each * keys * width).reshape(each, keys, width).transpose(0, 1).flatten()
        )


def _require_finite(numbers: Tensor, stored: str, file: GgufFile) -> None:
    if not bool(torch.isfinite(numbers).all()):
        raise CheckpointError(
            f"{stored} in {file.path} holds a scale that is NaN or infinite; fetch it again"
        )


def _mtp_beside(main: GgufFile, config: ModelConfig) -> list[GgufFile]:
    """Return the file with the MTP layer of a model whose main file lacks it, if it is there."""
    if config.mtp_num_hidden_layers:
        return []
    layer = f"blk.{config.num_hidden_layers}."
    for path in sorted(main.path.parent.glob("*mtp*.gguf")):
        if path == main.path:
            continue
        found = GgufFile.open(path)
        same = found.metadata.get("general.name") == main.metadata.get("general.name")
        if same and layer + _MTP["mtp.fc.weight"] in found.tensors:
            kept = {n: t for n, t in found.tensors.items() if n.startswith(layer)}
            return [GgufFile(path, found.metadata, kept)]
    return []


def _reordered(run: Coded, columns: Tensor) -> Coded:
    """Return a run with its columns taken in another order, by whole groups."""
    group = run.codes.shape[1] // run.scales.shape[1]
    groups = columns[::group] // group
    term = None if run.term is None else run.term[:, groups]
    return Coded(run.codes[:, columns], run.scales[:, groups], term)
