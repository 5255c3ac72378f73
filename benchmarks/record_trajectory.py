"""Record a trajectory of 30 steps on a real repository: this one. Writes data/trajectory.json.

    python -m benchmarks.record_trajectory

The model is scripted: its words and calls are below. All else is real: the system prompt, the tool
schemas, and what the tools gave on a clone of this repository at the commit named in the file, in
bubblewrap. The file holds the messages of each prompt and the text of each turn, for
``agent_trajectory.py`` and ``user_turns.py``, which encode them with Qwen's tokenizer.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from agent.loading import LoadedModel
from agent.run.solve import solve
from agent.sessions.store import SessionStore
from agent.sessions.trajectory import read_lines
from agent.settings.table import Settings
from agent.types import Task
from benchmarks.support.trajectory import DATA, ROOT, Call, chat_format, turn
from model.scripted import scripted_engine
from tools.registry import default_tools

COMMIT = "d5a92ee"
TASK = """\
`agent sessions list` shows every session there is. On a machine with hundreds of them the ones \
that matter scroll away. Add `--status STATUS` to it, which lists the sessions with that status \
only, and `--last N`, which lists the newest N. Both work with `--output json` too. Document both \
in docs/usage.md and add tests."""


def read(path: str, offset: int, limit: int) -> Call:
    """Make a call that reads a part of a file."""
    return "read_file", {"file_path": path, "offset": offset, "limit": limit}


def run(command: str) -> Call:
    """Make a call that runs a shell command."""
    return "run_shell_command", {"command": command}


SESSIONS = "agent/cli/sessions.py"
TESTS = "tests/integration/test_sessions_command.py"
OLD_FLAGS = """\
def list_sessions(
    output: Annotated[Output, typer.Option(help="text, or one JSON object.")] = Output.TEXT,
) -> None:
    \"\"\"List the sessions, oldest first.\"\"\"
"""
NEW_FLAGS = """\
def list_sessions(
    status: Annotated[str | None, typer.Option(help="Only those with this status.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only the newest so many.")] = None,
    output: Annotated[Output, typer.Option(help="text, or one JSON object.")] = Output.TEXT,
) -> None:
    \"\"\"List the sessions, oldest first.\"\"\"
"""
OLD_BODY = "    found = store.sessions()\n    if output is Output.JSON:\n"
NEW_BODY = """\
    found = [s for s in store.sessions() if status in (None, s.status)]
    if last is not None:
        found = found[-last:]
    if output is Output.JSON:
