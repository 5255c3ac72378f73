"""The page of a run in a real browser: it is shown, and nothing in it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from evals.report.page import page
from evals.report.show import ReportOptions, report
from tests.support.sample_run import make_run

RUNS = "document.title='it ran';document.body.innerHTML='it ran'"
HOSTILE = (
    f'</pre></style></title><script>{RUNS}</script><img src=x onerror="{RUNS}">'
    f'<svg/onload="{RUNS}"><iframe srcdoc="<script>parent.{RUNS}</script>"></iframe>'
    f'<a href="javascript:{RUNS}">x</a>\'"><details open ontoggle="{RUNS}">'
)


@pytest.fixture
def browse(tmp_path: Path) -> object:
    """``browse(file)`` is the document as Chromium has it once everything has run."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        if os.environ.get("TENUTO_REQUIRE_CHROMIUM") == "1":
            pytest.fail("TENUTO_REQUIRE_CHROMIUM=1 but there is no chromium; run make dev")
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")

    def load(file: Path, part: str = "") -> str:
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000"]
        done = subprocess.run(
            [*command, "--dump-dom", file.as_uri() + part],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-1000:]
        return done.stdout

    return load


@pytest.mark.slow
def test_no_script_runs_in_a_browser(tmp_path: Path, browse: object) -> None:
    assert callable(browse)
    # That a script would be noticed: a page of another's making, in which one runs.
    naive = tmp_path / "naive.html"
    naive.write_text(f"<title>x</title><body><script>{RUNS}</script>")
    assert "<title>it ran</title>" in browse(naive)

    run = make_run(tmp_path / "r", {"a": [True, False], "b": [None]}, HOSTILE)
    html = tmp_path / "run.html"
    report(ReportOptions(run.path, html=html))
    shown = browse(html)
    assert "<title>Run r</title>" in shown
    assert "<script" not in shown
    assert "<iframe" not in shown
    assert "&lt;script&gt;document.title" in shown
    assert "step 2" in shown

    # And if some text did get through: the page's own policy stops it.
    through = tmp_path / "through.html"
    through.write_text(page("guarded", f"<p>still here</p>{HOSTILE}"))
    shown = browse(through)
    assert "<title>guarded</title>" in shown
    assert "still here" in shown


@pytest.mark.slow
def test_a_link_opens_the_attempt_that_it_names(tmp_path: Path, browse: object) -> None:
    assert callable(browse)
    run = make_run(tmp_path / "r", {"a": [True], "b": [False]})
    html = tmp_path / "run.html"
    report(ReportOptions(run.path, html=html))
    assert 'href="#b.1"' in html.read_text()
    shown = browse(html, "#b.1")
    opened = [part.partition(">")[0] for part in shown.split("<details")[1:] if "attempt" in part]
    assert [("open" in tag) for tag in opened if 'class="attempt"' in tag] == [False, True]
