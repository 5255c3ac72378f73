"""The charts of a run's page: SVG in the page itself, drawn from the summary, without a script.

Colours are classes of the page's style sheet. Every chart has its numbers in words as well, in
titles and labels, so that nothing is told by colour alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence

from evals.report.stats import Estimate
from evals.report.summary import Summary

WIDTH = 400
"""Units of a drawing's width; on a phone one is about a pixel."""
LINE, BAR = 16, 12
MOST_BESIDE = 58
"""Characters of a bar's name and words that fit into one line."""
MOST_ROWS = 30
_REPOSITORY = re.compile(r"(?:instance_)?([A-Za-z0-9_.-]+?)__([A-Za-z0-9_.-]+?)-[0-9a-f]+(?:-.*)?")
OUTCOMES = ("resolved", "unresolved", "not-graded")
Part = tuple[str, float]
"""A part of a bar: its class and its size."""


def charts(summary: Summary) -> str:
    """Return all charts of a run, for its page."""
    parts = [
        _figure("Outcome by repository", outcome_chart(summary)),
        _figure("pass@k and pass^k, with 95 % intervals", curve_chart(summary)),
        _figure("Where the time went", time_chart(summary)),
        _figure("Where the tokens came from", token_chart(summary)),
        _figure("Cost of each solved task", cost_chart(summary)),
    ]
    return f"<section class=charts>{''.join(parts)}</section>"


def repository_of(instance: str) -> str:
    """Return the repository that an instance's id names, as ``owner/name``; "" if it has none."""
    found = _REPOSITORY.fullmatch(instance)
    return f"{found[1]}/{found[2]}" if found else ""


def outcome_chart(summary: Summary) -> str:
    """Draw resolved, unresolved and not graded attempts, of the suite and of each repository."""
    suite = str(summary.about.get("identity", {}).get("suite", summary.name))
    groups: dict[str, dict[str, int]] = {suite: dict.fromkeys(OUTCOMES, 0)}
    for attempt in summary.attempts:
        kind = attempt.outcome.replace(" ", "-")
        groups[suite][kind] += 1
        if name := repository_of(attempt.result.instance_id):
            own = groups.setdefault(name, dict.fromkeys(OUTCOMES, 0))
            own[kind] += 1
    rows = []
    for name, counts in groups.items():
        told = [f"{counts[kind]} {kind.replace('-', ' ')}" for kind in OUTCOMES if counts[kind]]
        words = ", ".join(told)
        rows.append((name, [(kind, float(counts[kind])) for kind in OUTCOMES], words))
    return _bars(rows, OUTCOMES, whole=True)


def time_chart(summary: Summary) -> str:
    """Draw where the seconds of all attempts went."""
    parts = [(name, summary.total(f"{name}_s")) for name in ("prefill", "decode", "tool")]
    known = sum(size for _, size in parts)
    spent = sum(attempt.result.seconds for attempt in summary.attempts)
    parts.append(("other", max(0.0, spent - known)))
    words = ", ".join(f"{size:,.1f} s {name}" for name, size in parts)
    return _bars([("seconds", parts, words)], ("prefill", "decode", "tool", "other"))


def token_chart(summary: Summary) -> str:
    """Draw the sources of the tokens, and what sharing the prompts' beginnings saved."""
    shared, prefilled, generated = (
        summary.total(f"{name}_tokens") for name in ("shared", "prefilled", "generated")
    )
    parts = [("shared", shared), ("prefilled", prefilled), ("generated", generated)]
    words = ", ".join(f"{size:,.0f} {name}" for name, size in parts)
    read = shared + prefilled
    share = 100 * shared / read if read else 0.0
    saved = f"<p class=cost>Sharing saved {share:.0f} % of the tokens to be prefilled.</p>"
    return _bars([("tokens", parts, words)], ("shared", "prefilled", "generated")) + saved


def cost_chart(summary: Summary) -> str:
    """Draw the seconds of each attempt that solved its task, dearest first."""
    solved = [attempt.result for attempt in summary.attempts if attempt.outcome == "resolved"]
    solved.sort(key=lambda result: (-result.seconds, result.instance_id, result.attempt))
    if not solved:
        return "<p class=cost>No task is solved.</p>"
    rows = []
    for result in solved[:MOST_ROWS]:
        tokens = result.usage.get("generated_tokens", 0)
        number = f" #{result.attempt}" if result.attempt > 1 else ""
        words = f"{result.seconds:,.1f} s, {tokens:,.0f} tokens generated"
        rows.append((f"{result.instance_id}{number}", [("decode", result.seconds)], words))
    mean = sum(result.seconds for result in solved) / len(solved)
    more = (
        f"{len(solved) - MOST_ROWS} cheaper ones are not drawn; " if len(solved) > MOST_ROWS else ""
    )
    return _bars(rows, ()) + f"<p class=cost>{more}{mean:,.1f} s on average</p>"


