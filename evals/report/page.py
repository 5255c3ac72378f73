"""Runs and sessions as one HTML page that needs nothing else and runs nothing.

Whatever comes from a model, a repository or a command is escaped; on top of that the page's own
policy forbids scripts, frames, forms and requests of any kind, so that even a mistake here could
not run anything. It has no script of its own: what opens and filters is HTML and CSS.
"""

from __future__ import annotations

import difflib
import html
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from agent.sessions.info import SessionInfo
from agent.types import Spans, Step
from evals.report.charts import charts
from evals.report.page_style import STYLE
from evals.report.stats import Comparison
from evals.report.summary import AttemptRow, Summary, comparison_lines, rate_line
from evals.report.trace import Trace, TraceCheck, TraceEnd, TracePrompt
from model.errors import PictureError
from model.messages import Message, ToolCall
from model.vision.picture import Picture
from tools.types import Observation

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
MOST_PICTURE = 2 << 20
"""Characters of a picture's data URL that go into a page."""
SHOWN = 20_000
"""Characters of one text that are shown; of a longer one its beginning and its end."""
LONG = 24
"""Lines of a result that are shown; a longer one is folded."""
_CONTROL = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "�")


def escape(text: object) -> str:
    """Escape ``text`` for HTML, between tags or in a quoted attribute."""
    plain = str(text).encode("utf-8", "replace").decode("utf-8")
    return html.escape(plain.translate(_CONTROL), quote=True)


def page(title: str, body: str) -> str:
    """Return a whole document."""
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def trace_page(title: str, trace: Trace) -> str:
    """One session."""
    parts = [f"<h1>{escape(title)}</h1>"]
    for entry in trace.entries:
        if isinstance(entry, TraceEnd):
            parts += [_ended(entry), block("patch", entry.patch or "(no change)", "patch")]
    return page(title, "".join([*parts, facts(_about(trace.about)), render(trace)]))


def run_page(
    summary: Summary,
    traces: Mapping[tuple[str, int], Trace],
    other: Summary | None = None,
    comparison: Comparison | None = None,
) -> str:
    """Render a run: its rates, a table, and every attempt with its trajectory."""
    title = summary.name if other is None else f"{summary.name} and {other.name}"
    parts = [f"<h1>{escape(title)}</h1>"]
    parts.append(_beside([summary] if other is None else [summary, other]))
    if other is not None and comparison is not None:
        lines = comparison_lines(comparison, summary.name, other.name)
        items = "".join(f"<li>{escape(line)}" for line in lines)
        parts.append(f"<h2>Compared with {escape(other.name)}</h2><ul>{items}</ul>")
    parts.append(_table(summary, other))
    parts += [
        _attempt(attempt, traces.get((attempt.result.instance_id, attempt.result.attempt)))
        for attempt in summary.attempts
    ]
    return page(f"Run {summary.name}", "".join(parts))


