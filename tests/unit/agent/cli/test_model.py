"""``agent model``: what it prints, and one line for what cannot be done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from agent.cli import app
from tests.support.stored_forms import FORMS

Outcome = tuple[int, str, str]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: str) -> Outcome:
        code = app.call(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("flag", "content"),
    [
        ("--text", "def f(x):\n    return x"),
        ("--ids", "[1, 2, 3, 4, 5, 6]"),
        ("--ids", "1 2 3\n4 5 6"),
        (
            "--messages",
            '[{"role": "user", "content": "hi <|im_end|>"}, {"role": "assistant", "content": "",'
            ' "tool_calls": [{"function": {"name": "submit", "arguments": "{}"}}]}]',
        ),
    ],
)
def test_score(
    flag: str, content: str, tmp_path: Path, tiny_checkpoint: Path, call: Callable[..., Outcome]
) -> None:
    file = tmp_path / "input"
    file.write_text(content)
    name = str(tiny_checkpoint)
    code, out, err = call(
        "model", "score", name, flag, str(file), "--against", name, "--output", "json"
    )
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["model"], found["device"], found["format"]) == (name, "cpu", "fp32")
    assert len(found["logprobs"]) == len(found["ids"]) - 1
    assert found["perplexity"] > 1
    assert found["against"] == {"model": name, "kl": 0.0, "top1": 1.0, "largest": 0.0}


@pytest.mark.parametrize(
    ("flag", "content"),
    [
        ("--ids", "one two"),
        ("--ids", "[[1]]"),
        ("--ids", "[" * 100_000),
        ("--messages", "{}"),
        ("--messages", '[{"role": "user", "tool_calls": [1]}]'),
        ("--messages", "[]"),
        ("--text", "\x00\udcff"),
    ],
)
def test_input_that_cannot_be_scored_is_one_line(
    flag: str, content: str, tmp_path: Path, tiny_checkpoint: Path, call: Callable[..., Outcome]
) -> None:
    file = tmp_path / "input"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    code, out, err = call("model", "score", str(tiny_checkpoint), flag, str(file))
    assert code in (1, 2) and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1


def test_score_takes_one_source(tiny_checkpoint: Path, call: Callable[..., Outcome]) -> None:
    code, _, err = call("model", "score", str(tiny_checkpoint))
    assert code != 0 and "give one of --text, --ids and --messages" in err


def test_info_tells_the_device_and_what_fits(
    tiny_checkpoint: Path, call: Callable[..., Outcome]
) -> None:
    code, out, _ = call("model", "info", str(tiny_checkpoint), "--device", "cpu", "-o", "json")
    facts = json.loads(out)
    assert code == 0 and facts["device"] == "cpu (asked for)"
    assert facts["chat_template"] == "Qwen3.6"
    assert facts["weight_bytes"] > 0 and facts["longest_context"] == 8192


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line(
    tiny_checkpoint: Path, call: Callable[..., Outcome]
) -> None:
    code, _, err = call("model", "info", str(tiny_checkpoint), "--device", "cuda")
    assert code != 0 and "there is no CUDA device that torch can use; use --device cpu" in err
    assert err.count("\n") == 1
    code, _, err = call("model", "info", str(tiny_checkpoint), "--device", "tpu")
    assert code == 2 and "device" in err


def test_list_shows_the_folders_of_the_settings(
    tiny_checkpoint: Path, call: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENUTO_MODEL_DIRS", str(tiny_checkpoint.parent))
    code, out, _ = call("model", "list", "--output", "json")
    found = {m["path"]: m["format"] for m in json.loads(out)["models"]}
    assert code == 0 and found[str(tiny_checkpoint)] == "fp32"


def test_bench_and_pull(tiny_checkpoint: Path, call: Callable[..., Outcome]) -> None:
    name = str(tiny_checkpoint)
    code, out, _ = call(
        "model", "bench", name, "--prompt", "8", "--decode", "4", "--output", "json"
    )
    facts = json.loads(out)
    assert code == 0 and facts["decode_tokens_per_s"] > 0 < facts["prefill_tokens_per_s"]
    code, out, _ = call("model", "pull", name)
    assert code == 0 and "MB of weights in" in out


def test_info_names_what_is_turned_into_floats_with_its_size(
    tiny_checkpoint: Path, tmp_path: Path, call: Callable[..., Outcome]
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(tiny_checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    name = next(n for n in tensors if n.endswith("layers.0.mlp.gate_proj.weight"))
    weight = tensors.pop(name)
    parts, _ = FORMS["int4 g32"](weight)
    tensors |= {f"{name.removesuffix('weight')}{suffix}": part for suffix, part in parts.items()}
    save_file(tensors, folder / "model.safetensors")
    # A model as small as this computes in float32, where integers are not kept.
    code, out, _ = call("model", "info", str(folder), "--device", "cpu", "-o", "json")
    assert code == 0
    size = weight.numel() * 4 / 1e6
    assert json.loads(out)["converted"] == f"int4 g32 into {size:,.1f} MB of float32"
    code, out, _ = call("model", "info", str(tiny_checkpoint), "--device", "cpu", "-o", "json")
    assert json.loads(out)["converted"] == "nothing"
