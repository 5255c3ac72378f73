"""Commands say what their recorded transcripts say: stdout, stderr and exit code.

The transcripts in ``tests/golden/transcripts`` were first recorded before the code was rearranged.
``UPDATE_GOLDEN=1`` writes them anew; read the difference before you commit it. What differs from
run to run (times, ids, folders, what the model says) is masked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "transcripts"
ENTRY = os.environ.get("TENUTO_TRANSCRIPT_ENTRY", "from agent.cli.main import main; main()")
SOLVE = ("solve", "repair it", "--sandbox", "local", "--temperature", "0", "--max-steps", "1")
SHORT = (*SOLVE, "--max-turn-tokens", "24")

CASES: Mapping[str, tuple[str, ...]] = {
    "solve_no_repository": ("solve", "x", "--repo", "{work}/nothing"),
    "solve_no_repository_json": ("solve", "x", "--repo", "{work}/nothing", "--output", "json"),
    "solve_empty_task": ("solve", " ", "--repo", "{repo}"),
    "solve_unknown_flag": ("solve", "x", "--max-stepz", "3"),
    "solve_bad_value": ("solve", "x", "--repo", "{repo}", "--max-steps", "0"),
    "solve_unknown_sandbox": ("solve", "x", "--repo", "{repo}", "--sandbox", "dockr"),
    "solve_n_without_check": (*SOLVE, "--repo", "{repo}", "--n", "2"),
    "solve_unknown_model": ("solve", "x", "--repo", "{repo}", "--model", "{work}/no-model"),
    "solve_json": (*SHORT, "--repo", "{repo}", "--output", "json"),
    "solve_stream": (*SHORT, "--repo", "{repo}", "--output", "stream-json"),
    "solve_text": (*SHORT, "--repo", "{repo}"),
    "sessions_list": ("sessions", "list"),
    "sessions_list_json": ("sessions", "list", "--output", "json"),
    "sessions_show": ("sessions", "show", "{session}"),
    "sessions_show_json": ("sessions", "show", "{session}", "--output", "json"),
    "sessions_patch": ("sessions", "patch", "{session}"),
    "sessions_show_unknown": ("sessions", "show", "nobody"),
    "fork": ("fork", "{session}"),
    "fork_json": ("fork", "{session}", "--output", "json"),
    "rewind": ("rewind", "{session}", "--to", "0"),
    "rewind_too_far": ("rewind", "{session}", "--to", "7"),
    "resume_unknown": ("resume", "nobody", "go on"),
    "resume_json": ("resume", "{session}", "go on", "--max-steps", "1", "--output", "json"),
    "model_list": ("model", "list"),
    "model_info_unknown": ("model", "info", "{work}/no-model"),
    "trace_unknown": ("trace", "nobody"),
    "eval_no_data": (
        "eval",
        "run",
        "repair",
        "--dataset",
        "{work}/none.jsonl",
        "--run",
        "{work}/r",
    ),
    "eval_report_no_run": ("eval", "report", "{work}/no-run"),
    "eval_unknown_suite": ("eval", "run", "nonsense", "--run", "{work}/r"),
    "sandbox_unknown_command": ("sandbox", "nonsense"),
    "no_such_command": ("slove",),
}

_MASKS = (
    (r" steps +now +[\d.,]+ [kM]B", " steps  AGE  SIZE"),
    (r"\b\d{8}-\d{6}-[0-9a-f]{4,}\b", "SESSION"),
    (r"\b[0-9a-f]{12,64}\b", "HASH"),
    (r"\b\d[\d,]*\.?\d* (s|ms|MB|GB|MiB|GiB|tokens/s)\b", r"N \1"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00)?", "TIME"),
    (r"\bdecode \d+ tok/s", "decode N tok/s"),
    (r" \(drafts: [^)]*\)", ""),
    (r"(?s)\nstep 1\n.*?(?=\n-- stderr)", "\nstep 1\n  SAID"),
    (
        r"\b[\d,]+( tokens| context| new| prefilled| generated| reused| thinking| abandoned)",
        r"N\1",
    ),
)
_SAID = {"text", "message", "token_ids", "logprobs", "observations", "content", "thinking"}
_MEASURED = re.compile(r"(_s|_tokens|time|_at|owner|pid|version|fingerprint|size_bytes)$")


@pytest.mark.timeout(600)
def test_every_command_says_what_was_recorded(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    subprocess.run([ROOT / "scripts" / "example", "parity", repo], check=True, capture_output=True)
    names = {"work": str(tmp_path), "repo": str(repo), "session": ""}
    differing = {}
    for case, arguments in CASES.items():
        said = _transcript([part.format(**names) for part in arguments], tmp_path, names)
        if case == "solve_text":
            names["session"] = sorted((tmp_path / "state/tenuto/sessions").iterdir())[-1].name
        path = GOLDEN / f"{case}.txt"
        if os.environ.get("UPDATE_GOLDEN"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(said, "utf-8")
        elif path.read_text("utf-8") != said:
            differing[case] = said
    assert differing == {}


def _transcript(arguments: list[str], work: Path, names: Mapping[str, str]) -> str:
    """Run the command in an environment of its own and return what it said, masked."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work / "home"),
        "COLUMNS": "100",
        **{f"XDG_{kind.upper()}_HOME": str(work / kind) for kind in ("state", "config", "cache")},
    }
    for key in ("PYTHONPATH", "OMP_NUM_THREADS"):
        if key in os.environ:
            environment[key] = os.environ[key]
    done = subprocess.run(
        [sys.executable, "-P", "-c", ENTRY, *arguments],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))},
        cwd=work,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    command = " ".join(["$ agent", *arguments])
    parts = [command, _lines(done.stdout), "-- stderr", done.stderr, f"-- exit {done.returncode}"]
    return _masked("\n".join(parts) + "\n", names)


def _lines(text: str) -> str:
    """Spread JSON lines over several, without what the model said or what was measured."""
    out: list[str] = []
    for line in text.splitlines():
        try:
            data = json.loads(line)
        except ValueError:
            out.append(line)
            continue
        shown = json.dumps(_plain(data), indent=1, sort_keys=True)
        if not out or out[-1] != shown:
            out.append(shown)
    return "\n".join(out)


def _plain(value: object, key: str = "") -> object:
    """Return ``value`` with what differs from run to run replaced by its type."""
    if key in _SAID or _MEASURED.search(key):
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {name: _plain(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _masked(text: str, names: Mapping[str, str]) -> str:
    text = (
        text.replace(names["repo"], "REPO")
        .replace(names["work"], "WORK")
        .replace(str(ROOT), "ROOT")
    )
    if names["session"]:
        text = text.replace(names["session"], "SESSION")
    for pattern, mask in _MASKS:
        text = re.sub(pattern, mask, text)
    return text
