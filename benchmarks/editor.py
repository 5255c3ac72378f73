"""Measure how soon an editor hears of things, and whether cancelling ever goes wrong.

    .venv/bin/python -m benchmarks.editor [--cancels 1000] [--sandbox bubblewrap]

Starts the real ``agent acp`` with the embedded model and drives it with the protocol's Python SDK.

``first_update_ms``  from sending a prompt to its first update, and to the first piece of the
                     model's (which includes the prefill of the prompt)
``load``             ``session/load`` of a session of about 10,000 tokens, and what the next prompt
                     prefilled (its own tokens alone)
``cancels``          prompts cancelled after a random delay: how long until the answer, and what
                     went wrong: no answer within 60 s, an answer that is neither ``cancelled`` nor
                     that of a turn that had ended already, a command that still runs, processes
                     that are left when the session is closed

One JSON object on stdout. The random moments are seeded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from acp import Client, spawn_agent_process, text_block
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    RequestPermissionResponse,
)

from benchmarks.support.recording import machine, record

ROOT = Path(__file__).resolve().parent.parent

TASK = "is_even in parity.py is wrong\n\nCheck: python3 -m pytest -xq"
BUGGY = "def is_even(number):\n    return number % 2 == 1\n"
TEST = "from parity import is_even\n\n\ndef test_even():\n    assert is_even(4)\n"
SLOW = "import sys\nimport time\n\nprint('F', flush=True)\ntime.sleep(0.5)\nsys.exit(1)\n"
"""What stands for pytest, so that a command runs for a while in any sandbox."""

ANSWER_S = 60.0
TURNS_A_SESSION = 25
PROMPTS = 20


class Editor:
    """Allows everything and notes when updates came."""

    def __init__(self) -> None:
        self.times: list[tuple[float, str]] = []

    def on_connect(self, connection: Any) -> None:
        """Keep nothing."""

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        """Note the time."""
        self.times.append((time.perf_counter(), update.session_update))

    async def request_permission(
        self, session_id: str, tool_call: Any, options: Any, **_: Any
    ) -> RequestPermissionResponse:
        """Yes."""
        outcome = AllowedOutcome(outcome="selected", option_id="allow")
        return RequestPermissionResponse(outcome=outcome)


def make_repo(folder: Path) -> Path:
    """Make a repository with one wrong operator."""
    repo = folder / "repo"
    repo.mkdir()
    (repo / "parity.py").write_text(BUGGY)
    (repo / "test_parity.py").write_text(TEST)
    (repo / "pytest.py").write_text(SLOW)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], cwd=repo, check=True)
    return repo


def long_model(folder: Path) -> Path:
    """Return the embedded checkpoint, told that it may read 16,384 tokens."""
    target = folder / "model"
    shutil.copytree(ROOT / "model" / "embedded", target)
    config = json.loads((target / "config.json").read_text())
    for part in (config, config.get("text_config", {})):
        if "max_position_embeddings" in part:
            part["max_position_embeddings"] = 16_384
    (target / "config.json").write_text(json.dumps(config))
    return target


def descendants(pid: int) -> list[int]:
    """Return every process below ``pid``."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def running(pid: int, word: str) -> int:
    """Count the processes below ``pid`` that have ``word`` in their command line."""
    count = 0
    for child in descendants(pid):
        try:
            count += word.encode() in Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
    return count


async def first_updates(agent: Any, editor: Editor, repo: Path) -> dict[str, float]:
    """Medians over several prompts, each in a session that is open already."""
    first, spoken = [], []
    for _ in range(PROMPTS):
        session = await agent.new_session(cwd=str(repo), mcp_servers=[])
        await asyncio.sleep(1.0)
        editor.times.clear()
        sent = time.perf_counter()
        asked = asyncio.ensure_future(
            agent.prompt(session_id=session.session_id, prompt=[text_block(TASK)])
        )
        while not any(kind == "agent_thought_chunk" for _, kind in editor.times):
            await asyncio.sleep(0.001)
        await agent.cancel(session_id=session.session_id)
        await asked
        await agent.close_session(session_id=session.session_id)
        first.append(editor.times[0][0] - sent)
        spoken.append(next(at for at, kind in editor.times if kind == "agent_thought_chunk") - sent)
    return {
        "first_update_ms": round(1000 * statistics.median(first), 1),
        "first_update_ms_worst": round(1000 * max(first), 1),
        "first_of_the_model_ms": round(1000 * statistics.median(spoken), 1),
        "prompts": PROMPTS,
    }


