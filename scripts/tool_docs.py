"""Write docs/tools.md from the tools' own schemas.

    .venv/bin/python scripts/tool_docs.py [--check]

With --check nothing is written; the exit code says whether the page is current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools import screenshot
from tools.profiles import editor
from tools.profiles.profile import NAMES, load_profile
from tools.registry import default_tools

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tools.md"
HEAD = """\
# Tools

What the model may call, as it reads it. This page is written by `scripts/tool_docs.py` from the
tools' own schemas; a test fails when it is out of date.

Paths are relative to the repository's root, or absolute inside it; what leads out, also through a
link, is refused. A failure is an answer: it says what is wrong and what would work. Files keep
their encoding, byte-order mark, line endings and mode. How navigation and edits work inside is in
[navigation.md](navigation.md).
"""

SCREENSHOT = """\
Only a model with eyes is offered this one, beside the tools of any profile
([vision](vision.md)). Chromium runs in the sandbox: what a page may read and reach is what
commands may, and rules and modes judge the call as a command. A page that waits in a dialog, such
as `alert()`, is given up after 60 seconds.
"""
DIAGNOSTICS = """\
## Diagnostics

After an edit the repository's own linters and type checkers say what is new: `ruff`, `mypy`,
`tsc`, `eslint`, `go vet`, `cargo check`. One is asked if the repository's files name it
(`ruff.toml`, `[tool.mypy]` in `pyproject.toml`, `tsconfig.json`, `eslint.config.js`, `go.mod`,
`Cargo.toml` and the like) and the sandbox has it (also in `node_modules/.bin` or `.venv/bin`).
It runs in the sandbox, beside the model's shell, for at most 15 seconds, before a file's first
edit and after each; only findings that were not there before are told, eight at most, with the
edit's result. A repository that names none pays nothing and reads as before.

`diagnostics = "off"` turns it off, `"ruff, mypy"` names them ([settings](usage.md#settings)).
What changes by a command is not looked at. Tried with ruff, mypy, TypeScript 7.0, ESLint 10.15, go
1.19 and cargo; a test runs those that are installed.
"""

CONSTRAINED = """
## Constrained calls

`--constrain calls` lets the model write nothing in a call but a well-formed call: of a tool that
exists, with parameters that it has, each once and all required ones, in any order. Enumerations,
numbers, booleans, null, arrays and objects have their form; a reference (`$ref`) and `anyOf` are
followed. Strings stay free: any text can be written, markup included, as long as the parser reads
back what was written. Outside a call a turn is free too, but for what would be read as half a call:
`<function=` at the start of a line, an end tag there after a call, a call inside reasoning.

`--constrain edits` does the same, and bounds edits and reads by the files as they are: a path is
that of a file that exists, and the text to replace is sampled only along text that stands in the
file, until it stands there once. An edit begins with its path (after the command, where it has
one). New files are made with `write_file`, or the command `create`. A file that is binary, empty or
longer than 200,000 bytes bounds nothing, nor do more than 50,000 files; a file that changes after
the model has begun to write about it is refused by the tool, as always.

- Masks hold for each token where it is sampled, so also for tokens that were drafted, in batches,
  in forks, and in a turn that goes on in the middle of a call. What cannot be helped is a call that
  the limit on tokens cuts.
- `logprobs` of a step are those of the model itself; `masked_logprobs` those among the tokens that
  were allowed.
- Not enforced: what is in an array or an object, patterns, ranges, and conditions between
  parameters. The tool still checks them and says what is wrong.

The default is `off`: whether it changes what is solved has not been measured yet.
"""
PROFILES = """\
## Profiles

`--tools PROFILE` chooses which tools the model sees, and under which names: the code under them
stays the same. `qwen`, the default, is the list above; its names follow Qwen Code, and the
embedded model is trained on it, so leave it at that. No other checkpoint has been measured with
the other profiles here yet, so the default is the same for all.
"""
FILE = """
`bash` is `run_shell_command` with a command and a time-out: a command that prints nothing is
killed at its time-out and not left running, since there is no tool to look after it. Tools of MCP
servers come beside those of any profile. A TOML file makes a profile of its own:

```toml
prompt = "Files are changed with `replace`."   # goes into the first prompt, may be left out

[tools.replace]
runs = "edit"                                   # one of the tools above, or str_replace_editor
description = "Replace text in a file."         # ours if left out
parameters = { file_path = "path", old_string = "old", new_string = "new" }

[tools.sh]
runs = "run_shell_command"
parameters = { command = "command" }            # the others are not shown

[tools.done]
runs = "submit"                                 # one tool must
```
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for tool in (*default_tools(), screenshot.TOOL):
        function = tool.schema()["function"]
        parts.append(f"## `{function['name']}`\n\n{function['description']}\n")
        parts.append("\n".join(_table(function["parameters"])) + "\n")
    parts += [SCREENSHOT, DIAGNOSTICS, CONSTRAINED, PROFILES]
    for name in NAMES:
        shown = load_profile(name).tools
        names = ", ".join(f"`{tool.name}`" for tool in shown)
        parts.append(f"- `{name}`: {names}.")
    parts.append(FILE)
    function = editor.TOOL.schema()["function"]
    parts.append(f"### `{function['name']}`\n\n{function['description']}\n")
    parts.append("\n".join(_table(function["parameters"])) + "\n")
    return "\n".join(parts)


def _table(parameters: Mapping[str, Any]) -> Iterator[str]:
    """One row a parameter."""
    properties: Mapping[str, Any] = parameters["properties"]
    if not properties:
        yield "No parameters."
        return
    yield "| parameter | type | default | meaning |"
    yield "|---|---|---|---|"
    required = parameters.get("required", ())
    for name, schema in properties.items():
        default = "required" if name in required else _value(schema.get("default"))
        meaning = str(schema.get("description", "")).replace("|", "\\|").replace("\n", " ")
        yield f"| `{name}` | {_type(schema)} | {default} | {meaning} |"


def _type(schema: Mapping[str, Any]) -> str:
    """Describe a type: ``string``, ``list of object``, and the range of a number."""
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return "one of " + ", ".join(f"`{choice}`" for choice in schema["enum"])
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{kind}, {least} to {most}"
    return f"{kind}, at least {least}" if least is not None else kind


def _value(default: Any) -> str:
    if default is None:
        return ""
    return (
        f"`{str(default).lower() if isinstance(default, bool) else default}`"
        if default != ""
        else ""
    )


def main() -> int:
    """Write the page, or check it."""
    text = page()
    if "--check" in sys.argv[1:]:
        current = PAGE.is_file() and PAGE.read_text("utf-8") == text
        if not current:
            print("docs/tools.md is out of date: run scripts/tool_docs.py", file=sys.stderr)
        return int(not current)
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
