"""Save a text file: keep its form, note it as seen, check its syntax."""

from __future__ import annotations

from tools.errors import ToolFailure
from tools.files.places import Place, write
from tools.text.text_file import MARK, TextFile
from tools.text.truncate import cut_line
from tools.types import ToolContext

_PLACES = 5
_LINE_CHARACTERS = 200


def encode_text(shown: str, file: TextFile, text: str) -> bytes:
    """Encode ``text`` as ``file`` is encoded. Raises ``ToolFailure`` if that is not possible."""
    try:
        return file.encode(text)
    except UnicodeEncodeError as error:
        odd = error.object[error.start : error.end]
        raise ToolFailure(
            f"Nothing was changed: {shown} is encoded as {file.encoding}, which has no "
            f"{odd[:20]!r}. Use characters that the file's encoding has."
        ) from None


def write_text(context: ToolContext, place: Place, file: TextFile, text: str) -> None:
    """Write ``text`` in the form of ``file`` and note it as seen."""
    data = encode_text(place.shown, file, text)
    write(context.sandbox, place, data)
    context.seen.note(place.real, data)


def describe_new_problems(context: ToolContext, place: Place, before: str, after: str) -> str:
    """Describe where ``after`` does not parse and ``before`` did; "" if nowhere."""
    problems = context.code.new_problems(place.real, before, after.removeprefix(MARK))
    if not problems:
        return ""
    lines = after.split("\n")
    shown = []
    for problem in problems[:_PLACES]:
        line = lines[problem.line - 1] if problem.line <= len(lines) else ""
        what = f" ({problem.missing!r} is missing)" if problem.missing else ""
        text = cut_line(line.rstrip("\r"), _LINE_CHARACTERS)
        shown.append(f"line {problem.line}, column {problem.column}{what}: {text}")
    more = len(problems) - len(shown)
    if more:
        shown.append(f"and {more} more")
    return f"\nThe change is made, but {place.shown} does not parse now:\n" + "\n".join(shown)
