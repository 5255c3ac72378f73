"""Runs and sessions told: on the terminal, as JSON, as a page; and two runs compared."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from agent.sessions.info import SessionInfo
from agent.types import Step
from evals.errors import RunError
from evals.instance import Done
from evals.report.page import escape, page, trace_page
from evals.report.show import ReportOptions, report, trace
from evals.report.summary import summarize
from evals.report.trace import Trace, TraceEnd
from model.messages import Message, ToolCall
from model.usage import Usage
from tests.support.sample_run import PATCH, make_run
from tools.types import Observation

HOSTILE = (
    "</pre></title><script>document.title='ran'</script><img src=x onerror=alert(1)>"
    "\"'><svg onload=alert(1)>\u202e&lt;\x00\x1b[31m]]><!--"
)
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "main", "section", "article", "details"),
    *("summary", "h1", "h2", "h3", "dl", "dt", "dd", "ul", "li", "table", "thead", "tbody", "tr"),
    *("th", "td", "a", "p", "div", "span", "pre", "i", "b", "label", "input"),
    *("figure", "figcaption", "svg", "g", "rect", "text", "line", "circle", "polyline", "polygon"),
}


class Tags(HTMLParser):
    """Collects every tag and attribute, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_table_and_the_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "r", {"a": [True, False], "b": [False, False], "c": [None, None]})
    assert report(ReportOptions(run.path)) == 0
    out = capsys.readouterr().out
    assert "pass@1 25.0 %" in out
    assert "pass@2 50.0 %" in out
    assert "pass^2 0.0 %" in out
    assert [line.split()[:4] for line in out.splitlines() if line.startswith("c")] == [
        ["c", "not", "graded", "submitted"],
        ["c", "#2", "not", "graded"],
    ]


def test_tasks_that_cannot_be_run_are_told_as_not_graded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r", {"a": [True]})
    assert report(ReportOptions(run.path)) == 0
    assert "cannot be run here" not in capsys.readouterr().out
    run.write("run.json", run.about() | {"refused": {"web": "it needs the web", "gpu": "a GPU"}})
    assert report(ReportOptions(run.path, html=tmp_path / "page.html")) == 0
    told = "not graded, since they cannot be run here: 2 (gpu, web)"
    assert told in capsys.readouterr().out
    assert told in (tmp_path / "page.html").read_text()


def test_json_has_every_attempt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "r", {"a": [True], "b": [False]})
    assert report(ReportOptions(run.path, json=True)) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["outcomes"] == {"resolved": 1, "unresolved": 1}
    assert data["pass_at"]["1"]["value"] == 0.5
    assert [r["outcome"] for r in data["results"]] == ["resolved", "unresolved"]
    assert data["usage"]["generated_tokens"] == 10


def test_two_runs_are_compared_in_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make_run(tmp_path / "first", {n: [True] for n in "abcdef"})
    second = make_run(tmp_path / "second", {n: [False] for n in "abcdef"})
    html = tmp_path / "page.html"
    assert report(ReportOptions(first.path, second.path, html)) == 0
    out = capsys.readouterr().out
    assert "better in first: a, b, c, d, e, f" in out
    assert "p = 0.0312 (McNemar, exact)" in out
    assert "p = 0.0312" in html.read_text()
    other = make_run(tmp_path / "other", {"z": [True]})
    with pytest.raises(RunError, match="share no graded instance"):
        report(ReportOptions(first.path, other.path))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no folder of a run"):
        report(ReportOptions(tmp_path))


def test_hostile_text_stays_text_everywhere(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True], "b": [False]}, HOSTILE, dataset=HOSTILE)
    html = tmp_path / "page.html"
    assert report(ReportOptions(run.path, html=html)) == 0
    seen = Tags(html.read_text())
    assert seen.tags <= ALLOWED
    assert not {name for name in seen.attributes if name.startswith("on")}
    assert seen.attributes <= {
        *("lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "style"),
        *("type", "checked", "role", "viewbox", "x", "y", "width", "height", "x1", "x2", "y1"),
        *("y2", "cx", "cy", "r", "points", "text-anchor"),
    }
    shown = "".join(seen.text)
    assert shown.count("<script>document.title='ran'</script>") > 20
    assert "\x00" not in html.read_text()
    assert "\x1b" not in html.read_text()


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True]})
    html = tmp_path / "page.html"
    report(ReportOptions(run.path, html=html))
    text = html.read_text()
    assert "default-src 'none'" in text
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_a_page_without_trajectories_is_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True]}, "y" * 30_000)
    with_traces, without = tmp_path / "a.html", tmp_path / "b.html"
    report(ReportOptions(run.path, html=with_traces))
    report(ReportOptions(run.path, html=without, traces=False))
    assert len(without.read_text()) < len(with_traces.read_text()) / 2
    assert "10,000 characters left out" in with_traces.read_text()


