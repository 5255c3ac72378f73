"""Curves of the solved share against test runs, as numbers and as an SVG picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

BUDGETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
COLOURS = ("#4a5568", "#2b6cb0", "#2f855a", "#b7791f", "#c53030", "#6b46c1")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 420, 70, 60, 70


def shares(runs: Sequence[int | None], budgets: Sequence[int] = BUDGETS) -> list[float]:
    """Return which share of the tasks is solved within each budget of test runs.

    ``runs`` has one entry for a task: the test runs until it was solved, None if it was not.
    """
    solved = [[count is not None and count <= budget for count in runs] for budget in budgets]
    return [round(sum(row) / max(1, len(runs)), 4) for row in solved]


def after(
    first: Sequence[int | None], spent: Sequence[int], second: Sequence[int | None]
) -> list[int | None]:
    """Return the runs of a search that begins where another gave up after ``spent`` runs."""
    joined: list[int | None] = []
    for one, used, other in zip(first, spent, second, strict=True):
        joined.append(one if one is not None else None if other is None else used + other)
    return joined


def draw(curves: Mapping[str, Sequence[float]], title: str) -> str:
    """Return an SVG of each named curve over ``BUDGETS``, a logarithmic axis."""
    plot_width, plot_height = WIDTH - LEFT - 210, HEIGHT - TOP - BOTTOM
    xs = [LEFT + plot_width * i / (len(BUDGETS) - 1) for i in range(len(BUDGETS))]
    floor = TOP + plot_height
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="8" fill="#ffffff" '
        'stroke="#cbd5e0" />',
        _text(24, 32, title, weight="bold", size=16),
    ]
    for percent in range(0, 101, 20):
        y = floor - plot_height * percent / 100
        parts.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + plot_width}" stroke="#e2e8f0" />')
        parts.append(_text(LEFT - 10, y + 4, f"{percent} %", anchor="end"))
    for x, budget in zip(xs, BUDGETS, strict=True):
        parts.append(_text(x, floor + 20, str(budget), anchor="middle"))
    parts.append(_text(LEFT + plot_width / 2, floor + 46, "test runs", anchor="middle"))
    for number, (name, values) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [
            f"{x:.1f},{floor - plot_height * value:.1f}"
            for x, value in zip(xs, values, strict=True)
        ]
        parts.append(
            f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" '
            'stroke-width="2.5" />'
        )
        y = TOP + 10 + 26 * number
        x = LEFT + plot_width + 24
        parts.append(f'<path d="M{x} {y}h26" stroke="{colour}" stroke-width="2.5" />')
        parts.append(_text(x + 34, y + 4, name))
    return "\n".join([*parts, "</svg>", ""])


def _text(
    x: float, y: float, said: str, *, anchor: str = "start", weight: str = "normal", size: int = 13
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="#1a202c" font-family="sans-serif">{escape(said)}</text>'
    )
