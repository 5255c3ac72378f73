"""Fixtures of the tests that run the agent end to end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.loading import LoadedModel
from agent.sessions.store import SessionStore
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.checkpoint.config import ModelConfig
from model.engine import Engine
from model.sampling import SamplingParams
from tests.support.placed import PlacedNetwork

BUGGY = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "test_calc.py": "from calc import add\n\nassert add(2, 3) == 5, add(2, 3)\n",
}
CHECK = "python3 -B test_calc.py"


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State, configuration and caches of the test's own; returns the state's parent."""
    for name in ("state", "config", "cache"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / "own" / name))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "own" / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    return tmp_path / "own" / "state"


@pytest.fixture
def store(own_places: Path) -> SessionStore:
    """The sessions of this test."""
    return SessionStore()


@pytest.fixture
def buggy_repo(git_repo: Callable[..., Path]) -> Path:
    """A repository whose one test fails because of one operator."""
    return git_repo(BUGGY, name="buggy")


class Script:
    """Turns as the model writes them after the opened ``<think>``."""

    CHECK = CHECK

    @staticmethod
    def call(name: str, **parameters: Any) -> str:
        """A tool call."""
        body = "".join(
            f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters.items()
        )
        return f"<tool_call>\n<function={name}>\n{body}</function>\n</tool_call>"

    @staticmethod
    def turn(*calls: str, thinking: str = "Let me see.", content: str = "") -> str:
        """Reasoning, perhaps text, and calls."""
        text = f"{thinking}\n</think>\n\n{content}"
        return text + ("\n\n" if content and calls else "") + "\n".join(calls)

    def repair(self) -> tuple[str, ...]:
        """Five turns that repair ``buggy_repo``."""
        old, new = "    return a - b", "    return a + b"
        return (
            self.turn(self.call("run_shell_command", command=CHECK)),
            self.turn(self.call("read_file", file_path="calc.py"), thinking="Wrong.\nRead it."),
            self.turn(self.call("edit", file_path="calc.py", old_string=old, new_string=new)),
            self.turn(self.call("run_shell_command", command=CHECK), content="Now the tests."),
            self.turn(self.call("submit", summary="add subtracted; it adds now")),
        )


@pytest.fixture
def script() -> Script:
    """How to write turns for ``scripted_model``."""
    return Script()


@pytest.fixture
def placed_model(tiny_checkpoint: Path, tiny_tokenizer: Tokenizer) -> Callable[..., LoadedModel]:
    """``placed_model(*turns)``: as ``scripted_model``, over a network that knows its place."""
    chat = ChatFormat.load(tiny_checkpoint, tiny_tokenizer)

    def make(*turns: str, context_length: int = 1 << 20) -> LoadedModel:
        encode = tiny_tokenizer.encode_markup
        network = PlacedNetwork(
            [encode(turn + "<|im_end|>") for turn in turns],
            tiny_tokenizer.vocab_size,
            tuple(encode("<|im_start|>assistant")),
            tuple(encode("<|im_start|>assistant\n<think>\n")),
            context_length,
        )
        config = ModelConfig.tiny(vocab_size=network.vocab_size, context_length=1 << 20)
        engine = Engine(network, config, name="placed", generation=SamplingParams())
        return LoadedModel(engine, chat)

    return make


@pytest.fixture
def contents() -> Callable[[Path], Mapping[str, str]]:
    """``contents(folder)``: every file below it, .git too, with its mode and a hash."""
    return _contents


@pytest.fixture
def leftovers(own_places: Path) -> Callable[[], list[str]]:
    """``leftovers()``: the working copies that are still there."""
    return lambda: sorted(path.name for path in (own_places / "tenuto" / "workspaces").glob("*"))


def _contents(folder: Path) -> Mapping[str, str]:
    """Every file below ``folder`` (.git too), by path, with its mode and a hash of its bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"link {path.readlink()}"
        elif path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = f"{path.stat().st_mode:o} {digest}"
    return found