def test_a_session_of_a_run_is_shown_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r", {"a": [True]}, "the text")
    assert trace("a", None, run.path) == 0
    out = capsys.readouterr().out
    assert "## step 2: 6 reused, 2 prefilled, 2 generated" in out
    assert out.count("the text") == 11
    html = tmp_path / "a.html"
    assert trace("a/1", html, run.path) == 0
    assert Tags(html.read_text()).tags <= ALLOWED
    with pytest.raises(RunError, match="has no attempt 'a/2'"):
        trace("a/2", None, run.path)


def test_control_characters_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r", {"a": [False]}, HOSTILE)
    report(ReportOptions(run.path))
    trace("a", None, run.path)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_lone_surrogates_do_not_break_the_page() -> None:
    assert escape("a\udcffb<") == "a?b&lt;"
    page("x", escape("\ud800")).encode()


def test_outcomes_leave_out_what_was_not_graded(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True, None], "b": [None]})
    assert summarize(run).outcomes == {"a": [True], "b": []}


def page_of(steps: list[Step], patch: str = PATCH) -> str:
    end = TraceEnd("submitted", "it adds now", patch)
    return trace_page("Session s", Trace(SessionInfo(), (*steps, end)))


def step_of(call: ToolCall, text: str) -> Step:
    message = Message("assistant", "", None, (call,))
    return Step(0, message, (Observation(text),), Usage(context_tokens=2), (1,), (-0.5,))


def test_the_outcome_and_the_patch_come_first_and_the_bars_have_a_legend() -> None:
    shown = page_of([step_of(ToolCall("read_file", {"file_path": "a.py"}), "x = 1")])
    first = shown.index("<h3>step 1")
    assert shown.index("submitted: it adds now") < shown.index("+x = 2") < first
    assert shown.index("<p class=legend>") < first
    assert shown.count("+x = 2") == 1
    assert "(no change)" in page_of([], "")


def test_an_edit_is_shown_as_a_diff() -> None:
    call = ToolCall("edit", {"file_path": "a", "old_string": "k\nx <\n", "new_string": "k\ny <\n"})
    shown = page_of([step_of(call, "Edited a: 1 replacement.")])
    assert '<i class="del">-x &lt;\n</i>' in shown
    assert '<i class="add">+y &lt;\n</i>' in shown
    assert " k\n" in shown
    assert "old_string" not in shown


def test_a_long_result_is_folded_and_begins_in_sight() -> None:
    text = "\n".join(f"line {n}" for n in range(300))
    shown = page_of([step_of(ToolCall("run_shell_command", {"command": "seq"}), text)])
    assert "all of the result: 300 lines" in shown
    head, _, rest = shown.partition("<details class=folded>")
    assert "line 3\n" in head
    assert "line 200" not in head
    assert "line 299" in rest
    assert "<details class=folded>" not in page_of(
        [step_of(ToolCall("run_shell_command", {"command": "ls"}), "a\nb")]
    )


def test_totals_and_rewards_are_of_the_whole_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", {"a": [True, None], "b": [False, True]})
    for (name, number), result in run.results().items():
        more = {"compacted_tokens": 3, "drafted_tokens": 5, "accepted_tokens": 2}
        run.keep(Done(dataclasses.replace(result, usage={**result.usage, **more})))
        assert (name, number) in run.results()
    data = summarize(run).as_dict()
    assert data["usage"]["compacted_tokens"] == 12
    assert data["usage"]["drafted_tokens"] == 20
    assert data["usage"]["accepted_tokens"] == 8
    # One attempt at "a" was not graded, which counts 0.
    assert data["mean_reward"]["value"] == 0.5
    assert data["mean_reward"]["instances"] == 2
    bare = make_run(tmp_path / "bare", {"a": [None]})
    assert summarize(bare).as_dict()["mean_reward"] is None