def curve_chart(summary: Summary) -> str:
    """Draw both rates over the number of attempts, each with a band for its interval."""
    curves = [("resolved", "pass@k", summary.pass_at), ("generated", "pass^k", summary.pass_all)]
    ks = sorted({k for _, _, values in curves for k in values})
    if not ks:
        return "<p class=cost>Nothing is graded.</p>"
    left, top, height = 44, 10, 180
    across = WIDTH - left - 16

    def x(k: int) -> float:
        return left + across * (0.5 if len(ks) == 1 else ks.index(k) / (len(ks) - 1))

    def y(rate: float) -> float:
        return top + height * (1 - rate)

    parts = []
    for rate in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<line class=grid x1="{left}" x2="{WIDTH - 16}" y1="{y(rate):.1f}" '
            f'y2="{y(rate):.1f}"/>'
            f'<text x="{left - 6}" y="{y(rate) + 4:.1f}" text-anchor=end>{rate:.0%}</text>'
        )
    parts += [
        f'<text x="{x(k):.1f}" y="{top + height + 18}" text-anchor=middle>k = {k}</text>'
        for k in ks
    ]
    for kind, name, values in curves:
        parts.append(_curve(kind, name, values, x, y))
    legend = _legend((("resolved", "pass@k"), ("generated", "pass^k")))
    return _svg(top + height + 26, "".join(parts)) + legend


def _curve(
    kind: str,
    name: str,
    values: Mapping[int, Estimate],
    x: Callable[[int], float],
    y: Callable[[float], float],
) -> str:
    if not values:
        return ""
    upper = [f"{x(k):.1f},{y(value.high):.1f}" for k, value in values.items()]
    lower = [f"{x(k):.1f},{y(value.low):.1f}" for k, value in values.items()]
    points = [f"{x(k):.1f},{y(value.value):.1f}" for k, value in values.items()]
    dots = "".join(
        f'<line class="whisker {kind}" x1="{x(k):.1f}" x2="{x(k):.1f}" y1="{y(v.low):.1f}" '
        f'y2="{y(v.high):.1f}"/><circle class="{kind}" cx="{x(k):.1f}" cy="{y(v.value):.1f}" r=4>'
        f"<title>{name} at k = {k}: {v.value:.1%} ({v.low:.1%} to {v.high:.1%})</title></circle>"
        for k, v in values.items()
    )
    band = " ".join([*upper, *reversed(lower)])
    return (
        f'<polygon class="band {kind}" points="{band}"/>'
        f'<polyline class="curve {kind}" points="{" ".join(points)}"/>{dots}'
    )


def _bars(
    rows: Sequence[tuple[str, Sequence[Part], str]], kinds: Sequence[str], *, whole: bool = False
) -> str:
    """Draw a bar for each row; with ``whole`` each fills the width."""
    most = max((sum(size for _, size in parts) for _, parts, _ in rows), default=0.0)
    drawn = []
    top = 0
    for name, parts, words in rows:
        total = sum(size for _, size in parts) if whole else most
        at = 0.0
        drawn.append(f"<g><title>{_escape(name)}: {_escape(words)}</title>")
        drawn.append(f'<text x="0" y="{top + 12}">{_escape(_cut_name(name))}</text>')
        beside = len(name) + len(words) <= MOST_BESIDE
        below = top + (12 if beside else LINE + BAR + 14)
        where = f'x="{WIDTH}" text-anchor=end' if beside else 'x="0"'
        drawn.append(f'<text class=dim {where} y="{below}">{_escape(words)}</text>')
        for kind, size in parts:
            width = WIDTH * size / total if total else 0.0
            if width > 0:
                drawn.append(
                    f'<rect class="{kind}" x="{at:.1f}" y="{top + LINE + 1}" width="{width:.1f}" '
                    f'height="{BAR}"/>'
                )
            at += width
        drawn.append("</g>")
        top += LINE + BAR + (8 if beside else 24)
    legend = _legend([(kind, kind.replace("-", " ")) for kind in kinds])
    return _svg(top, "".join(drawn)) + legend


def _cut_name(name: str) -> str:
    return name if len(name) <= 34 else f"{name[:16]}…{name[-17:]}"


def _legend(pairs: Sequence[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    items = "".join(f'<span><i class="{kind}"></i> {name}</span>' for kind, name in pairs)
    return f"<p class=legend>{items}</p>"


def _figure(title: str, drawn: str) -> str:
    return f"<figure><figcaption>{_escape(title)}</figcaption>{drawn}</figure>"


def _svg(height: int, inner: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role=img>{inner}</svg>'


def _escape(text: str) -> str:
    plain = text.encode("utf-8", "replace").decode("utf-8")
    return html.escape("".join(c if c.isprintable() else "�" for c in plain), quote=True)