def _beside(summaries: Sequence[Summary]) -> str:
    """Render what one run came to, or two side by side."""
    if len(summaries) == 1:
        return facts(_run_facts(summaries[0])) + charts(summaries[0])
    runs = "".join(
        f"<section><h2>{escape(summary.name)}</h2>{facts(_run_facts(summary))}"
        f"{charts(summary)}</section>"
        for summary in summaries
    )
    return f"<div class=beside>{runs}</div>"


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Render a list of names and values."""
    rows = "".join(f"<dt>{escape(name)}<dd>{escape(value)}" for name, value in pairs)
    return f"<dl class=facts>{rows}</dl>"


def _about(about: SessionInfo) -> list[tuple[str, object]]:
    names = ("id", "model", "sandbox", "image", "repo", "seed", "thinking", "version")
    return [(name, about.stored[name]) for name in names if about.stored.get(name) is not None]


def _run_facts(summary: Summary) -> list[tuple[str, object]]:
    identity = summary.about.get("identity", {})
    keys = ("suite", "dataset", "model", "seed", "temperature", "max_steps")
    found: list[tuple[str, object]] = [
        (key, identity[key]) for key in keys if identity.get(key) is not None
    ]
    found += [("rate", rate_line(f"pass@{k}", value)) for k, value in summary.pass_at.items()]
    found += [
        ("rate", rate_line(f"pass^{k}", value)) for k, value in summary.pass_all.items() if k > 1
    ]
    if (mean := summary.mean_reward) is not None:
        found.append(("reward", rate_line("mean reward", mean)))
    if left_out := summary.left_out:
        found.append(("left out", left_out))
    names = ("prefilled", "generated", "reused", "shared", "compacted", "drafted", "accepted")
    tokens = ", ".join(f"{summary.total(f'{name}_tokens'):,.0f} {name}" for name in names)
    return [*found, ("tokens", tokens), ("time", _times(summary.total))]


def _times(total: Any) -> str:
    return (
        f"{total('prefill_s'):,.1f} s prefill, {total('decode_s'):,.1f} s decode, "
        f"{total('tool_s'):,.1f} s tools, {total('wall_s'):,.1f} s in all"
    )


def _table(summary: Summary, other: Summary | None) -> str:
    theirs = {} if other is None else other.outcomes
    heads = ["instance", "attempt", "outcome", "ended", "steps", "prefilled", "generated"]
    heads += ["prefill s", "decode s", "tools s", "s"]
    if other is not None:
        heads.append(other.name)
    rows = []
    for attempt in summary.attempts:
        result, usage = attempt.result, attempt.result.usage
        cells = [
            f'<a href="#{_anchor(attempt)}">{escape(result.instance_id)}</a>',
            escape(result.attempt),
            escape(attempt.outcome),
            escape(result.status),
            escape(result.steps),
        ]
        cells += [f"{usage.get(n, 0):,.0f}" for n in ("prefilled_tokens", "generated_tokens")]
        cells += [f"{usage.get(n, 0):.1f}" for n in ("prefill_s", "decode_s", "tool_s")]
        cells.append(f"{result.seconds:.1f}")
        if other is not None:
            seen = theirs.get(result.instance_id, [])
            cells.append(f"{sum(seen)} of {len(seen)}" if seen else "")
        kind = attempt.outcome.replace(" ", "-")
        rows.append(f'<tr class="{kind}">' + "".join(f"<td>{cell}" for cell in cells))
    head = "".join(f"<th>{escape(name)}" for name in heads)
    table = f"<table><thead><tr>{head}<tbody>{''.join(rows)}</table>"
    return f"{_FILTER}<div class=wide>{table}</div></div>"


_FILTER = "<div class=filtered>" + "".join(
    f"<label><input type=radio name=show class=show-{kind}{' checked' if kind == 'all' else ''}>"
    f"{kind.replace('-', ' ')}</label>"
    for kind in ("all", "resolved", "unresolved", "not-graded")
)


def _anchor(attempt: AttemptRow) -> str:
    return escape(f"{attempt.result.instance_id}.{attempt.result.attempt}")


def _attempt(attempt: AttemptRow, trace: Trace | None) -> str:
    result, verdict = attempt.result, attempt.verdict
    head = (
        f"<summary><b>{escape(result.instance_id)}</b> attempt {escape(result.attempt)} "
        f'<span class="tag {attempt.outcome.replace(" ", "-")}">{escape(attempt.outcome)}</span> '
        f"{escape(result.exit_status)} ({escape(result.status)})</summary>"
    )
    pairs: list[tuple[str, object]] = [
        ("summary", result.summary),
        ("tokens", _tokens(result.usage)),
        ("time", _times(lambda name: result.usage.get(name, 0.0))),
        ("seed", result.seed),
        ("tries", result.tries),
        ("session", result.session),
    ]
    if verdict is not None and verdict.reason:
        pairs.append(("verdict", verdict.reason))
    parts = [facts(pairs), block("patch", result.patch, "patch")]
    if verdict is not None and verdict.output:
        parts.append(folded("test output", verdict.output))
    if trace is not None:
        parts.append(render(trace))
    # The name stands inside: a link to it opens what is folded around it.
    body = f'<div id="{_anchor(attempt)}">{"".join(parts)}</div>'
    return f"<details class=attempt>{head}{body}</details>"


def _tokens(usage: Mapping[str, float]) -> str:
    names = ("context", "prefilled", "generated", "thinking", "reused", "shared")
    return ", ".join(f"{usage.get(f'{name}_tokens', 0):,.0f} {name}" for name in names)


def render(trace: Trace) -> str:
    """Render the entries of a session."""
    widest = max((step.usage.context_tokens for step in trace.steps), default=1)
    parts = []
    for entry in trace.entries:
        if isinstance(entry, TracePrompt):
            parts += [_message(message) for message in entry.messages]
        elif isinstance(entry, Step):
            parts.append(_step(entry, widest))
        elif isinstance(entry, TraceCheck):
            told = "passes" if entry.exit_code == 0 else f"fails ({entry.exit_code})"
            parts.append(folded(f"check {entry.when}: {told}", entry.output))
        elif isinstance(entry, TraceEnd):
            parts.append(_ended(entry))
    return f"<section class=trace>{LEGEND}{''.join(parts)}</section>"


LEGEND = (
    "<p class=legend>Tokens of each step's context: "
    "<i class=reused></i> reused (were there before) <i class=prefilled></i> prefilled (read) "
    "<i class=generated></i> generated (sampled); the widest bar is the longest context.</p>"
)


def _ended(entry: TraceEnd) -> str:
    text = f"{entry.status}: {entry.summary}" if entry.summary else entry.status
    return f"<p class=ended>{escape(text)}</p>"


def _message(message: Message) -> str:
    if message.role == "system":
        return folded("system", message.content)
    return block(message.role, message.content, "message") + _pictures(message.pictures)


def _step(step: Step, widest: int) -> str:
    message = step.message
    parts = [f"<h3>step {step.index + 1}</h3>", _bar(step, widest)]
    if message.thinking:
        parts.append(block("thinking", message.thinking, "thinking"))
    if message.content:
        parts.append(block("text", message.content, "message"))
    seen: Sequence[Observation | None] = [*step.observations]
    missing = len(message.tool_calls) - len(seen)
    spans = [*step.spans, *[dict[str, Spans]()] * (len(message.tool_calls) - len(step.spans))]
    answered = zip(message.tool_calls, [*seen, *[None] * missing], spans, strict=False)
    for call, observation, pieces in answered:
        parts.append(_call(call, observation, pieces))
    return f"<article class=step>{''.join(parts)}</article>"


def _bar(step: Step, widest: int) -> str:
    """Draw the sources of a step's context to scale: there before, prefilled, sampled."""
    usage = step.usage
    new = usage.prefilled_tokens + usage.generated_tokens
    before = max(0, usage.context_tokens - new)
    pieces = (
        ("reused", before),
        ("prefilled", usage.prefilled_tokens),
        ("generated", usage.generated_tokens),
    )
    bars = "".join(
        f'<i class="{name}" style="width:{100 * count / max(1, widest):.2f}%"></i>'
        for name, count in pieces
    )
    told = ", ".join(f"{count:,} {name}" for name, count in pieces)
    told += f", {usage.thinking_tokens:,} of them thinking"
    timing = (
        f"{usage.prefill_s:.2f} s prefill, {usage.decode_s:.2f} s decode, "
        f"{usage.tool_s:.2f} s tools"
    )
    return f"<div class=bar>{bars}</div><p class=cost>{escape(told)}; {escape(timing)}</p>"


