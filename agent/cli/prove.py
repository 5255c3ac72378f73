"""``agent prove``: a proof in two minutes, on this machine, of what the project claims."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import typer

from agent.cli.flags import Given, ListOutput, takes
from agent.cli.output import Output, write_err, write_json, write_out
from agent.settings.load import load_settings
from agent.text import explain, visible

if TYPE_CHECKING:
    from agent.settings.table import Settings

RESUME_S = 150.0
ENDED = (0, 3)
"""The exit codes of a run that came to an end of its own: whether its patch is good is luck."""
_AGENT = "from agent.cli.main import main; main()"


@dataclass(frozen=True)
class Proof:
    """Result of one proof: whether it holds, a line for a person, and the figures."""

    name: str
    holds: bool
    line: str
    figures: dict[str, Any]


@takes("model", "device", "quantize", "sandbox", "image")
def prove(given: Given, output: ListOutput = Output.TEXT) -> None:
    """Prove on this machine that it works: a repair, a replay, a kill and a resume.

    Exit code 0 if all three hold. Nothing of yours is touched: the repository is an example, and
    its sessions are removed at the end.
    """
    settings = load_settings(given)
    proofs = run(settings, output)
    if output is Output.JSON:
        write_json(as_json(proofs))
    raise typer.Exit(0 if all(proof.holds for proof in proofs) else 1)


def as_json(proofs: list[Proof]) -> dict[str, Any]:
    """Return the object that ``--output json`` prints."""
    rows = [asdict(proof) for proof in proofs]
    return {"proven": all(proof.holds for proof in proofs), "proofs": rows}


def run(settings: Settings, output: Output) -> list[Proof]:
    """Run the three proofs and tell each as it ends: text on stdout, else on stderr.

    Raises what loading the model or preparing the sandbox raises; a proof that breaks fails.
    """
    # torch comes in here.
    from agent.loading import load_for
    from agent.run import proof
    from agent.run.build import prepare
    from agent.sessions.store import SessionStore

    tell = write_out if output is Output.TEXT else write_err
    settings = prepare(settings.model_copy(update={"check": proof.CHECK}))
    model = load_for(settings)
    with TemporaryDirectory(prefix="tenuto-sessions-") as folder:
        store = SessionStore(Path(folder))
        done = []
        for name in ("repair", "replay", "resume"):
            try:
                if name == "repair":
                    done.append(_repair(settings, model, store))
                elif name == "replay":
                    done.append(_replay(model))
                else:
                    done.append(killed_and_resumed(settings))
            except Exception as error:
                done.append(Proof(name, False, explain(error).message, {}))
            found = done[-1]
            verdict = "holds" if found.holds else "FAILS"
            tell(f"{verdict:<6} {name:<8} {visible(found.line)}\n")
    return done


def _repair(settings: Settings, model: Any, store: Any) -> Proof:
    from agent.run import proof
    from agent.run.report import status_of, summary_of

    report = proof.repair(settings, model, store)
    status, code = status_of(report.result, report.check)
    before = report.check.before if report.check else None
    usage = report.result.usage
    failed_before = before is not None and not before.passed
    good = code == 0 and failed_before and _twice(usage.as_dict()) == 0
    tries = f" (best of {len(report.attempts)})" if report.attempts else ""
    line = (
        f"{proof.EXAMPLE} repaired by {report.model} in {report.sandbox}{tries}: "
        f"{len(report.result.steps)} steps, {usage.wall_s:.1f} s, no token prefilled twice"
        if good
        else f"{proof.EXAMPLE} is not repaired ({status}): {summary_of(report.result)}"
    )
    return Proof("repair", good, line, {"status": status, "usage": usage.as_dict()})


def _replay(model: Any) -> Proof:
    from agent.run import proof

    found = proof.replay(model)
    how = "computed from the measured rate" if found.computed else "measured"
    line = (
        f"{found.steps} steps: {found.kept_tokens:,} tokens prefilled in {found.kept_s:.1f} s; "
        f"sending the transcript again takes {found.resent_tokens:,} in {found.resent_s:.1f} s "
        f"({how}): {found.resent_s - found.kept_s:.1f} s saved"
    )
    return Proof("replay", True, line, asdict(found))


def killed_and_resumed(settings: Settings) -> Proof:
    """Kill a run of its own process after its first step, go on with it, and see it end well."""
    from agent.run import proof

    with proof.example_repository() as (repo, issue), TemporaryDirectory() as state:
        flags = _flags(settings, proof.LIMITS)
        words = ["solve", issue, "--repo", str(repo), "--check", proof.CHECK, *flags]
        session = _killed_after_a_step([*words, "--output", "stream-json"], state)
        if session is None:
            return Proof("resume", False, "the run ended before its first step", {})
        resumed = subprocess.run(
            [*_command(), "resume", session, "--output", "json"],
            cwd=state,
            env=_environment(state),
            capture_output=True,
            text=True,
            timeout=RESUME_S,
            check=False,
        )
    try:
        told = json.loads(resumed.stdout)
        usage, status = told["usage"], told["status"]
    except (ValueError, KeyError, TypeError):
        return Proof("resume", False, resumed.stderr.strip()[-300:] or "no answer", {})
    good = resumed.returncode in ENDED and _twice(usage) == 0
    line = (
        f"killed after its first step and gone on to the end ({status}): "
        f"{told['steps']} steps, {_twice(usage)} tokens prefilled twice"
    )
    return Proof("resume", good, line, {"status": status, "usage": usage})


def _killed_after_a_step(words: list[str], state: str) -> str | None:
    """Run ``agent`` with ``words`` and kill it (SIGKILL) once a step is saved; return its session.

    None if no step came.
    """
    session: str | None = None
    with subprocess.Popen(
        [*_command(), *words],
        cwd=state,
        env=_environment(state),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        stepped = False
        try:
            for line in child.stdout:
                event = json.loads(line)
                session = event.get("session", session)
                if stepped := event.get("event") == "step":
                    break
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
    return session if stepped else None


def _command() -> list[str]:
    return [sys.executable, "-P", "-c", _AGENT]


def _environment(state: str) -> dict[str, str]:
    """Return the variables of the child: sessions in a folder of the proof's own."""
    return {**os.environ, "XDG_STATE_HOME": state}


def _flags(settings: Settings, limits: dict[str, Any]) -> list[str]:
    values = {**settings.model_dump(), **limits}
    own = ("model", "device", "quantize", "sandbox", "image")
    keys = (*own, "temperature", "max_turn_tokens", "max_wall_time")
    given = [(key, values[key]) for key in keys if values[key] is not None]
    return [word for key, value in given for word in (f"--{key.replace('_', '-')}", str(value))]


def _twice(usage: dict[str, Any]) -> int:
    """Return the tokens that were prefilled twice (docs/design.md names the counters)."""
    paid = usage["prefilled_tokens"] + usage["generated_tokens"] + usage["shared_tokens"]
    return int(paid - usage["context_tokens"] - usage["compacted_tokens"])
