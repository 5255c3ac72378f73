"""Fixtures that tests of several folders share."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import docker.errors
import pytest
from hypothesis import settings

from agent.settings.table import OPTIONS
from agent.settings.variables import variable_of
from model.chat.chat_format import ChatFormat
from model.chat.tokenizer import Tokenizer
from model.scripted import scripted_engine

if TYPE_CHECKING:
    from agent.loading import LoadedModel

GitRepo = Callable[..., Path]
ScriptedModel = Callable[..., "LoadedModel"]

TESTS = Path(__file__).parent

# The same inputs in every run, and no time-out of its own: a busy machine is no fault.
settings.register_profile("suite", derandomize=True, deadline=None)
settings.load_profile("suite")


def pytest_configure() -> None:
    """Signals that whoever started this ignores (nohup, a shell's background) are heard again.

    The agents that tests start inherit it, and leave an ignored signal ignored.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, own)


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or leaves anything in the state, configuration and caches of who runs it."""
    own = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AGENT_")]:
            patch.delenv(name)
        for key in OPTIONS:
            patch.delenv(variable_of(key), raising=False)
        for name in ("state", "config", "cache"):
            patch.setenv(f"XDG_{name.upper()}_HOME", str(own / name))
        patch.setenv("HF_HOME", str(own / "hf"))
        yield


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[docker.DockerClient]:
    """A client of a running Docker engine.

    Without one the test is skipped, or fails if ``TENUTO_REQUIRE_DOCKER`` is 1, so that a machine
    that should have Docker cannot pass by skipping.
    """
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        if os.environ.get("TENUTO_REQUIRE_DOCKER") == "1":
            pytest.fail(f"TENUTO_REQUIRE_DOCKER=1 but no Docker engine answers: {error}")
        pytest.skip("no Docker engine answers")
    yield client
    client.close()


@pytest.fixture
def git_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which git knows nothing of the person who runs the tests."""
    home = tmp_path_factory.mktemp("git-home")
    kept = {key: os.environ[key] for key in ("PATH", "TMPDIR") if key in os.environ}
    return kept | {
        "HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ada Author",
        "GIT_AUTHOR_EMAIL": "ada@example.org",
        "GIT_AUTHOR_DATE": "2024-01-02T03:04:05Z",
        "GIT_COMMITTER_NAME": "Ada Author",
        "GIT_COMMITTER_EMAIL": "ada@example.org",
        "GIT_COMMITTER_DATE": "2024-01-02T03:04:05Z",
    }


@pytest.fixture
def git(git_env: dict[str, str]) -> Callable[..., str]:
    """``git(repo, "status", "--porcelain")`` runs git there and returns what it printed."""

    def run(repo: Path, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=repo, env=git_env, capture_output=True, check=False
        )
        assert done.returncode == 0, f"git {arguments}: {done.stderr.decode()}"
        return done.stdout.decode("utf-8", "surrogateescape")

    return run


@pytest.fixture
def git_repo(tmp_path: Path, git: Callable[..., str]) -> GitRepo:
    """``git_repo({"a.py": "x = 1\\n"}, name="repo", commit=True)`` makes a real repository.

    File contents are text or bytes. With ``commit=False`` nothing is committed; with no files and
    ``commit=True`` there is one empty commit. ``name`` may hold spaces and any Unicode.
    """

    def make(
        files: Mapping[str, str | bytes] | None = None,
        *,
        name: str = "repo",
        commit: bool = True,
    ) -> Path:
        repo = tmp_path / name
        repo.mkdir(parents=True)
        git(repo, "init", "--quiet", "--initial-branch=main")
        for path, content in (files or {}).items():
            target = repo / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        if commit:
            git(repo, "add", "--all")
            git(repo, "commit", "--quiet", "--allow-empty", "--message", "first")
        return repo

    return make


@pytest.fixture(scope="session")
def qwen_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Qwen3.6's tokenizer.json (248,077 entries, 15 MB) and nothing else."""
    directory = tmp_path_factory.mktemp("qwen3_6")
    script = TESTS / "support" / "make_qwen_tokenizer.py"
    subprocess.run([sys.executable, str(script), str(directory)], check=True)
    return directory


@pytest.fixture(scope="session")
def qwen_tokenizer(qwen_directory: Path) -> Tokenizer:
    """Qwen3.6's tokenizer."""
    return Tokenizer.load(qwen_directory)


@pytest.fixture(scope="session")
def qwen_chat(
    qwen_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ChatFormat]:
    """``qwen_chat("qwen3_6")`` is the chat format of that official template with Qwen's tokenizer.

    There are qwen3_5_think, qwen3_5_nothink, qwen3_6 and qwen3_8.
    """

    def load(name: str) -> ChatFormat:
        directory = tmp_path_factory.mktemp(name)
        template = TESTS / "golden" / "templates" / f"{name}.jinja"
        (directory / "chat_template.jinja").write_bytes(template.read_bytes())
        (directory / "config.json").write_text('{"text_config": {"eos_token_id": 248044}}')
        return ChatFormat.load(directory, qwen_tokenizer)

    return load


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint of the real architecture whose weights are few and random."""
    script = runpy.run_path(str(TESTS / "support" / "make_tiny_checkpoint.py"))
    made: Path = script["make"](tmp_path_factory.mktemp("tiny-checkpoint"))
    return made


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_checkpoint: Path) -> Tokenizer:
    """The tokenizer of ``tiny_checkpoint``."""
    return Tokenizer.load(tiny_checkpoint)


@pytest.fixture(scope="session")
def scripted_model(tiny_checkpoint: Path, tiny_tokenizer: Tokenizer) -> ScriptedModel:
    """``scripted_model("turn one", "turn two")``: real session, chat format and parser, no weights.

    A turn is what the model would write after the opened ``<think>``; ``<|im_end|>`` is put after
    each unless ``close`` is False.
    """
    from agent.loading import LoadedModel

    chat = ChatFormat.load(tiny_checkpoint, tiny_tokenizer)

    def make(*turns: str, close: bool = True, context_length: int = 1 << 20) -> LoadedModel:
        written = [turn + "<|im_end|>" if close else turn for turn in turns]
        engine = scripted_engine(written, tokenizer=tiny_tokenizer, context_length=context_length)
        return LoadedModel(engine, chat)

    return make
