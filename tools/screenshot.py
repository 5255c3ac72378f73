"""screenshot: show a page as a browser renders it, to a model with eyes.

The browser runs in the sandbox, as any command does: what it may reach and use is what commands
may. Chromium's own sandbox needs namespaces that ours withholds, so ours is the border.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
import shlex
from urllib.parse import quote

from pydantic import Field

from sandboxes.base import Sandbox
from sandboxes.images.image_tags import BROWSER_TAG
from tools.errors import ToolFailure
from tools.files.places import locate_file
from tools.schema import Parameters
from tools.text.text_file import is_picture
from tools.text.truncate import cut_line
from tools.types import FoundPicture, Observation, ToolContext, ToolSpec

TIMEOUT_S = 60.0
SCRIPTS_MS = 5_000
"""The page's own time, which runs ahead of the clock while nothing is loading."""
LOADING_MS = 10_000
"""What still loads after this time is left out."""
MAX_BYTES = 16 << 20
_PIECE_BYTES = 600_000
_NO_BROWSER = 3
_URL = re.compile(r"https?://[^\s/]\S*", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:(?!\d)", re.IGNORECASE)
_SCRIPT = """(
for name in chromium-headless-shell chrome-headless-shell chromium chromium-browser google-chrome
do browser=$(command -v "$name") && break; done
[ -n "$browser" ] || exit {no_browser}
mkdir -m 700 {folder} || exit 1
[ {kind} = local ] && [ "$(id -u)" != 0 ] || alone=--no-sandbox
"$browser" --headless $alone --disable-gpu --disable-dev-shm-usage --hide-scrollbars \\
  --no-first-run --disable-extensions --disable-background-networking --disable-breakpad \\
  --user-data-dir={folder}/profile --window-size={width},{height} --screenshot={folder}/page.png \\
  --virtual-time-budget={scripts_ms} --timeout={loading_ms} {url} >{folder}/said 2>&1
[ -s {folder}/page.png ] || {{ tail -n 3 {folder}/said; exit 1; }}
wc -c <{folder}/page.png
)"""

HOW_TO_GET = {
    "docker": f"the user can build an image with it: agent sandbox build --browser, and then run "
    f"with --image {BROWSER_TAG}",
    "bubblewrap": "the user can install it on this machine (Debian: apt-get install chromium)",
    "local": "the user can install it on this machine (Debian: apt-get install chromium)",
}


class ScreenshotParameters(Parameters):
    """The parameters of screenshot. ``width`` and ``height`` are in pixels."""

    url_or_file: str = Field(
        max_length=4096, description="An http(s) URL, or the path of a file in the repository."
    )
    width: int = Field(default=1280, ge=200, le=4096, description="Width of the window.")
    height: int = Field(default=800, ge=200, le=4096, description="Height of the window.")


def run(context: ToolContext, parameters: ScreenshotParameters) -> Observation:
    """Return the page's first window as a picture."""
    url, shown = _address(context.sandbox, parameters.url_or_file)
    folder = f"/tmp/screenshot-{secrets.token_hex(8)}"
    try:
        data = _take(context, parameters, url, shown, folder)
    finally:
        _run(context, f"rm -rf {folder}")
    size = f"{parameters.width:,} × {parameters.height:,} pixels"
    text = f"Screenshot of {shown}, {size}."
    return Observation(text, pictures=(FoundPicture(f"screenshot of {shown}", data),))


def _address(sandbox: Sandbox, given: str) -> tuple[str, str]:
    """Return the URL to open and what it is called. Raises ``ToolFailure``."""
    given = given.strip()
    if _URL.fullmatch(given):
        return given, cut_line(given, 200)
    if _SCHEME.match(given):
        raise ToolFailure(
            f"{cut_line(given, 80)} cannot be opened: give an http:// or https:// URL, or the path "
            "of a file in the repository."
        )
    place, _ = locate_file(sandbox, given)
    return "file://" + quote(f"{sandbox.root.rstrip('/')}/{place.shown}"), place.shown


def _take(
    context: ToolContext, parameters: ScreenshotParameters, url: str, shown: str, folder: str
) -> bytes:
    """Return the file that the browser made in ``folder``. Raises ``ToolFailure``."""
    kind = context.sandbox.kind
    script = _SCRIPT.format(
        no_browser=_NO_BROWSER,
        folder=folder,
        kind=kind,
        width=parameters.width,
        height=parameters.height,
        scripts_ms=SCRIPTS_MS,
        loading_ms=LOADING_MS,
        url=shlex.quote(url),
    )
    timeout_s = min(TIMEOUT_S, context.command_timeout_s)
    code, output = _run(context, script, timeout_s)
    if code == _NO_BROWSER:
        raise ToolFailure(f"There is no Chromium in this sandbox; {HOW_TO_GET[kind]}.")
    if code is None:
        raise ToolFailure(
            f"The browser did not show {shown} within {timeout_s:g} s: the page may wait in a "
            "dialog such as alert(), or never come to rest."
        )
    if code != 0 or not output.strip().isdecimal():
        raise ToolFailure(f"The browser did not show {shown}: {cut_line(output.strip(), 300)}")
    size = int(output)
    if size > MAX_BYTES:
        raise ToolFailure(
            f"The screenshot has {size >> 20} MB, too many: give a smaller width and height."
        )
    return _fetch(context, f"{folder}/page.png", size)


def _fetch(context: ToolContext, path: str, size: int) -> bytes:
    """Read a file of the sandbox outside of the workspace, in pieces that a shell's output holds.

    Raises ``ToolFailure``.
    """
    data = b""
    while len(data) < size:
        piece = f"tail -c +{len(data) + 1} {path} | head -c {_PIECE_BYTES} | base64 -w 0"
        _, output = _run(context, piece)
        try:
            taken = base64.b64decode(output.strip(), validate=True)
        except (binascii.Error, ValueError):
            taken = b""
        if not taken:
            raise ToolFailure("The screenshot was gone before it could be read; try again.")
        data += taken
    if len(data) != size or not is_picture(data):
        raise ToolFailure("The browser left no picture; try again.")
    return data


def _run(context: ToolContext, command: str, timeout_s: float = 20.0) -> tuple[int | None, str]:
    """Run ``command`` beside the model's own shell; return its exit code and output."""
    shell = context.sandbox.second_shell()
    done = shell.run(command, timeout_s=timeout_s, stop=context.stop)
    return done.exit_code, done.output


TOOL = ToolSpec(
    name="screenshot",
    description=(
        "See a web page as a browser renders it: an http(s) URL, such as that of a server you "
        "started, or an HTML or SVG file of the repository. Shows the top of the page, as much as "
        "fits into width and height."
    ),
    parameters=ScreenshotParameters,
    run=run,
    kind="command",
)