def _call(
    call: ToolCall, observation: Observation | None, spans: Mapping[str, Spans] | None = None
) -> str:
    arguments = []
    if (patch := _edit_as_patch(call, spans or {})) is not None:
        arguments.append(patch)
    for name, value in call.arguments.items():
        if patch is not None and name in _EDITED:
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        arguments.append(block(str(name), text, "argument"))
    error = f"<p class=bad>{escape(call.error)}</p>" if call.error else ""
    head = f"<p class=call>{escape(call.name)}</p>"
    if observation is None:
        return head + "".join(arguments) + error + "<p class=cost>not run</p>"
    kind = "observation" if observation.ok else "observation bad"
    shown = _result(observation.text, kind) + _pictures(observation.pictures)
    return head + "".join(arguments) + error + shown


def _pictures(pictures: Iterable[object]) -> str:
    """Render pictures; one whose file is gone or large only in words."""
    parts = []
    for picture in pictures:
        if not isinstance(picture, Picture):
            continue
        words = escape(picture.words)
        try:
            url = picture.data_url
        except PictureError:
            url = ""
        if not url or len(url) > MOST_PICTURE:
            parts.append(f"<p class=cost>{words}</p>")
        else:
            parts.append(f'<p><img src="{url}" alt="{words}" style="max-width:100%"></p>')
    return "".join(parts)


