"""repo_map: show the definitions that matter most for the task, as signatures with lines."""

from __future__ import annotations

from pydantic import Field

from tools.errors import ToolFailure
from tools.files.places import describe_missing, locate, printable
from tools.index.rank import Interest
from tools.index.render import Map, render_map
from tools.schema import Parameters
from tools.types import Observation, ToolContext, ToolSpec

MAX_TOKENS = 32_768


class RepoMapParameters(Parameters):
    """The parameters of repo_map."""

    path: str = Field(
        default=".", description="Directory or file to map; the whole repository if not given."
    )
    max_tokens: int = Field(
        default=2048, ge=50, le=MAX_TOKENS, description="The map is never longer than this."
    )


def draw(context: ToolContext, path: str, max_tokens: int) -> Map | None:
    """Draw the map of ``path``; None if there is nothing to map.

    Raises ``ToolFailure`` if there is no such place, or no index can be made.
    """
    place = locate(context.sandbox, path)
    if not place.host.exists():
        raise ToolFailure(describe_missing(context.sandbox, place.shown, kind="file or directory"))
    below = "" if place.real == "." else place.real + ("/" if place.host.is_dir() else "")
    index = context.code.index(context.sandbox, context.stop)
    tables = index.tables
    ranked = context.code.rank(index, tables, Interest(context.task, context.seen.paths))
    drawn = render_map(
        index,
        tables,
        ranked,
        below=below,
        max_tokens=max_tokens,
        count_tokens=context.count_tokens,
        shown_path=printable,
    )
    if drawn is None:
        raise ToolFailure(
            f"{max_tokens} tokens are too few for one definition: give more max_tokens."
        )
    return drawn if drawn.text else None


def run(context: ToolContext, parameters: RepoMapParameters) -> Observation:
    """Return signatures by file, ranked by references, the task, and what was read."""
    if drawn := draw(context, parameters.path, parameters.max_tokens):
        return Observation(drawn.text, truncated=not drawn.complete)
    place = locate(context.sandbox, parameters.path)
    left = str(context.code.index(context.sandbox, context.stop).left_out)
    more = f" Not indexed: {left}." if left else " Use list_directory or glob to look around."
    return Observation(f"No source code that can be mapped{place.within}.{more}")


TOOL = ToolSpec(
    name="repo_map",
    description=(
        "An overview of the source code: the most referenced classes and functions, those that "
        "the task is about first, as signatures with line numbers under their files. Start here "
        "in a repository you do not know; give a path to see one part in more detail. "
        "Files that git ignores are left out."
    ),
    parameters=RepoMapParameters,
    run=run,
    kind="read",
    # The map keeps to a budget of tokens, which have a few characters each.
    max_characters=8 * MAX_TOKENS,
)
