"""Chat templates and tokenizers that were made to hang, swamp or crash whoever loads them."""

from __future__ import annotations

import hashlib
import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model.chat import rendering
from model.chat.rendering import TemplateError, TemplateWorker, compile_template
from model.chat.template import KNOWN, ChatTemplate
from model.chat.tokenizer import Tokenizer
from model.errors import CheckpointError

ROOT = Path(__file__).parents[4]
EMBEDDED = ROOT / "model" / "embedded"
HI = {"messages": [{"role": "user", "content": "hi"}]}
NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "SECONDS", 1.0)


@pytest.mark.parametrize(
    "source",
    [
        NESTED,
        "{{ 2 ** (10 ** 9) }}",
        "{% set n = 10 ** 9 %}{{ 7 ** n }}",
        "{{ 'x' * 200000000 }}",
        "{{ 'x' * 20000000000 }}",
        "{{ 'x'.center(200000000) }}",
        "{{ '%0999999999d' % 1 }}",
        "{% set ns = namespace(x='xx') %}{% for i in range(40) %}{% set ns.x = ns.x ~ ns.x %}"
        "{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}"
        "{% endfor %}{{ ns.x | tojson }}",
        "{% macro f(n) %}{{ f(n - 1) }}{{ f(n - 1) }}{% endmacro %}{{ f(50) }}",
        "{{ " + "[" * 5000 + "]" * 5000 + " }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "-" * 5000 + "1 }}",
        "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__ }}{{ x.y.z }}",
        "{{ " + "9" * 5000 + " }}",
        "x" * (rendering.MOST_SOURCE + 1),
        "{% broken",
    ],
    ids=range(19),
)
def test_every_template_ends_in_a_text_or_one_line(source: str) -> None:
    with pytest.raises(TemplateError) as caught:
        TemplateWorker(source)(HI)
    assert "\n" not in str(caught.value)
    assert 0 < len(str(caught.value)) < 300


def test_a_worker_that_was_ended_starts_anew() -> None:
    worker = TemplateWorker("{% if bomb %}" + NESTED + "{% endif %}{{ messages[0].content }}")
    assert worker(HI) == "hi"
    with pytest.raises(TemplateError, match="takes longer than 1 s"):
        worker({**HI, "bomb": True})
    assert worker(HI) == "hi"


def test_a_worker_renders_as_this_process_does() -> None:
    source = "{{ messages | tojson }}{{ x }}{{ strftime_now('%Y') }}"
    given = {"messages": [{"a": [1, 2.5, None, True, "\u00e9\u2028\ud800<&'\""]}], "x": "\n\r"}
    assert TemplateWorker(source)(given) == compile_template(source)(given)
    for render in (
        TemplateWorker("{{ raise_exception('no') }}"),
        compile_template("{{ raise_exception('no') }}"),
    ):
        with pytest.raises(TemplateError, match=r"^no$"):
            render(given)


def test_a_worker_ends_with_its_parent() -> None:
    code = (
        "from model.chat.rendering import TemplateWorker\n"
        "w = TemplateWorker('x')\nprint(w._process.pid, flush=True)\nimport os\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    # Its standard input is at its end; what is left of it is at most a process that leaves.
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([handle], [], [], 20)[0]
    os.close(handle)


def test_the_templates_of_the_family_and_the_embedded_model_are_known() -> None:
    source = (EMBEDDED / "chat_template.jinja").read_bytes()
    golden = (ROOT / "tests" / "golden" / "templates").glob("*.jinja")
    for text in (source, *(path.read_bytes() for path in golden)):
        assert hashlib.sha256(text).hexdigest() in KNOWN


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "socket"])
def test_only_plain_files_are_read(
    name: str, kind: str, tmp_path: Path, qwen_tokenizer: Tokenizer
) -> None:
    _put(tmp_path / name, kind)
    with pytest.raises(CheckpointError, match="no plain file"):
        ChatTemplate.load(tmp_path, qwen_tokenizer)


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "socket"])
def test_a_tokenizer_is_a_plain_file(kind: str, tmp_path: Path) -> None:
    _put(tmp_path / "tokenizer.json", kind)
    with pytest.raises(CheckpointError, match="no plain file"):
        Tokenizer.load(tmp_path)


def _put(path: Path, kind: str) -> None:
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        # Sockets have short names only.
        with socket.socket(socket.AF_UNIX) as made:
            here = Path.cwd()
            os.chdir(path.parent)
            made.bind(path.name)
            os.chdir(here)


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+b"}, "behavior": "Isolated", "invert": False}
DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": DOUBLE},
        {"normalizer": {"type": "Sequence", "normalizers": [DOUBLE] * 40}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 9999}},
        {"normalizer": {"type": "Prepend", "prepend": "a" * 9999}},
        {"pre_tokenizer": SPLIT},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [SPLIT]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "zz"]]}},
        {"model": {"type": "BPE", "vocab": {"a": 2**63}, "merges": []}},
        {"model": {"type": "Unigram", "unk_id": 9, "vocab": []}},
        {"added_tokens": [{"id": 2**31, "content": "<|x|>", "special": True}] * 3},
        {"added_tokens": "[" * 9},
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(" * 3000},
                "behavior": "Isolated",
            }
        },
    ],
    ids=range(12),
)
def test_every_tokenizer_loads_or_ends_in_one_line(change: dict[str, Any], tmp_path: Path) -> None:
    whole = json.loads((EMBEDDED / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps({**whole, **change}))
    try:
        Tokenizer.load(tmp_path).encode_text("aaaa" * 20)
    except CheckpointError as error:
        assert "\n" not in str(error)
