"""Experts however they are stored, against transformers on their values; and broken files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import parity
from kernels.experts import ExpertStack
from kernels.linear import StackedWeight, StoredRows
from model.checkpoint.checkpoint import Checkpoint
from model.checkpoint.config import ModelConfig
from model.checkpoint.weights import tensor_shapes
from model.engine import Engine
from model.errors import CheckpointError
from model.hybrid.experts import Experts
from model.hybrid.model import HybridNetwork
from model.scoring import score
from tests.support.make_gguf import make_gguf
from tests.support.native import library
from tests.support.stored_forms import FORMS, Parts

IDS = torch.randint(512, (48,), generator=torch.Generator().manual_seed(2)).tolist()
Q4_K_M = {
    "": "Q4_K",
    "output.weight": "Q6_K",
    "blk.0.ffn_down_exps.weight": "Q6_K",
    "blk.3.ffn_down_exps.weight": "Q6_K",
    "blk.1.ffn_up_exps.weight": "Q5_K",
    "blk.2.ffn_down_shexp.weight": "Q8_0",
    **{f"blk.{i}.ffn_gate_inp.weight": "F32" for i in range(4)},
}


ALL_FORMS = {**FORMS, "bf16": lambda t: ({"weight": t.bfloat16()}, t.bfloat16())}


def text_config(**changes: Any) -> dict[str, Any]:
    return parity.text_config("experts-12") | {
        "hidden_size": 256,
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 256,
        "num_attention_heads": 8,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "tie_word_embeddings": False,
        **changes,
    }


def reference(config: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    model = parity.reference_model(config)
    return model, {n.removeprefix("model."): t for n, t in model.state_dict().items()}


def expected_of(model: Any, values: dict[str, Tensor]) -> Tensor:
    model.load_state_dict(
        {n if n.startswith("lm_head") else f"model.{n}": t for n, t in values.items()}
    )
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([IDS])).logits[0]
    return logits.log_softmax(-1)


def log_probabilities(engine: Engine) -> Tensor:
    assert isinstance(engine.network, HybridNetwork)
    return parity.all_logits(engine.network, IDS, []).log_softmax(-1)


def experts_of(engine: Engine, block: int = 0) -> Experts:
    assert isinstance(engine.network, HybridNetwork)
    found = engine.network.model.blocks[block].feed_forward
    assert isinstance(found, Experts)
    return found


TYPES = ({"": "F32"}, {"": "Q8_0"}, Q4_K_M, {"": "IQ4_XS"}, {"": "NVFP4"})


@pytest.mark.parametrize("types", TYPES, ids=["F32", "Q8_0", "Q4_K_M", "IQ4_XS", "NVFP4"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_gguf_file_with_gate_and_up_apart_or_fused(
    types: dict[str, str], fused: bool, tmp_path: Path
) -> None:
    config = text_config()
    model, tensors = reference(config)
    path = tmp_path / "m.gguf"
    values = make_gguf(path, config, tensors, types, fused=fused)
    exact = Engine.load(path, name="exact", dtype=torch.float32)
    expected = expected_of(model, values)
    torch.testing.assert_close(log_probabilities(exact), expected, atol=1e-3, rtol=0)
    if types[""] == "F32":
        return
    library("plain")
    # In bfloat16 the compiled path runs them, with inputs rounded to 8 bits.
    quick = Engine.load(path, name="quick", dtype=torch.bfloat16)
    found = score(exact, IDS, quick).against
    assert found is not None
    assert found.kl < 0.02
    first = experts_of(quick).gate_up
    assert isinstance(first, ExpertStack)
    if types[""] in ("Q8_0", "Q4_K"):
        own = first[3]
        parts = own.parts if isinstance(own, StackedWeight) else (own,)
        assert len(parts) == (1 if fused else 2)
        assert all(isinstance(part, StoredRows) for part in parts)


def test_float16_runs_as_it_is_stored(tmp_path: Path) -> None:
    """On the compiled path: nothing is rounded, and no copy in float32 is held."""
    library("plain")
    config = text_config()
    make_gguf(tmp_path / "m.gguf", config, reference(config)[1], {"": "F16"})
    half, whole = (
        Engine.load(tmp_path / "m.gguf", name="x", dtype=torch.float32, native=native)
        for native in (True, False)
    )
    assert half.placement is not None
    assert half.placement.weight_bytes < 1.02 * (tmp_path / "m.gguf").stat().st_size
    assert half.placement.converted == {}
    first = experts_of(half).down
    assert isinstance(first, ExpertStack)
    assert {member.dtype for member in first.members if isinstance(member, Tensor)} == {
        torch.float16
    }
    found = score(whole, IDS, half).against
    assert found is not None
    assert found.largest < 1e-4


def one_by_one(directory: Path, form: str, **config: Any) -> tuple[Any, Parts]:
    """Write a model whose experts are stored one by one in ``form``; return transformers' on it."""
    made = text_config(**config)
    model, tensors = reference(made)
    written: Parts = {}
    values: dict[str, Tensor] = dict(tensors)

    def store(name: str, tensor: Tensor) -> Tensor:
        parts, plain = ALL_FORMS[form](tensor)
        module = f"model.language_model.{name}.".replace(".weight.", ".")
        written.update({module + suffix: part.contiguous() for suffix, part in parts.items()})
        return plain.float()

    for name, tensor in tensors.items():
        if ".mlp.experts." in name:
            joined = ("gate", "up") if name.endswith("gate_up_proj") else ("down",)
            folder, stacked = name.rpartition(".")[0], []
            for expert, own in enumerate(tensor):
                pieces = zip(joined, own.chunk(len(joined)), strict=True)
                stacked.append(
                    torch.cat([store(f"{folder}.{expert}.{p}_proj", t) for p, t in pieces])
                )
            values[name] = torch.stack(stacked)
        elif ".shared_expert." in name:
            values[name] = store(name, tensor)
        else:
            prefix = "" if name.startswith("lm_head") else "model.language_model."
            written[prefix + name] = tensor
    model.load_state_dict(
        {n if n.startswith("lm_head") else f"model.{n}": t for n, t in values.items()}
    )
    save_file({n: t.clone() for n, t in written.items()}, directory / "model.safetensors")
    nested = {"model_type": "qwen3_5_moe", "text_config": made}
    (directory / "config.json").write_text(json.dumps(nested))
    return model, written


