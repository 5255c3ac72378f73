"""From a model's name to a directory, against a hub that runs in the test."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar

import pytest

from model.checkpoint.hub import resolve
from model.errors import CheckpointError, ModelNotFound

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = Path(__file__).parents[3] / "golden" / "configs" / "qwen3_5_0.8b.config.json"
FILES = {
    "config.json": CONFIG.read_bytes(),
    "model.safetensors": b"weights",
    "chat_template.jinja": b"template",
    "pytorch_model.bin": b"not wanted",
    "README.md": b"not wanted",
}


LLAMA = b'{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}'
INDEX = b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'
REPOSITORIES = {
    "model": FILES,
    "llama": {"config.json": LLAMA, "model.safetensors": b"weights"},
    "large": {"config.json": CONFIG.read_bytes(), "model.safetensors": b"weights"},
    "damaged": {"config.json": CONFIG.read_bytes(), "model.safetensors": b"weights"},
    "big": {"config.json": CONFIG.read_bytes(), "model.safetensors": b"weights!" * (3 << 20)},
    "indexed": {
        "config.json": CONFIG.read_bytes(),
        "model.safetensors.index.json": INDEX,
        "model-00001-of-00001.safetensors": b"weights",
        "model_extra_tensors.safetensors": b"mtp",
        "consolidated.safetensors": b"the same in another form",
        "original/model.safetensors": b"the same in another folder",
    },
    "quants": {
        "README.md": b"not wanted",
        "a-Q4_K_M.gguf": b"four",
        "a-UD-Q4_K_XL.gguf": b"four, dynamic",
        "a-Q8_0-00001-of-00002.gguf": b"eight",
        "a-Q8_0-00002-of-00002.gguf": b"eight",
        "BF16/a-BF16.gguf": b"sixteen",
        "mmproj-F16.gguf": b"vision",
        "mtp-a.gguf": b"mtp",
    },
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as downloads of ``team/*`` need; ``team/gated`` is gated."""

    requested: ClassVar[list[str]] = []
    stops_at: ClassVar[int | None] = None
    """Where the body of the big file stops coming, until it is None again."""
    go_on: ClassVar[threading.Event] = threading.Event()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.requested.append(path)
        repository = path.removeprefix("/api/models").split("/")[2]
        if path.startswith("/api/models/team/gated/"):
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif repository in REPOSITORIES and path.startswith("/api/"):
            self.answer(200, json.dumps(self.described(repository, "/tree/" in path)).encode())
        elif repository in REPOSITORIES and self.file(path) in REPOSITORIES[repository]:
            data = REPOSITORIES[repository][self.file(path)]
            headers = {"ETag": f'"{digest(data)}"', "X-Repo-Commit": COMMIT}
            self.answer(200, data, headers)
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def file(self, path: str) -> str:
        return path.partition("/resolve/")[2].partition("/")[2]

    def described(self, repository: str, tree: bool) -> Any:
        files = REPOSITORIES[repository]
        if tree:
            return [
                {"type": "file", "path": name, "size": len(data), "oid": digest(data)}
                for name, data in files.items()
            ]
        siblings: list[dict[str, Any]] = [
            {"rfilename": name, "size": len(data)} for name, data in files.items()
        ]
        if repository == "large":
            siblings[1]["size"] = 10**18
        if repository == "damaged":
            lfs = {"sha256": "0" * 64, "size": 7, "pointerSize": 100}
            siblings[1]["lfs"] = lfs
        return {"id": f"team/{repository}", "sha": COMMIT, "siblings": siblings, "private": False}

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "GET":
            return
        if self.stops_at is not None and len(body) > self.stops_at:
            self.wfile.write(body[: self.stops_at])
            self.go_on.wait(120)
            return
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def until(condition: Callable[[], bool]) -> None:
    """Wait for ``condition``, two minutes at most."""
    ended, pause = perf_counter() + 120, threading.Event()
    while not condition():
        assert perf_counter() < ended
        pause.wait(0.01)


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

    def run(
        endpoint: str, name: str, *, limit: int = -1, begin: bool = False, **extra: str
    ) -> dict[str, Any]:
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf")} | extra
        process = subprocess.Popen(
            [sys.executable, "-c", script, name],
            env=environment,
            cwd=Path(__file__).parents[4],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        if begin:
            return {"process": process}
        out, err = process.communicate(timeout=150)
        assert process.returncode == 0, err
        found: dict[str, Any] = json.loads(out)
        return found | {"stderr": err}

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


def names_in(place: str) -> set[str]:
    folder = Path(place)
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_what_cannot_run_is_refused_before_its_weights_are_fetched(
    hub: str, ask: Callable[..., dict[str, Any]]
) -> None:
    Hub.requested.clear()
    found = ask(hub, "team/llama")
    assert "LlamaForCausalLM is not supported" in found["error"]
    assert not any("safetensors" in path for path in Hub.requested)


def test_what_does_not_fit_the_disk_is_refused_before_it_is_fetched(
    hub: str, ask: Callable[..., dict[str, Any]]
) -> None:
    Hub.requested.clear()
    found = ask(hub, "team/large")
    assert "team/large needs 1,000,000,000.0 GB on the disk" in found["error"]
    assert not any("safetensors" in path for path in Hub.requested)


def test_a_disk_that_fills_while_it_is_fetched_is_told(
    hub: str, ask: Callable[..., dict[str, Any]]
) -> None:
    """No process may write files beyond a size here, which fails as a full disk does."""
    found = ask(hub, "team/big", limit=1 << 20)
    assert found["kind"] == "ModelNotFound"
    assert "the disk filled up while team/big was fetched" in found["error"]
    assert "\n" not in found["error"]


def test_a_pull_that_was_killed_is_made_good_by_the_next_one(
    hub: str, ask: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hub, "stops_at", 15 << 20)
    monkeypatch.setattr(Hub, "go_on", threading.Event())
    blobs = tmp_path / "hf" / "hub" / "models--team--big" / "blobs"
    process = ask(hub, "team/big", begin=True)["process"]
    try:
        until(lambda: any(p.stat().st_size >= 10 << 20 for p in blobs.glob("*.incomplete")))
    finally:
        process.kill()
        process.communicate()
    Hub.stops_at = None
    Hub.go_on.set()
    found = ask(hub, "team/big")
    assert (Path(found["path"]) / "model.safetensors").read_bytes() == b"weights!" * (3 << 20)


def test_a_file_with_another_hash_is_refused_and_removed(
    hub: str, ask: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    found = ask(hub, "team/damaged")
    assert "model.safetensors came damaged" in found["error"]
    blobs = list((tmp_path / "hf" / "hub" / "models--team--damaged" / "blobs").iterdir())
    assert b"weights" not in [blob.read_bytes() for blob in blobs]


def test_no_duplicates_in_other_forms_are_fetched(
    hub: str, ask: Callable[..., dict[str, Any]]
) -> None:
    found = ask(hub, "team/indexed")
    assert names_in(found["path"]) == {
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00001.safetensors",
        "model_extra_tensors.safetensors",
    }


@pytest.mark.parametrize(
    ("quant", "files"),
    [
        ("q4_k_m", {"a-Q4_K_M.gguf"}),
        ("Q4_K_XL", {"a-UD-Q4_K_XL.gguf"}),
        ("Q8_0", {"a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf"}),
        ("BF16", {"BF16/a-BF16.gguf"}),
    ],
)
def test_one_quantisation_is_fetched(
    quant: str, files: set[str], hub: str, ask: Callable[..., dict[str, Any]]
) -> None:
    found = ask(hub, f"team/quants:{quant}")
    path = Path(found["path"])
    folder = path.parents[path.parts[::-1].index(COMMIT) - 1]
    assert names_in(str(folder)) == files | {"mtp-a.gguf"}
    assert str(path.relative_to(folder)) == min(files)
    again = ask("http://127.0.0.1:9", f"team/quants:{quant}", HF_HUB_OFFLINE="1")
    assert again["path"] == found["path"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("team/quants:Q5_K_M", "team/quants has no quantisation Q5_K_M; there are BF16, Q4_K_M"),
        ("team/quants", "holds several quantisations; say which: team/quants:BF16"),
        ("team/model:Q4_K_M", "team/model holds no GGUF files"),
    ],
)
def test_a_quantisation_that_is_not_there(
    name: str, says: str, hub: str, ask: Callable[..., dict[str, Any]]
) -> None:
    found = ask(hub, name)
    assert says in found["error"]
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
    (tmp_path / "weights.safetensors").write_text("x")
    with pytest.raises(ModelNotFound, match="is a file"):
        resolve(str(tmp_path / "weights.safetensors"))


def test_an_invalid_hub_name() -> None:
    with pytest.raises(ModelNotFound, match="no valid hub name"):
        resolve("a..b/c--d")
