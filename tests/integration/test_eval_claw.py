"""Claw-Eval over a checkout of its layout: real services, graders and containers."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest

from agent.loading import LoadedModel
from evals.errors import DatasetError
from evals.grade import GradeOptions, grade
from evals.instance import Verdict
from evals.run.begin import RunOptions, begin
from evals.run.folder import RunFolder
from evals.suites import find_suite
from evals.suites.dataset import Selection
from sandboxes.images.engine import OWNER_LABEL
from sandboxes.paths import Owner
from tests.support.claw_image import ensure_claw_image
from tests.support.evaluation import call

GOLDEN = Path(__file__).parents[1] / "golden" / "claw_eval"
pytestmark = pytest.mark.docker
Scripted = Callable[..., LoadedModel]


@pytest.fixture(scope="module")
def checkout(docker_engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ensure_claw_image(docker_engine, tmp_path_factory.mktemp("image"))
    # A container's user reads it, so it lies where others may look.
    copy = tmp_path_factory.mktemp("data") / "checkout"
    shutil.copytree(GOLDEN, copy)
    for folder in (copy, *copy.parents):
        if folder.is_relative_to(Path("/tmp")) and folder != Path("/tmp"):
            folder.chmod(0o755)
    return copy


@pytest.fixture
def attempt(
    checkout: Path, tmp_path: Path, scripted_model: Scripted
) -> Callable[..., tuple[RunFolder, Verdict]]:
    """Run one task with a script, or with the agent nop, and grade it."""

    def make(
        task: str, *turns: str, judge: str | None = None, limit: float = 120
    ) -> tuple[RunFolder, Verdict]:
        options = RunOptions(
            "claw-eval",
            str(checkout),
            tmp_path / "run",
            ids=(task,),
            workers=1,
            pull=False,
            agent="tenuto" if turns else "nop",
            judge=judge,
        )
        model = scripted_model(*turns) if turns else None
        assert begin(options, {}, model=model) == 0
        grade(GradeOptions(options.place, workers=1, timeout=limit))
        folder = RunFolder(options.place)
        (verdict,) = folder.grades().values()
        return folder, verdict

    return make


@contextmanager
def served(*answers: str) -> Iterator[tuple[str, list[str]]]:
    """Serve an OpenAI-compatible model that says ``answers`` in turn, the last for ever."""
    said, asked = list(answers), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.tell({"data": [{"id": "one"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body["messages"][-1]["content"])
            text = said.pop(0) if len(said) > 1 else said[0]
            self.tell({"choices": [{"message": {"role": "assistant", "content": text}}]})

        def tell(self, data: object) -> None:
            text = json.dumps(data).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", asked
        finally:
            server.shutdown()
            thread.join()


def test_the_tasks_own_tools_reach_its_services_and_its_grader_decides(
    attempt: Callable[..., tuple[RunFolder, Verdict]], docker_engine: docker.DockerClient
) -> None:
    folder, verdict = attempt(
        "D001_close",
        f"a\n</think>\n\n{call('desk_close', ticket='T-9')}",
        f"b\n</think>\n\n{call('desk_list')}",
        f"c\n</think>\n\n{call('desk_close', ticket='T-1')}",
        "d\n</think>\n\nIt was T-1.",
    )
    (result,) = folder.results().values()
    assert (result.status, result.summary, result.steps) == ("answered", "It was T-1.", 4)
    assert (verdict.resolved, verdict.reward) == (True, 1.0)
    record = json.loads((folder.attempt("D001_close", 1) / "verifier.json").read_text())
    assert [d["response_status"] for d in record["dispatches"]] == [404, 200, 200]
    assert record["audit"] == {"desk": {"closed": ["T-1"]}}
    ours = f"{OWNER_LABEL}={Owner.of_this_process()}"
    assert docker_engine.containers.list(all=True, filters={"label": ours}) == []


def test_no_work_is_graded_zero(attempt: Callable[..., tuple[RunFolder, Verdict]]) -> None:
    _, verdict = attempt("D001_close")
    assert (verdict.resolved, verdict.reward) == (False, 0.0)


def test_the_graders_files_come_into_the_sandbox_when_the_agent_is_done(
    attempt: Callable[..., tuple[RunFolder, Verdict]],
) -> None:
    look = "test ! -e fixtures/verify.py && test ! -e fixtures/truth.txt && echo 9 > sum.txt"
    folder, verdict = attempt(
        "D002_hidden",
        f"a\n</think>\n\n{call('run_shell_command', command=look)}",
        f"b\n</think>\n\n{call('submit', summary='9')}",
    )
    assert (verdict.resolved, verdict.reward) == (True, 1.0), verdict
    (result,) = folder.results().values()
    assert "verify.py" not in result.patch


def test_a_persona_answers_and_a_judge_grades(
    attempt: Callable[..., tuple[RunFolder, Verdict]],
) -> None:
    words = ("a\n</think>\n\nWhich do you like?", "b\n</think>\n\nTake sencha.")
    with served("Green.", "[DONE]", '{"score": 0.9}') as (address, asked):
        folder, verdict = attempt("D003_persona", *words, judge=address)
    assert (verdict.resolved, verdict.reward) == (True, 0.92)
    assert "Which do you like?" in asked[0]
    assert "Take sencha." in asked[2]
    record = json.loads((folder.attempt("D003_persona", 1) / "verifier.json").read_text())
    assert [m["message"]["role"] for m in record["messages"]] == ["user", "assistant"] * 2


@pytest.mark.parametrize(
    ("answer", "told"),
    [("No idea.", "nothing usable in 3 answers"), (None, "it needs a judge; name one")],
)
def test_a_judge_that_is_not_there_or_talks_nonsense_is_no_zero(
    attempt: Callable[..., tuple[RunFolder, Verdict]], answer: str | None, told: str
) -> None:
    with served("[DONE]", answer or "") as (address, _):
        judge = address if answer else None
        _, verdict = attempt("D003_persona", "a\n</think>\n\nTea.", judge=judge)
    assert verdict.resolved is None
    assert told in verdict.reason


def test_what_cannot_run_here_is_told_by_its_name(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERP_DEV_KEY", raising=False)
    found = {i.id: i.refused for i in find_suite("claw-eval").load(str(checkout / "tasks"))}
    assert "SERP_DEV_KEY is not set" in found["D004_web"]
    assert "prompt.text is missing" in found["D005_odd"]
    assert not found["D001_close"]
    with pytest.raises(DatasetError, match="it has no folder src"):
        find_suite("claw-eval").load(str(checkout / "src"))


def test_a_service_that_does_not_come_up_is_the_environments_fault(
    checkout: Path, tmp_path: Path
) -> None:
    options = RunOptions(
        "claw-eval", str(checkout), tmp_path / "run", ids=("D006_sick",), agent="nop", pull=False
    )
    assert begin(options, {}) == 1
    (result,) = RunFolder(options.place).results().values()
    assert result.exit_status == "environment"
    assert "the service desk ended with exit code 7" in result.summary


def test_a_changed_service_is_another_task(checkout: Path) -> None:
    suite = find_suite("claw-eval")
    (before,) = Selection(("D001_close",)).of(suite.load(str(checkout)))
    server = checkout / "mock_services" / "desk" / "server.py"
    text = server.read_text()
    server.write_text(text + "\n")
    (after,) = Selection(("D001_close",)).of(suite.load(str(checkout)))
    server.write_text(text)
    assert before.digest != after.digest