@pytest.mark.parametrize(
    "form", ["fp8 official", "nvfp4 ModelOpt", "GPTQ int4", "int4 g32", "bf16"]
)
def test_experts_that_are_stored_one_by_one(form: str, tmp_path: Path) -> None:
    model, _ = one_by_one(tmp_path, form)
    with torch.inference_mode():
        expected = model(torch.tensor([IDS])).logits[0].log_softmax(-1)
    exact = Engine.load(tmp_path, name="exact", dtype=torch.float32)
    torch.testing.assert_close(log_probabilities(exact), expected, atol=1e-3, rtol=0)
    library("plain")
    quick = Engine.load(tmp_path, name="quick", dtype=torch.bfloat16)
    found = score(exact, IDS, quick).against
    assert found is not None
    assert found.kl < 0.02


def test_an_mtp_layer_with_experts(tmp_path: Path) -> None:
    config = text_config(mtp_num_hidden_layers=1)
    shapes = tensor_shapes(ModelConfig.from_dict(config))
    g = torch.Generator().manual_seed(4)
    tensors = {n: torch.randn(s, generator=g) * s[-1] ** -0.5 for n, s in shapes.items()}
    values = make_gguf(tmp_path / "m.gguf", config, tensors, {"": "Q4_K"})
    read = Checkpoint.open(tmp_path / "m.gguf").tensors
    name = "mtp.layers.0.mlp.experts.gate_up_proj"
    torch.testing.assert_close(read[name].read(), values[name])
    engine = Engine.load(tmp_path / "m.gguf", name="m")
    assert isinstance(engine.network, HybridNetwork)
    head = engine.network.model.mtp
    assert head is not None
    assert isinstance(head.block.feed_forward, Experts)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model whose experts are stored one by one, and another with stacked ones."""
    root = tmp_path_factory.mktemp("experts")
    for name in ("apart", "stacked"):
        (root / name).mkdir()
    small = {"num_hidden_layers": 1, "layer_types": ["linear_attention"]}
    one_by_one(root / "apart", "int4 g32", **small)
    config = text_config(**small)
    model, _ = reference(config)
    save_file(model.state_dict(), root / "stacked" / "model.safetensors")
    (root / "stacked" / "config.json").write_text(json.dumps(config))
    return root


EXPERT = "model.language_model.layers.0.mlp.experts."
STACK = "model.layers.0.mlp."


def _without(*names: str) -> Callable[[Parts], Parts]:
    return lambda tensors: {n: t for n, t in tensors.items() if not n.startswith(names)}


def _with(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Parts], Parts]:
    return lambda tensors: tensors | {name: change(tensors[name]).contiguous()}


def _one_more(tensors: Parts) -> Parts:
    last = {n: t for n, t in tensors.items() if n.startswith(EXPERT + "11.")}
    return tensors | {n.replace("experts.11.", "experts.12."): t.clone() for n, t in last.items()}


@pytest.mark.parametrize(
    ("kind", "spoil", "says"),
    [
        ("apart", _without(EXPERT + "7."), r"experts\.7\.gate_proj"),
        ("apart", _without(EXPERT + "3.down_proj"), r"experts\.3\.down_proj"),
        ("apart", _without(EXPERT), "lacks the tensor .*gate_up_proj"),
        ("apart", _one_more, "has more than the 12 experts of config.json"),
        ("apart", _with(EXPERT + "5.up_proj.weight_packed", lambda t: t[:-1]), r"experts\.5\.up"),
        (
            "stacked",
            _with(STACK + "experts.down_proj", lambda t: t[:-1]),
            r"shape \[11, 256, 256\]",
        ),
        ("stacked", _without(STACK + "experts.down_proj"), "lacks the tensor .*down_proj"),
        ("stacked", _without(STACK + "shared_expert."), "lacks the tensor .*shared_expert"),
        ("stacked", _without(STACK + "shared_expert_gate"), "shared_expert_gate"),
        ("stacked", _without(STACK + "gate.weight"), "lacks the tensor .*mlp.gate.weight"),
        ("stacked", _with(STACK + "gate.weight", lambda t: t[:5]), r"shape \[5, 256\]"),
        ("stacked", _with(STACK + "gate.weight", lambda t: t * float("nan")), "holds NaN"),
    ],
)
def test_a_checkpoint_that_cannot_be_right_is_refused_in_one_line(
    written: Path, tmp_path: Path, kind: str, spoil: Callable[[Parts], Parts], says: str
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(written / kind, folder)
    save_file(spoil(load_file(folder / "model.safetensors")), folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=says) as caught:
        Engine.load(folder, name="x")
    assert "\n" not in str(caught.value)


def test_a_gguf_stack_of_a_wrong_shape_in_the_middle_is_named(tmp_path: Path) -> None:
    config = text_config()
    _, tensors = reference(config)
    name = "layers.2.mlp.experts.down_proj"
    make_gguf(tmp_path / "m.gguf", config, tensors | {name: tensors[name][:11]}, {"": "F16"})
    with pytest.raises(CheckpointError, match=r"blk\.2\.ffn_down_exps\.weight .* \[11, 256, 256\]"):
        Engine.load(tmp_path / "m.gguf", name="x")
    del tensors["layers.1.mlp.experts.gate_up_proj"]
    make_gguf(tmp_path / "n.gguf", config, tensors, {"": "F16"})
    with pytest.raises(CheckpointError, match=r"lacks the tensor blk\.1\.ffn_gate_exps\.weight"):
        Engine.load(tmp_path / "n.gguf", name="x")


def test_quantised_experts_are_close_and_come_from_the_cache(
    written: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library("plain")
    plain = Engine.load(written / "stacked", name="plain", dtype=torch.float32)
    for mode, most in (("int8", 0.01), ("int4", 0.1)):
        engine = Engine.load(
            written / "stacked",
            name=mode,
            quantize=mode,
            dtype=torch.bfloat16,  # type: ignore[arg-type]
        )
        stack = experts_of(engine).gate_up
        assert isinstance(stack, ExpertStack)
        assert stack.nbytes < 12 * 512 * 256 * 1.3
        found = score(plain, IDS, engine).against
        assert found is not None
        assert found.kl < most
    torch_only = Engine.load(
        written / "stacked", name="t", quantize="int8", native=False, dtype=torch.float32
    )
    assert isinstance(experts_of(torch_only).gate_up, Tensor)
    found = score(plain, IDS, torch_only).against
    assert found is not None
    assert found.kl < 0.005
