"""What reaches a terminal cannot steer it; what reaches a pipe is exact; a closed pipe is quiet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.output import write_json, write_out, write_patch
from agent.text import one_line, visible


def test_control_characters_are_shown() -> None:
    assert visible("a\x1b[31mred\x07\r\n\tb\x7f") == "a␛[31mred␇␍\n\tb␡"
    assert visible("\u202eevil\x9b") == "\ufffdevil\ufffd"
    assert visible("\udcff").encode() == "\ufffd".encode()
    assert visible("plain ümläut → ✓") == "plain ümläut → ✓"


def test_one_line_is_one_line() -> None:
    assert one_line(ValueError("a\n  b\x1b")) == "a b␛"
    assert one_line(ValueError()) == "ValueError"


def test_bytes_that_are_no_utf8_leave_as_they_came(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    write_patch(b"-caf\xe9\r\n+caf\xc3\xa9\n".decode("utf-8", "surrogateescape"))
    assert capfdbinary.readouterr().out == b"-caf\xe9\r\n+caf\xc3\xa9\n"


def test_other_surrogates_do_not_stop_it(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_out("a\ud800b\n")
    assert capfdbinary.readouterr().out == b"a?b\n"


def test_json_is_one_ascii_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_json({"patch": "é\n\u2028\udcff", "path": Path("a")})
    out = capfdbinary.readouterr().out
    assert out.count(b"\n") == 1
    assert out.isascii()
    assert json.loads(out) == {"patch": "é\n\u2028\udcff", "path": "a"}


def run(code: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", f"from agent.cli.output import write_out, write_err\n{code}"],
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[4],
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(
            "write_out('x' * 100_000)\nwrite_out('more')\nprint('even print')", stdout=writer
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_stdout_at_all_is_quiet() -> None:
    done = run(
        "import os, sys\nsys.stdout.close()\nwrite_out('x')\nsys.stdout = None\nwrite_out('x')",
        stdout=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def on_a_terminal(code: str, **variables: str) -> str:
    """Return what a terminal is sent by ``code``."""
    ours, theirs = os.openpty()
    done = run(code, stdout=theirs, env=dict(os.environ) | variables)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, b"")
    with os.fdopen(ours, "rb") as terminal:
        return terminal.read1(10_000).decode("utf-8")


PATCH = "+clip\x1b]52;c;ZXZpbA==\x07board\n"


@pytest.mark.parametrize("writer", ["write_patch", "write_out"])
def test_nothing_raw_reaches_a_terminal_without_colours(writer: str) -> None:
    said = on_a_terminal(
        f"from agent.cli.output import write_patch\n{writer}({PATCH!r})", NO_COLOR="1"
    )
    assert said == "+clip\u241b]52;c;ZXZpbA==\u2407board\r\n"


def test_colours_are_the_only_control_characters_of_a_patch() -> None:
    code = f"from agent.cli.output import write_patch\nwrite_patch({PATCH!r})"
    said = on_a_terminal(f"import os\nos.environ.pop('NO_COLOR', None)\n{code}")
    assert said == "\x1b[32m+clip\u241b]52;c;ZXZpbA==\u2407board\x1b[0m\r\n"


def test_a_pipe_gets_the_patch_byte_for_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_patch(PATCH)
    assert capfdbinary.readouterr().out == PATCH.encode()
