"""Bounds by the files of a real workspace, the odd ones too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.loop.constrained import ConstrainedCalls
from agent.run.build import open_box
from agent.settings.table import Settings
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.constraints.call_steering import CallSteering
from sandboxes.workspace.workspace import Workspace
from tools.profiles.profile import load_profile
from tools.registry import Registry
from tools.types import ToolContext

FILES: dict[str, str | bytes] = {
    "calc.py": "def add(a, b):\n    return a - b\n",
    "src/crlf.py": "x = 1\r\ny = 2\r\n",
    "empty.py": "",
    "big.txt": "line of text\n" * 800_000,
    "blob.bin": b"\x89PNG\r\n\x1a\n\0\0\1",
    "latin.txt": "caf\xe9 = 1\n".encode("latin-1"),
    "a b/ü.py": "z = 3\n",
}
Make = Callable[[str], Registry]


@pytest.fixture
def registry(git_repo: Callable[..., Path]) -> Iterator[Make]:
    """``registry("qwen")``: the tools of that profile over a workspace with ``FILES``."""
    workspace = Workspace.create(git_repo(FILES))
    with open_box(Settings(sandbox="local"), workspace, "bounds") as sandbox:
        (sandbox.resolve(".") / "link.py").symlink_to("calc.py")
        yield lambda profile: Registry(ToolContext(sandbox), load_profile(profile).tools)


@pytest.fixture(scope="module")
def chat(tiny_checkpoint: Path, tiny_tokenizer: Tokenizer) -> ChatFormat:
    return ChatFormat.load(tiny_checkpoint, tiny_tokenizer)


def begun(registry: Registry, chat: ChatFormat, text: str) -> CallSteering:
    steering = ConstrainedCalls(chat, registry.schemas(), registry).begin(thinking=False)
    feed(steering, chat, "<tool_call>\n" + text)
    return steering


def feed(steering: CallSteering, chat: ChatFormat, text: str) -> None:
    for token in chat.encode_text(text):
        steering.push(token, thinking=False)


def writes(registry: Registry, chat: ChatFormat, text: str) -> bool:
    """Tell whether ``text`` may be written after ``<tool_call>``."""
    return not begun(registry, chat, text).lost


def edit(path: str, old: str) -> str:
    return f"<function=edit>\n<parameter=file_path>\n{path}\n</parameter>\n" + (
        f"<parameter=old_string>\n{old}\n</parameter>\n<parameter=new_string>\n"
    )


def test_edits_name_files_and_text_that_are_there(registry: Make, chat: ChatFormat) -> None:
    tools = registry("qwen")
    assert writes(tools, chat, edit("calc.py", "    return a - b"))
    assert writes(tools, chat, edit("a b/ü.py", "z"))
    assert writes(tools, chat, edit("src/crlf.py", "x = 1\ny = 2"))
    assert writes(tools, chat, edit("latin.txt", "caf\xe9"))
    assert not writes(tools, chat, edit("calc.py", "    return a + b"))
    assert not writes(tools, chat, edit("calc.py", "a"))  # it stands there twice
    for path in ("calc", "none.py", "link.py", ".git/config", "src", "/etc/passwd"):
        assert not writes(tools, chat, f"<function=edit>\n<parameter=file_path>\n{path}\n</par")
    assert not writes(tools, chat, "<function=edit>\n<parameter=old_string>")
    assert writes(tools, chat, "<function=read_file>\n<parameter=file_path>\ncalc.py\n</par")
    assert not writes(tools, chat, "<function=read_file>\n<parameter=file_path>\nno.py\n</par")
    new = "<function=write_file>\n<parameter=file_path>\nno.py\n</parameter>\n"
    assert writes(tools, chat, new)


@pytest.mark.parametrize("path", ["empty.py", "big.txt", "blob.bin"])
def test_a_file_without_text_to_follow_bounds_nothing(
    path: str, registry: Make, chat: ChatFormat
) -> None:
    """Empty, ten megabytes, binary: the path is bound, the tool tells what is wrong with it."""
    tools = registry("qwen")
    assert writes(tools, chat, edit(path, "anything"))
    seen = tools.run("edit", {"file_path": path, "old_string": "anything", "new_string": "x"})
    assert not seen.ok


def test_a_file_that_changes_meanwhile_is_found_out_by_the_tool(
    registry: Make, chat: ChatFormat
) -> None:
    tools = registry("qwen")
    tools.run("read_file", {"file_path": "calc.py"})
    head, mark, _ = edit("calc.py", "").partition("<parameter=old_string>\n")
    steering = begun(tools, chat, head + mark)
    feed(steering, chat, "    return")
    sandbox = tools.context.sandbox
    sandbox.write_bytes("calc.py", b"def add(a, b):\n    return a * b\n")
    # The turn goes on along what the file held when its value began.
    feed(steering, chat, " a - b\n</parameter>\n<parameter=new_string>\n")
    assert not steering.lost
    arguments = {"file_path": "calc.py", "old_string": "    return a - b", "new_string": "    1"}
    assert not tools.run("edit", arguments).ok
    assert b"a * b" in sandbox.read_bytes("calc.py")
    assert writes(tools, chat, edit("calc.py", "    return a * b"))


def test_an_editor_says_first_what_it_does(registry: Make, chat: ChatFormat) -> None:
    tools = registry("editor")
    start = "<function=str_replace_editor>\n<parameter="
    command = start + "command>\n{}\n</parameter>\n<parameter=path>\n{}\n</parameter>\n"
    assert not writes(tools, chat, start + "path>\n")
    assert writes(tools, chat, command.format("create", "new.py"))
    assert writes(tools, chat, command.format("view", "src"))
    assert not writes(tools, chat, command.format("str_replace", "new.py"))
    old = command.format("str_replace", "calc.py") + "<parameter=old_str>\n{}\n</parameter>\n"
    assert writes(tools, chat, old.format("a - b"))
    assert not writes(tools, chat, old.format("a + b"))


def test_tools_that_change_in_mid_session_are_called_as_they_are_now(
    registry: Make, chat: ChatFormat
) -> None:
    """A conversation is made anew with its tools, and with it what bounds its calls."""
    bash = "<function=bash>\n<parameter=command>\nls\n</parameter>\n"
    assert not writes(registry("qwen"), chat, bash)
    assert writes(registry("lean"), chat, bash)
