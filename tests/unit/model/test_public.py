"""The public surface of the model package, and the examples of docs/python.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import model

ROOT = Path(__file__).parents[3]
NAMES = [
    "ChatFormat",
    "CheckpointError",
    "ContextFull",
    "Engine",
    "MemoryFull",
    "Message",
    "ModelError",
    "ModelNotFound",
    "SamplingParams",
    "Session",
    "SessionClosed",
    "Snapshot",
    "StateError",
    "TokenEvent",
    "Tokenizer",
    "ToolCall",
    "Usage",
    "resolve",
]


def test_the_exported_names_are_these() -> None:
    assert model.__all__ == NAMES
    assert set(NAMES) <= set(dir(model))
    for name in NAMES:
        assert getattr(model, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        model.nothing  # noqa: B018


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, model\nassert not {'torch', 'tokenizers', 'jinja2'} & set(sys.modules)\n"
        "model.ModelError\nassert 'torch' not in sys.modules\n"
        "model.Session\nassert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_package_is_marked_as_typed() -> None:
    packages = ("agent", "evals", "kernels", "model", "sandboxes", "tools")
    assert all((ROOT / package / "py.typed").is_file() for package in packages)


def test_the_blocks_of_the_python_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    assert blocks
    code = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