async def load(agent: Any, repo: Path, start: Any) -> dict[str, Any]:
    """Make a long session, load it in another process, and prompt there."""
    words = " ".join(f"word{n}" for n in range(2_600))
    session = await agent.new_session(cwd=str(repo), mcp_servers=[])
    asked = asyncio.ensure_future(
        agent.prompt(session_id=session.session_id, prompt=[text_block(f"{TASK}\n\n{words}")])
    )
    answer = await asked
    used = answer.field_meta["tenuto"]["usage"]["context_tokens"]
    await agent.close_session(session_id=session.session_id)
    async with start() as (other, _):
        await other.initialize(1, ClientCapabilities())
        await other.list_sessions()
        began = time.perf_counter()
        await other.load_session(session_id=session.session_id, cwd=str(repo), mcp_servers=[])
        loaded = time.perf_counter() - began
        answer = await other.prompt(session_id=session.session_id, prompt=[text_block("and now?")])
        usage = answer.field_meta["tenuto"]["usage"]
    return {
        "tokens": used,
        "load_ms": round(1000 * loaded, 1),
        "then_prefilled": usage["prefilled_tokens"],
        "then_context": usage["context_tokens"],
    }


async def cancels(agent: Any, pid: int, repo: Path, number: int, seed: int) -> dict[str, Any]:
    """Prompt and cancel after a random delay, again and again."""
    draw = random.Random(seed)
    took: list[float] = []
    wrong = {"hangs": 0, "wrong_reasons": 0, "errors": 0, "commands": 0, "left_processes": 0}
    ended = 0
    session = None
    quiet = len(descendants(pid))
    for turn in range(number):
        if turn % TURNS_A_SESSION == 0:
            if session is not None:
                await agent.close_session(session_id=session)
                wrong["left_processes"] += max(0, len(descendants(pid)) - quiet)
            made = await agent.new_session(cwd=str(repo), mcp_servers=[])
            session = made.session_id
        (repo / "parity.py").write_text(BUGGY)
        asked = asyncio.ensure_future(agent.prompt(session_id=session, prompt=[text_block(TASK)]))
        await asyncio.sleep(draw.uniform(0.0, 1.0))
        over = asked.done()
        cancelled = time.perf_counter()
        await agent.cancel(session_id=session)
        try:
            answer = await asyncio.wait_for(asked, ANSWER_S)
        except TimeoutError:
            wrong["hangs"] += 1
            session = None
            continue
        except Exception as error:
            print(f"turn {turn}: {error!r} {getattr(error, 'data', '')}", file=sys.stderr)
            wrong["errors"] += 1
            continue
        took.append(time.perf_counter() - cancelled)
        ended += over
        if not over and answer.stop_reason not in ("cancelled", "end_turn"):
            wrong["wrong_reasons"] += 1
        if answer.stop_reason == "cancelled" and running(pid, "pytest"):
            await asyncio.sleep(0.5)
            wrong["commands"] += running(pid, "pytest")
    if session is not None:
        await agent.close_session(session_id=session)
    wrong["left_processes"] += max(0, len(descendants(pid)) - quiet)
    return {
        "cancels": number,
        "had_ended_before": ended,
        "answer_ms": round(1000 * statistics.median(took), 1),
        "answer_ms_p99": round(1000 * sorted(took)[int(len(took) * 0.99)], 1),
        "answer_ms_worst": round(1000 * max(took), 1),
        **wrong,
    }


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, on one process, but for the load."""
    repo = make_repo(folder)
    environment = dict(os.environ, PYTHONPATH=str(ROOT), XDG_STATE_HOME=str(folder / "state"))
    command = [sys.executable, "-c", "from agent.cli.main import main; main()", "acp"]
    flags = ["--sandbox", options.sandbox, "--model", str(long_model(folder)), "--mode", "auto"]

    def start(editor: Any = None) -> Any:
        return spawn_agent_process(
            cast(Client, editor or Editor()),
            *command,
            *flags,
            env=environment,
            transport_kwargs={"stderr": None},
        )

    editor = Editor()
    found: dict[str, Any] = {"sandbox": options.sandbox, "seed": options.seed}
    async with start(editor) as (agent, process):
        await agent.initialize(1, ClientCapabilities())
        found["first"] = await first_updates(agent, editor, repo)
        found["load"] = await load(agent, repo, start)
        found["cancel"] = await cancels(agent, process.pid, repo, options.cancels, options.seed)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cancels", type=int, default=1000)
    parser.add_argument("--sandbox", default="bubblewrap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="acp-") as folder:
        found = machine() | asyncio.run(measure(options, Path(folder)))
    if options.record:
        record("editor", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
