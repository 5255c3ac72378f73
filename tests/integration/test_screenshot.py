"""A model with eyes changes a page and looks at it: the picture costs its own tokens, once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from agent.client import Client
from agent.control.approvals import Approvals
from agent.control.toolbox import Toolbox
from agent.loading import LoadedModel, load_model
from agent.run.offered import offered
from agent.run.open_session import OpenSession
from agent.run.solve import solve
from agent.sessions.history import history_of
from agent.sessions.store import SessionStore
from agent.sessions.trajectory import read_records, session_ids
from agent.settings.table import Settings
from agent.types import Task
from model.vision.picture import Picture, read_picture
from sandboxes.base import Sandbox
from sandboxes.open import open_sandbox
from sandboxes.workspace.workspace import Workspace
from tests.support.forced import forced
from tests.support.sighted import sighted_format
from tools import screenshot, submit
from tools.registry import Registry
from tools.types import FoundPicture, ToolContext

PAGE = "<!doctype html><title>x</title><body style='margin: 0; background: rgb(200, 0, 0)'>\n"
HOSTILE = """<!doctype html><body style="margin: 0; background: rgb(0, 0, 200)">
<script>
document.title = "\\u001b[31mred";
setInterval(() => fetch("http://10.255.255.1/" + Math.random()), 5);
for (const place of ["file:///etc/shadow", "http://localhost:1/"]) {
  const frame = document.createElement("iframe");
  frame.hidden = true;
  frame.src = place;
  document.body.append(frame);
}
</script>"""
WAITS = "<!doctype html><script>alert('wait')</script>"

OpenBox = Callable[[dict[str, str], Literal["bubblewrap", "local"]], Sandbox]


@pytest.fixture(scope="module", autouse=True)
def browser() -> None:
    if shutil.which("chromium") is None or shutil.which("bwrap") is None:
        if os.environ.get("TENUTO_REQUIRE_CHROMIUM") == "1":
            pytest.fail("TENUTO_REQUIRE_CHROMIUM=1 but chromium or bwrap is missing; run make dev")
        pytest.skip("chromium or bubblewrap is not installed (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def sighted(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(str(sighted_format(tmp_path_factory.mktemp("sighted"))[3]))


def colour(picture: Picture) -> tuple[int, ...]:
    """The colour that all pixels have."""
    pixels = picture.pixels()
    (only,) = torch.unique(pixels.flatten(1), dim=1).T.tolist()
    return tuple(only)


@pytest.mark.slow
def test_a_model_looks_at_the_page_that_it_changed(
    sighted: LoadedModel, store: SessionStore, git_repo: Callable[..., Path], script: Any
) -> None:
    repo = git_repo({"page.html": PAGE})
    look = script.turn(script.call("screenshot", url_or_file="page.html", width=320, height=240))
    edit = script.call("edit", file_path="page.html", old_string="200, 0", new_string="0, 200")
    turns = (look, script.turn(edit), look, script.turn(script.call("submit", summary="green")))
    model = forced(sighted, turns)
    settings = Settings(sandbox="bubblewrap", map_tokens=0)
    report = solve(Task("make it green", repo), settings, model, store=store)
    steps = report.result.steps
    assert "+<!doctype html>" in report.patch and "screenshot" not in report.patch

    first, second = (steps[n].observations[0] for n in (0, 2))
    assert first.text == second.text == "Screenshot of page.html, 320 × 240 pixels."
    seen = [picture for step in steps for o in step.observations for picture in o.pictures]
    assert [colour(picture) for picture in seen if isinstance(picture, Picture)] == [
        (200, 0, 0),
        (0, 200, 0),
    ]
    # The picture's tokens are in the context, and the step after it prefills what is new alone.
    (saved,) = store.sessions()
    records = list(read_records(saved.trajectory))
    ids = session_ids(saved.trajectory)
    assert sighted.engine.eyes is not None
    assert sum(i < 0 for i in ids) == 2 * sighted.engine.eyes.preparing.grid(240, 320).tokens
    for step in steps[1:]:
        assert step.usage.prefilled_tokens + step.usage.reused_tokens == (
            step.usage.context_tokens - step.usage.generated_tokens
        )
        assert step.usage.prefilled_tokens < step.usage.reused_tokens
    total = report.result.usage
    assert total.prefilled_tokens + total.generated_tokens + total.shared_tokens == len(ids)
    with OpenSession.reopen(saved, settings, model, Client(talks=True)) as live:
        live.load()
        assert live.parts.conversation.session.ids == history_of(records).ids


def test_only_a_model_with_eyes_is_offered_it(sighted: LoadedModel) -> None:
    assert offered(sighted, ()) == (screenshot.TOOL,)
    assert offered(replace(sighted, chat=sighted.chat.seeing(None)), ()) == ()
    names = [spec.name for spec in Toolbox().tools(also=[screenshot.TOOL, submit.TOOL])]
    assert names.count("screenshot") == names.count("submit") == 1


@pytest.fixture
def open_box(git_repo: Callable[..., Path], tmp_path: Path, request: Any) -> OpenBox:
    def make(files: dict[str, str], kind: Literal["bubblewrap", "local"]) -> Sandbox:
        workspace = Workspace.create(git_repo(files), parent=tmp_path / "places")
        box = open_sandbox(kind, workspace)
        request.addfinalizer(box.close)
        return box

    return make


@pytest.mark.slow
def test_a_server_of_the_session_is_shown_and_a_hostile_page_is_only_a_picture(
    open_box: OpenBox,
) -> None:
    pages = {"a b#c.html": HOSTILE, "index.html": PAGE, "waits.html": WAITS}
    box = open_box(pages, "bubblewrap")
    tools = Registry(ToolContext(box), Toolbox().tools(also=[screenshot.TOOL]))
    box.shell().run("python3 -m http.server 8123 >/dev/null 2>&1 & sleep 0", timeout_s=20)
    box.shell().run("until (: </dev/tcp/127.0.0.1/8123) 2>/dev/null; do :; done", timeout_s=20)
    seen = tools.run("screenshot", {"url_or_file": "http://localhost:8123/", "height": 300})
    assert seen.ok, seen.text
    (picture,) = seen.pictures
    assert isinstance(picture, FoundPicture)
    assert colour(read_picture(picture.data)) == (200, 0, 0)

    seen = tools.run("screenshot", {"url_or_file": "a b#c.html", "width": 300})
    assert seen.text == "Screenshot of a b#c.html, 300 × 800 pixels.", seen.text
    assert colour(read_picture(seen.pictures[0].data)) == (0, 0, 200)
    impatient = Registry(ToolContext(box, command_timeout_s=10), (screenshot.TOOL,))
    seen = impatient.run("screenshot", {"url_or_file": "waits.html"})
    assert not seen.ok and "did not show waits.html within 10 s" in seen.text
    assert box.shell().run("ls /tmp | grep screenshot", timeout_s=20).output == ""
    assert box.workspace.diff() == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("javascript:alert(1)", "give an http:// or https:// URL"),
        ("file:///etc/passwd", "give an http:// or https:// URL"),
        ("chrome://version", "give an http:// or https:// URL"),
        ("../../etc/passwd", "leads out of the repository"),
        ("gone.html", "gone.html"),
        ("--version", "--version"),
        ("", "empty"),
    ],
)
def test_what_cannot_be_shown_is_said(open_box: OpenBox, given: str, said: str) -> None:
    box = open_box({"index.html": PAGE}, "local")
    seen = Registry(ToolContext(box), (screenshot.TOOL,)).run("screenshot", {"url_or_file": given})
    assert not seen.ok and not seen.pictures
    assert said in seen.text and "\n" not in seen.text


@pytest.mark.parametrize("size", [{"width": 0}, {"height": 100_000}, {"width": "wide"}])
def test_a_size_that_no_window_has(open_box: OpenBox, size: dict[str, object]) -> None:
    box = open_box({"index.html": PAGE}, "local")
    tools = Registry(ToolContext(box), (screenshot.TOOL,))
    seen = tools.run("screenshot", {"url_or_file": "index.html", **size})
    assert not seen.ok and next(iter(size)) in seen.text


def test_without_a_browser_one_line_says_how_to_get_one(open_box: OpenBox) -> None:
    box = open_box({"index.html": PAGE}, "bubblewrap")
    box.second_shell().run("export PATH=/nowhere", timeout_s=20)
    seen = Registry(ToolContext(box), (screenshot.TOOL,)).run(
        "screenshot", {"url_or_file": "index.html"}
    )
    assert not seen.ok
    assert seen.text.startswith("There is no Chromium in this sandbox; ")
    assert "apt-get install chromium" in seen.text


def test_plan_mode_and_questions_hold_for_it_as_for_a_command(open_box: OpenBox) -> None:
    from model.messages import ToolCall

    box = open_box({"index.html": PAGE}, "local")
    tools = Registry(ToolContext(box), Toolbox().tools(also=[screenshot.TOOL]))
    call = ToolCall("screenshot", {"url_or_file": "index.html"})
    for mode in ("plan", "commands", "all"):
        refused = Approvals(mode=mode).before(call, tools)
        assert refused is not None and not refused.ok
    assert Approvals(mode="edits").before(call, tools) is None