"""
OLD_DOC = "- `agent sessions list` lists them, oldest first.\n"
NEW_DOC = (
    "- `agent sessions list` lists them, oldest first; `--status STATUS` those with that status, "
    "`--last N` the\n  newest N.\n"
)

STEPS: tuple[tuple[str, Call], ...] = (
    (
        "The command lives somewhere under agent/. Let me see how the repository is laid out "
        "before I look for it.",
        ("list_directory", {"path": "."}),
    ),
    (
        "agent/commands probably has one module a group of commands. sessions.py it is, if it is "
        "there.",
        ("glob", {"pattern": "agent/commands/*.py"}),
    ),
    ("This is the file. I need all of the list command and how it prints.", read(SESSIONS, 1, 75)),
    (
        "It takes everything from Store.sessions(). Whether a status can be compared depends on "
        "what SavedSession.status gives for damaged records.",
        ("grep_search", {"pattern": "def sessions|def status|unreadable", "path": "agent"}),
    ),
    (
        "Read the store around those lines, to be sure about the order.",
        read("agent/sessions/store.py", 1, 150),
    ),
    (
        "Sorted by id, which begins with the time: oldest first, so the newest are at the end. Now "
        "the part that lists and finds.",
        read("agent/sessions/store.py", 150, 136),
    ),
    (
        "Next the tests of this command, since new ones should look like them.",
        read(TESTS, 1, 60),
    ),
    (
        "They run the command in the process and read its output. How do the other commands "
        "declare a minimum for a number?",
        ("grep_search", {"pattern": "min=", "path": "agent/commands"}),
    ),
    (
        "typer.Option(min=...) it is. Statuses: which ones exist? A wrong one should not be "
        "silently empty, but the set is open, since limits have their names in it.",
        (
            "grep_search",
            {"pattern": 'limit_|"interrupted"|"failed"', "path": "agent/run/report.py"},
        ),
    ),
    ("The report module documents them at the top.", read("agent/run/report.py", 1, 147)),
    (
        "Statuses are limit_NAME and a few words. I will compare exactly. First the flags.",
        ("edit", {"file_path": SESSIONS, "old_string": OLD_FLAGS, "new_string": NEW_FLAGS}),
    ),
    (
        "Now the body: filter, then cut. With --last after the status, so that --status failed "
        "--last 3 is the last three failed ones.",
        ("edit", {"file_path": SESSIONS, "old_string": OLD_BODY, "new_string": NEW_BODY}),
    ),
    ("Look at the result as a whole.", read(SESSIONS, 24, 40)),
    (
        "A slice with a negative number is right as long as last is at least 1, which min=1 says. "
        "Does it compile?",
        run("python3 -m py_compile agent/cli/sessions.py && echo compiled"),
    ),
    (
        "Then the document. Where does it speak of the command?",
        run("grep -n 'sessions' docs/usage.md"),
    ),
    ("Read that section.", read("docs/usage.md", 100, 93)),
    (
        "One line to change there.",
        ("edit", {"file_path": "docs/usage.md", "old_string": OLD_DOC, "new_string": NEW_DOC}),
    ),
    (
        "A test holds the flags against this page; which one, and does it need the flags in "
        "backticks?",
        read("tests/architecture/test_documents.py", 1, 75),
    ),
    (
        "It looks for `--status and `--last with a backtick before them: both are there. Now the "
        "tests. What fixtures do they have?",
        read("tests/integration/conftest.py", 1, 134),
    ),
    (
        "And how is a session made in a test without running one?",
        read("tests/unit/agent/sessions/test_store.py", 1, 129),
    ),
    (
        "SessionStore.create with a status is enough. Write the test at the end of the file.",
        run(
            "cat >> tests/integration/test_sessions_command.py <<'EOF'\n\n\n"
            "def test_list_by_status_and_number(store, capsys) -> None:\n"
            "    names = [store.create(task=str(n)).update(status=s).id\n"
            '             for n, s in enumerate(["failed", "submitted", "failed"])]\n'
            '    assert call(["sessions", "list", "--status", "failed"]) == 0\n'
            "    shown = capsys.readouterr().out\n"
            "    assert [name in shown for name in names] == [True, False, True]\n"
            '    assert call(["sessions", "list", "--last", "1"]) == 0\n'
            "    assert names[2] in capsys.readouterr().out\nEOF\n"
            "tail -n 14 tests/integration/test_sessions_command.py"
        ),
    ),
    (
        "Is pytest here to run it?",
        run("python3 -m pytest -q tests/integration/test_sessions_command.py 2>&1 | tail -n 5"),
    ),
    (
        "If not, at least the syntax, and what the test imports.",
        run(
            "python3 -m py_compile tests/integration/test_sessions_command.py && "
            "grep -n '^from\\|^import' tests/integration/test_sessions_command.py"
        ),
    ),
    (
        "Is `call` imported there? Let me see how others call the command.",
        ("grep_search", {"pattern": "from agent.cli.app import|def call", "path": "tests"}),
    ),
    (
        "Where else is `call` used in this way?",
        ("grep_search", {"pattern": "call\\(\\[", "path": "tests"}),
    ),
    ("The definition of call itself, for its return value.", read("agent/cli/app.py", 40, 38)),
    ("It returns the exit code. See the whole change.", run("git diff")),
    (
        "The list of changes belongs to the changelog as well.",
        read("CHANGELOG.md", 1, 45),
    ),
    (
        "Add a line below the other commands.",
        (
            "edit",
            {
                "file_path": "CHANGELOG.md",
                "old_string": "- An embedded checkpoint that",
                "new_string": "- `agent sessions list --status STATUS` and `--last N`.\n"
                "- An embedded checkpoint that",
            },
        ),
    ),
    (
        "All four places are done: command, document, test, changelog.",
        ("submit", {"summary": "agent sessions list takes --status and --last"}),
    ),
)


def main() -> None:
    """Run it and write the file."""
    assert len(STEPS) == 30
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        chat, tokenizer = chat_format(place / "qwen")
        repo = place / "tenuto"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(repo)], check=True)
        subprocess.run(["git", "checkout", "--quiet", COMMIT], cwd=repo, check=True)
        said = [turn(*step) for step in STEPS]
        turns = [text + "<|im_end|>" for text in said]
        model = LoadedModel(scripted_engine(turns, tokenizer=tokenizer), chat)
        store = SessionStore(place / "sessions")
        settings = Settings(sandbox="bubblewrap", warm_cache_mb=0)
        report = solve(Task(TASK, repo), settings, model, store=store)
        records = list(read_lines(store.find(report.session).trajectory))
    prompts = [record["messages"] for record in records if record["type"] == "prompt"]
    assert len(prompts) == len(said), [step.observations for step in report.result.steps]
    data = {
        "what": "a scripted model on this repository at the commit; all but its words is real",
        "commit": COMMIT,
        "tools": [tool.schema() for tool in default_tools()],
        "steps": [
            {"messages": messages, "said": text}
            for messages, text in zip(prompts, said, strict=True)
        ],
    }
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=True) + "\n")
    usage = report.result.usage
    print(f"{usage.context_tokens:,} tokens in {len(said)} steps -> {DATA}")


if __name__ == "__main__":
    main()
