"""GGUF files that are damaged or lie: one line, in bounded time and memory."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import parity
from model.checkpoint.checkpoint import Checkpoint, judge
from model.checkpoint.config import ModelConfig
from model.checkpoint.gguf.header import GgufFile
from model.checkpoint.weights import tensor_shapes
from model.errors import CheckpointError
from tests.support.make_gguf import make_gguf

CONFIG = parity.text_config("tiny") | {"num_hidden_layers": 4, "tie_word_embeddings": True}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(tensors: int = 0, keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def tensor(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    numbers = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", len(shape)) + numbers + struct.pack("<IQ", kind, offset)


WRONG = {
    "another magic": (b"GGML" + bytes(40), "is no GGUF file"),
    "another version": (header(version=1) + bytes(40), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0) + bytes(40), "version"),
    "10^12 tensors": (header(tensors=10**12) + bytes(40), "claims 1000000000000 tensors"),
    "10^12 keys": (header(keys=10**12) + bytes(40), "and 1000000000000 keys"),
    "a text of 2^60 bytes": (
        header(keys=1) + struct.pack("<Q", 1 << 60) + bytes(40),
        "a text of 1152921504606846976 bytes",
    ),
    "an array of 2^60 texts": (
        header(keys=1) + text("a") + struct.pack("<IIQ", 9, 8, 1 << 60) + bytes(40),
        "an array of 1152921504606846976 texts",
    ),
    "an array of 2^60 numbers": (
        header(keys=1) + text("a") + struct.pack("<IIQ", 9, 4, 1 << 60) + bytes(40),
        "an array of 1152921504606846976 numbers",
    ),
    "an array of arrays": (
        header(keys=1) + text("a") + struct.pack("<IIQ", 9, 9, 1 << 20) + bytes(40),
        "an array of the type 9",
    ),
    "an unknown type of value": (
        header(keys=1) + text("a") + struct.pack("<I", 77) + bytes(40),
        "unknown type 77",
    ),
    "text that is none": (header(keys=1) + struct.pack("<Q", 2) + b"\xff\xfe" * 30, "damaged"),
    "an alignment of 3": (
        header(keys=1) + text("general.alignment") + struct.pack("<II", 4, 3) + bytes(40),
        "an alignment of 3",
    ),
    "nine dimensions": (header(1) + text("t") + struct.pack("<I", 9) + bytes(99), "9 dimensions"),
    "an unknown block type": (header(1) + tensor("t", [32], 99, 0) + bytes(99), "number 99"),
    "a shape of 2^62": (header(1) + tensor("t", [1 << 62], 0, 0) + bytes(99), "the shape"),
    "no whole blocks": (
        header(1) + tensor("t", [100, 2], 12, 0) + bytes(99),
        "whose blocks of 256 do not divide its rows",
    ),
    "an offset outside": (
        header(1) + tensor("t", [32], 0, 1 << 40) + bytes(99),
        "ends inside t: it is truncated",
    ),
    "offsets that overlap": (
        header(2) + tensor("a", [32], 0, 0) + tensor("b", [32], 0, 64) + bytes(500),
        "places b inside another tensor",
    ),
    "a crooked offset": (
        header(1) + tensor("a", [32], 0, 5) + bytes(500),
        "places a inside another tensor",
    ),
    "a name twice": (
        header(2) + tensor("a", [32], 0, 0) + tensor("a", [32], 0, 128) + bytes(500),
        "names a twice",
    ),
    "nothing": (b"", "truncated"),
}


@pytest.mark.parametrize("case", WRONG)
def test_lies_are_one_line(case: str, tmp_path: Path) -> None:
    content, says = WRONG[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        GgufFile.open(path)
    assert says in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "m.gguf"
    g = torch.Generator().manual_seed(0)
    shapes = tensor_shapes(ModelConfig.from_dict(CONFIG))
    tensors = {name: torch.randn(shape, generator=g) * 0.1 for name, shape in shapes.items()}
    make_gguf(path, CONFIG, tensors, {})
    return path


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 100))
def test_a_truncated_file_is_one_line(cut: int, whole: Path) -> None:
    content = whole.read_bytes()
    path = whole.with_name("cut.gguf")
    path.write_bytes(content[: len(content) * cut // 101])
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(path)
    assert "\n" not in str(caught.value)


def test_random_bytes_in_the_header_never_do_more_than_be_refused(whole: Path) -> None:
    """400 files with up to four changed bytes: read, or one line."""
    content, pick = whole.read_bytes(), random.Random(5)
    path = whole.with_name("odd.gguf")
    refused = 0
    for _ in range(400):
        odd = bytearray(content)
        for _ in range(pick.randint(1, 4)):
            odd[pick.randrange(3000)] = pick.randrange(256)
        path.write_bytes(odd)
        try:
            Checkpoint.open(path)
        except CheckpointError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"general.architecture": "llama"}, "architecture llama is not supported"),
        ({"qwen35.rope.scaling.type": "longrope"}, "rope_type 'longrope' is not supported"),
    ],
)
def test_what_the_keys_say_is_judged(extra: dict[str, str], says: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    if "general.architecture" in extra:
        key, value = text("general.architecture"), struct.pack("<I", 8) + text("llama")
        path.write_bytes(header(keys=1) + key + value + bytes(64))
    else:
        make_gguf(path, CONFIG, {"embed_tokens.weight": torch.zeros(512, 64)}, {}, extra=extra)
    with pytest.raises(CheckpointError, match=says):
        judge(path)


def test_a_file_that_lacks_a_tensor_or_a_part(whole: Path, tmp_path: Path) -> None:
    tensors = {"embed_tokens.weight": torch.zeros(512, 64)}
    make_gguf(tmp_path / "m.gguf", CONFIG, tensors, {})
    with pytest.raises(CheckpointError, match=r"lacks the tensor blk\.0\.ssm_dt\.bias"):
        Checkpoint.open(tmp_path / "m.gguf")
    part = tmp_path / "s-00001-of-00002.gguf"
    make_gguf(part, CONFIG, tensors, {}, extra={"split.count": 2})
    with pytest.raises(CheckpointError, match=r"s-00002-of-00002\.gguf is missing, one of 2 parts"):
        Checkpoint.open(part)
    part.rename(tmp_path / "s.gguf")
    with pytest.raises(CheckpointError, match="give the parts their names back"):
        Checkpoint.open(tmp_path / "s.gguf")


def test_a_split_file_is_read_from_any_part(whole: Path, tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    shapes = tensor_shapes(ModelConfig.from_dict(CONFIG))
    tensors = {name: torch.randn(shape, generator=g) * 0.1 for name, shape in shapes.items()}
    names = sorted(tensors, key=lambda name: name.startswith("layers.2"))
    halves = (names[:20], names[20:])
    for number, half in enumerate(halves, start=1):
        path = tmp_path / f"m-{number:05d}-of-00002.gguf"
        own = {name: tensors[name] for name in half}
        make_gguf(path, CONFIG, own, {}, extra={"split.count": 2})
    expected = Checkpoint.open(whole).tensors
    for number in (1, 2):
        got = Checkpoint.open(tmp_path / f"m-{number:05d}-of-00002.gguf").tensors
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[n].read(), expected[n].read()) for n in expected)


def test_scales_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    shapes = tensor_shapes(ModelConfig.from_dict(CONFIG), mtp=False)
    tensors = {name: torch.randn(shape, generator=g) * 0.1 for name, shape in shapes.items()}
    path = tmp_path / "m.gguf"
    make_gguf(path, CONFIG, tensors, {"token_embd.weight": "Q8_0"})
    place = GgufFile.open(path).tensors["token_embd.weight"].start
    content = bytearray(path.read_bytes())
    content[place + 34 : place + 36] = b"\x00\x7e"  # a NaN in float16
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"token_embd\.weight .*scale that is NaN or inf"):
        Checkpoint.open(path).tensors["embed_tokens.weight"].read()