_EDITED = ("old_string", "new_string", "patch")


def _edit_as_patch(call: ToolCall, spans: Mapping[str, Spans]) -> str | None:
    """Render the change that an editing call asks for; None for another call.

    Added text is shaded by how unsure the model was of each token.
    """
    arguments = call.arguments
    if isinstance(patch := arguments.get("patch"), str):
        return block("change", patch, "patch")
    old, new = arguments.get("old_string"), arguments.get("new_string")
    if not isinstance(old, str) or not isinstance(new, str):
        return None
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=3, lineterm="")
    shown = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    if len("\n".join(shown)) > SHOWN or not (pieces := spans.get("new_string")):
        return block("change", "\n".join(shown), "patch")
    shades = iter(shaded_lines(new, pieces))
    inner = ""
    for line in shown:
        # Kept and added lines are the new text's, in its order.
        shade = "" if line.startswith("-") else _next_line(shades, line[1:])
        added = f'<i class="add">+{shade}\n</i>'
        inner += added if line.startswith("+") and shade else _patch_line(line)
    return f'<div class="block patch"><span>change</span><pre>{inner}</pre></div>'


def _next_line(shades: Iterator[tuple[str, str]], line: str) -> str:
    """Return the shaded form of the next of the new text's lines that is ``line``, else ""."""
    return next((shade for text, shade in shades if text == line), "")


def shaded_lines(text: str, pieces: Spans) -> Iterator[tuple[str, str]]:
    """Yield each line of ``text`` plain, and as HTML in which unsure tokens are shaded.

    A token of probability p has a shade of 1 - p; nothing below a tenth is drawn.
    """
    at = 0
    shades: list[float] = []
    for length, logprob in pieces:
        shades += [1 - math.exp(logprob)] * length
    shades += [0.0] * (len(text) - len(shades))
    for line in text.splitlines(keepends=True):
        bare, marks, place = line.rstrip("\r\n"), "", 0
        for shade, group in groupby(shades[at : at + len(bare)]):
            length = len(list(group))
            part = escape(bare[place : place + length])
            title = f"{100 * (1 - shade):.0f} %"
            style = f"background:rgba(255,140,0,{0.6 * shade:.2f})"
            marks += part if shade < 0.1 else f'<b style="{style}" title="{title}">{part}</b>'
            place += length
        yield bare, marks
        at += len(line)


def _result(text: str, kind: str) -> str:
    """Render a result; of a long one the beginning is shown and all of it folded."""
    lines = text.splitlines()
    if len(lines) <= LONG and len(text) <= 100 * LONG:
        return block("result", text, kind)
    begin = "\n".join(lines[: LONG // 2])[: 50 * LONG]
    return block("result begins", f"{begin}\n…", kind) + folded(
        f"all of the result: {len(lines):,} lines, {len(text):,} characters", text
    )


def block(name: str, text: str, kind: str) -> str:
    """Render a named text. ``kind`` is a class of ours."""
    if kind == "patch":
        inner = "".join(_patch_line(line) for line in _shortened(text).split("\n"))
    else:
        inner = escape(_shortened(text))
    return f'<div class="block {kind}"><span>{escape(name)}</span><pre>{inner}</pre></div>'


def folded(name: str, text: str) -> str:
    """Render a named text that opens on a click."""
    return (
        f"<details class=folded><summary>{escape(name)}</summary>"
        f"<pre>{escape(_shortened(text))}</pre></details>"
    )


def _patch_line(line: str) -> str:
    kind = {"+": "add", "-": "del", "@": "at"}.get(line[:1], "")
    return f'<i class="{kind}">{escape(line)}\n</i>' if kind else escape(line) + "\n"


def _shortened(text: str) -> str:
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2
    return f"{text[:half]}\n… {len(text) - SHOWN:,} characters left out …\n{text[-half:]}"
