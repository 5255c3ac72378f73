"""Proofs on the user's own machine that what the project claims holds there.

``repair`` lets the loop repair an example whose bug is known, in the sandbox. ``replay`` reads the
prompts of a session of many steps twice: kept, as we do, and sent again, as a client of a server
without state does. The third proof, a kill and a resume, needs processes: ``agent.cli.prove``.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from agent.client import Client
from agent.errors import BrokenInstall
from agent.loading import LoadedModel
from agent.run.report import status_of
from agent.run.solve import solve
from agent.sessions.store import SessionStore
from agent.settings.table import Settings
from agent.types import SolveReport, Task
from model.engine import Engine

EXAMPLE = "anagrams"
CHECK = (
    "python3 -c 'import test_anagrams as t;"
    ' [f() for n, f in vars(t).items() if n.startswith("test_")]\''
)
"""Runs the example's tests without pytest, which a sandbox may lack."""
STEPS = 30
STEP_TOKENS = 60
ATTEMPTS = 8
REPAIR_S = 90.0
RESEND_S = 20.0
"""Seconds that sending the transcript again may take; beyond, its time is computed."""
LIMITS = {"n": 1, "temperature": 0.0, "max_turn_tokens": 512, "max_wall_time": REPAIR_S}


@dataclass(frozen=True)
class Replay:
    """Cost of a session's prompts, in tokens and seconds: kept, and sent again at each step.

    With ``computed`` the seconds of sending again were not measured, but follow from the rate at
    which the whole transcript was read in one piece.
    """

    steps: int
    kept_tokens: int
    kept_s: float
    resent_tokens: int
    resent_s: float
    computed: bool


@contextmanager
def example_repository() -> Iterator[tuple[Path, str]]:
    """Yield a git repository with the example, and its issue's text. Raises ``BrokenInstall``."""
    source = _example()
    with TemporaryDirectory(prefix="tenuto-proof-") as top:
        repo = Path(top) / EXAMPLE
        repo.mkdir()
        for file in source.glob("*.py"):
            shutil.copy(file, repo)
        subprocess.run(["git", "init", "-q", str(repo)], check=True, capture_output=True)
        yield repo, (source / "ISSUE.md").read_text("utf-8").strip()


def repair(settings: Settings, model: LoadedModel, store: SessionStore) -> SolveReport:
    """Repair the example in the sandbox of ``settings``; raises as ``solve``.

    The first try is greedy. Where it fails (other processors round otherwise, and a small model
    then says something else) several attempts at once follow; the check picks among them.
    """
    with example_repository() as (repo, issue):
        task = Task(issue, repo, CHECK)
        for more in ({}, {"n": ATTEMPTS, "temperature": None}):
            chosen = settings.model_copy(update={**LIMITS, **more})
            report = solve(task, chosen, model, Client(), store=store)
            if status_of(report.result, report.check)[1] == 0:
                break
        return report


def replay(model: LoadedModel, steps: int = STEPS) -> Replay:
    """Read the prompts of ``steps`` steps, kept and sent again.

    Raises ``AssertionError`` if the kept session prefilled any token twice or ends elsewhere than
    one that reads the whole transcript.
    """
    engine, prompts = model.engine, _prompts(model, steps)
    session = engine.session()
    began = perf_counter()
    for prompt in prompts:
        session.extend(prompt)
    kept_s = perf_counter() - began
    new = sum(map(len, prompts))
    assert session.usage.prefilled_tokens == new, "a token was prefilled twice"
    whole = [token for prompt in prompts for token in prompt]
    again = engine.session()
    began = perf_counter()
    again.extend(whole)
    rate = new / (perf_counter() - began)
    assert session.ids == again.ids, "the kept session holds another text"
    session.close()
    again.close()
    ends = [sum(map(len, prompts[:number])) for number in range(1, steps + 1)]
    computed = sum(ends) / rate > RESEND_S
    resent_s = sum(ends) / rate if computed else _resend(engine, whole, ends)
    return Replay(steps, new, kept_s, sum(ends), resent_s, computed)


def _resend(engine: Engine, whole: list[int], ends: list[int]) -> float:
    """Return the seconds it takes to read the transcript anew for each step."""
    began = perf_counter()
    for end in ends:
        session = engine.session()
        session.extend(whole[:end])
        session.close()
    return perf_counter() - began


def _prompts(model: LoadedModel, steps: int) -> list[list[int]]:
    """Return the ids of ``steps`` prompts: pieces of this program's own source."""
    length = min(STEP_TOKENS, model.engine.context_length // (steps + 1))
    ids: list[int] = []
    for file in sorted(Path(__file__).parent.glob("*.py")):
        ids += model.chat.encode_text(file.read_text("utf-8"))
        if len(ids) >= steps * length:
            break
    return [ids[at * length : (at + 1) * length] for at in range(steps)]


def _example() -> Path:
    """Return the example's folder: in a wheel beside the evaluations, in a clone at the top."""
    top = Path(__file__).resolve().parents[2]
    for folder in (top / "evals" / "examples" / EXAMPLE, top / "examples" / EXAMPLE):
        if folder.is_dir():
            return folder
    raise BrokenInstall(f"the example {EXAMPLE} is not there; install tenuto again")
