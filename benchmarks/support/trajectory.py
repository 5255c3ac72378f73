"""The recorded trajectory of 30 steps, and the chat format that its turns are encoded with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "benchmarks" / "data" / "trajectory.json"
Call = tuple[str, dict[str, Any]]


def turn(thought: str, call: Call) -> str:
    """Return a turn as the model writes it, after the opened ``<think>``."""
    name, parameters = call
    body = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in parameters.items())
    return f"{thought}\n</think>\n\n<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"


def chat_format(folder: Path) -> tuple[ChatFormat, Tokenizer]:
    """Make Qwen3.6's chat format and tokenizer in ``folder``."""
    script = ROOT / "tests" / "support" / "make_qwen_tokenizer.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True)
    template = ROOT / "tests" / "golden" / "templates" / "qwen3_6.jinja"
    (folder / "chat_template.jinja").write_bytes(template.read_bytes())
    (folder / "config.json").write_text('{"text_config": {"eos_token_id": 248044}}')
    tokenizer = Tokenizer.load(folder)
    return ChatFormat.load(folder, tokenizer), tokenizer
