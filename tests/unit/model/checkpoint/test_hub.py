"""From a model's name to a directory, against a hub that runs in the test."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from model.checkpoint.hub import resolve
from model.errors import CheckpointError, ModelNotFound

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = Path(__file__).parents[3] / "golden" / "configs" / "qwen3_5_0.8b.config.json"
FILES = {
    "config.json": b'{"model_type": "qwen3_5"}',
    "model.safetensors": b"weights",
    "chat_template.jinja": b"template",
    "pytorch_model.bin": b"not wanted",
    "README.md": b"not wanted",
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download of ``team/model`` needs; ``team/gated`` is gated."""

    requested: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requested.append(path)
        if path.startswith("/api/models/team/gated/"):
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/team/model/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": digest(data)}
                for name, data in FILES.items()
            ]
            self.answer(200, json.dumps(tree).encode())
        elif path.startswith("/api/models/team/model"):
            siblings = [{"rfilename": name} for name in FILES]
            info = {"id": "team/model", "sha": COMMIT, "siblings": siblings, "private": False}
            self.answer(200, json.dumps(info).encode())
        elif path.startswith("/team/model/resolve/") and path.rpartition("/")[2] in FILES:
            data = FILES[path.rpartition("/")[2]]
            self.answer(200, data, {"ETag": f'"{digest(data)}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def digest(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a running hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``ask(endpoint, name)`` resolves in a process of its own, as the library reads its
    environment at import, and returns the path or the error, what stderr got, and the models."""
    script = (
        "import json, sys\n"
        "from model.errors import CheckpointError\n"
        "from model.checkpoint.hub import list_models, resolve\n"
        "try: found = {'path': str(resolve(sys.argv[1]))}\n"
        "except CheckpointError as error:\n"
        "    found = {'error': str(error), 'kind': type(error).__name__}\n"
        "found['models'] = [model.name for model in list_models()]\n"
        "print(json.dumps(found))\n"
    )

    def run(endpoint: str, name: str, **extra: str) -> dict[str, Any]:
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf")} | extra
        done = subprocess.run(
            [sys.executable, "-c", script, name],
            env=environment,
            cwd=Path(__file__).parents[4],
            capture_output=True,
            text=True,
            check=True,
            timeout=150,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found | {"stderr": done.stderr}

    return run


def test_a_hub_model_is_fetched_once_and_works_offline(
    hub: str, ask: Callable[..., dict[str, Any]]
) -> None:
    found = ask(hub, "team/model")
    assert {path.name for path in Path(found["path"]).iterdir()} == {
        "config.json",
        "model.safetensors",
        "chat_template.jinja",
    }
    assert (Path(found["path"]) / "model.safetensors").read_bytes() == b"weights"
    assert "%|" not in found["stderr"], "a progress bar without a terminal"
    again = ask("http://127.0.0.1:9", "team/model", HF_HUB_OFFLINE="1")
    assert again["path"] == found["path"]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("team/missing", "hub has no model team/missing"), ("team/gated", "team/gated is gated")],
)
def test_models_that_cannot_be_had(
    name: str, complaint: str, hub: str, ask: Callable[..., dict[str, Any]]
) -> None:
    found = ask(hub, name)
    assert found["kind"] == "ModelNotFound"
    assert complaint in found["error"]
    assert "\n" not in found["error"]


@pytest.mark.parametrize("extra", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_offline_says_so_in_one_line(
    extra: dict[str, str], ask: Callable[..., dict[str, Any]]
) -> None:
    """Nothing listens on the address, or the library was told not to ask."""
    found = ask("http://127.0.0.1:9", "Qwen/Qwen3.5-0.8B", **extra)
    assert found["kind"] == "ModelNotFound"
    assert found["error"] == (
        "Qwen/Qwen3.5-0.8B is not (or not all) on this machine and the hub cannot be reached;"
        ' go online, or give a checkpoint directory, or "embedded"'
    )


def test_usable_models_of_the_cache_are_listed(
    tmp_path: Path, ask: Callable[..., dict[str, Any]]
) -> None:
    usable = CONFIG.read_text()
    configs = {
        "ok": usable,
        "no-weights": usable,
        "other": '{"model_type": "llama"}',
        "broken": "{",
    }
    for name, config in configs.items():
        repository = tmp_path / "hf" / "hub" / f"models--team--{name}"
        snapshot = repository / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (repository / "blobs").mkdir()
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        (repository / "blobs" / "abc").write_text(config)
        (snapshot / "config.json").symlink_to(repository / "blobs" / "abc")
        if name != "no-weights":
            (snapshot / "model.safetensors").symlink_to(repository / "blobs" / "abc")
    found = ask("http://127.0.0.1:9", "team/none", HF_HUB_OFFLINE="1")
    assert [name for name in found["models"] if name != "embedded"] == ["team/ok"]


def test_a_directory_is_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == tmp_path


def test_a_directory_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("name", ["", "nothing", "a/b/c", "./a/b", "../a", "/no/such/place", "~/x"])
def test_names_that_are_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFound) as caught:
        resolve(name)
    assert "embedded" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").write_text("x")
    with pytest.raises(ModelNotFound, match="is a file"):
        resolve(str(tmp_path / "weights.gguf"))


def test_an_invalid_hub_name() -> None:
    with pytest.raises(ModelNotFound, match="no valid hub name"):
        resolve("a..b/c--d")
