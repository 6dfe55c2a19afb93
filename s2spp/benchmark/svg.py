"""Line charts as SVG text: panels with axes, lines and marks, readable on light and on dark pages.

Knows nothing of benchmarks. Written here because a serving install has no plotting library, and needs none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_SHAPES = {
    "circle": "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "square": "m-4-4h8v8h-8z",
    "diamond": "m0-5.5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
    "triangle": "m0-5.5l5.2 9h-10.4z",
}

_LIGHT = {"ground": "#ffffff", "ink": "#1f2328", "quiet": "#59636e", "grid": "#d8dee4"}
_DARK = {"ground": "#0d1117", "ink": "#e6edf3", "quiet": "#9198a1", "grid": "#30363d"}
_LIGHT_LINES = ("#59636e", "#0969da", "#bc4c00", "#1a7f37", "#a030a0")
_DARK_LINES = ("#9198a1", "#58a6ff", "#f0883e", "#3fb950", "#d2a8ff")


def _colours(names: dict[str, str], lines: Sequence[str]) -> str:
    """Plain rules: not everything that shows SVG knows CSS variables."""
    rules = [
        f"text {{ fill: {names['quiet']} }} .title {{ fill: {names['ink']} }}",
        f".ground {{ fill: {names['ground']} }} .grid {{ stroke: {names['grid']} }} "
        f".mark {{ stroke: {names['ground']} }}",
        *(f".l{n} {{ stroke: {colour} }} .m{n} {{ fill: {colour} }}" for n, colour in enumerate(lines)),
    ]
    return "\n".join(rules)


# A picture in a page knows of the reader's theme by this query alone; so it brings its own ground along.
_STYLE = f"""
text {{ font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 12px }}
.title {{ font-size: 13px; font-weight: 600 }}
.grid {{ stroke-width: 1 }}
.line {{ fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round }}
.dashed {{ stroke-dasharray: 6 5 }}
{_colours(_LIGHT, _LIGHT_LINES)}
@media (prefers-color-scheme: dark) {{
{_colours(_DARK, _DARK_LINES)}
}}
"""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 24.0, 34.0, 46.0


@dataclass(frozen=True)
class Series:
    """`points`: (x, y). `colour`: 0 (quiet) to 4. `mark`: circle, square, diamond, triangle, or none."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: int
    mark: str = "circle"
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One chart. `x_ticks`: (place, label); with `even` they stand at equal distances, whatever their numbers. The
    y axis begins at 0."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_ticks: Sequence[tuple[float, str]]
    even: bool = False
    width: float = 300.0
    height: float = 260.0


def picture(title: str, description: str, rows: Sequence[Sequence[Panel]], legend: Sequence[Series]) -> str:
    """The SVG document: panels in rows, below one legend for all. `title` and `description` are read out to who does
    not see it."""
    width = max((sum(panel.width for panel in row) for row in rows), default=0.0)
    top, parts = 34.0 if legend else 0.0, [_legend(legend)] if legend else []
    for row in rows:
        left = 0.0
        for panel in row:
            parts.append(f'<g transform="translate({left:g} {top:g})">{_panel(panel)}</g>')
            left += panel.width
        top += max(panel.height for panel in row)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" width="{width:g}" height="{top:g}" '
        f'role="img">\n<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>\n<style>{_STYLE}</style>\n'
        f'<rect class="ground" width="{width:g}" height="{top:g}" rx="6"/>\n{body}\n</svg>\n'
    )


def ticks(high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers from 0 to `high` or above."""
    high = max(high, 1e-9)
    step = 10.0 ** math.floor(math.log10(high / (most - 1)))
    size = next(size for size in (1, 2, 5, 10) if size * step * (most - 1) >= high * (1 - 1e-9))
    return [place * size * step for place in range(math.ceil(high / (size * step) - 1e-9) + 1)]


def _legend(series: Sequence[Series]) -> str:
    parts, left = [], _LEFT
    for each in series:
        line = Series(each.name, [(left, 20.0), (left + 28, 20.0)], each.colour, each.mark, each.dashed)
        parts.append(_line(line, lambda x: x, lambda y: y, marked=[(left + 14, 20.0)]))
        parts.append(f'<text x="{left + 36:g}" y="24">{escape(each.name)}</text>')
        left += 58 + 6.5 * len(each.name)
    return "".join(parts)


def _panel(panel: Panel) -> str:
    values = [y for series in panel.series for _, y in series.points]
    y_ticks = ticks(max(values, default=1.0))
    right, bottom = panel.width - _RIGHT, panel.height - _BOTTOM
    places = [place for place, _ in panel.x_ticks]

    def x_of(x: float) -> float:
        if panel.even:  # ticks alone have a place then
            share = (places.index(x) + 0.5) / len(places)
        else:
            share = (x - places[0]) / (places[-1] - places[0] or 1.0)
        return _LEFT + share * (right - _LEFT)

    def y_of(y: float) -> float:
        return bottom - y / y_ticks[-1] * (bottom - _TOP)

    parts = [f'<text class="title" x="{_LEFT:g}" y="20">{escape(panel.title)}</text>']
    for tick in y_ticks:
        y = y_of(tick)
        parts.append(f'<path class="grid" d="M{_LEFT:g} {y:.1f}H{right:g}"/>')
        parts.append(f'<text x="{_LEFT - 7:g}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for place, label in panel.x_ticks:
        parts.append(f'<text x="{x_of(place):.1f}" y="{bottom + 17:g}" text-anchor="middle">{escape(label)}</text>')
    middle = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(f'<text x="{middle[0]:g}" y="{bottom + 35:g}" text-anchor="middle">{escape(panel.x_label)}</text>')
    turned = f'transform="translate(13 {middle[1]:g}) rotate(-90)"'
    parts.append(f'<text {turned} text-anchor="middle">{escape(panel.y_label)}</text>')
    parts += [_line(series, x_of, y_of) for series in panel.series if series.points]
    return "".join(parts)


def _line(
    series: Series,
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    marked: Sequence[tuple[float, float]] | None = None,
) -> str:
    """`marked`: where marks stand, if not at the points. Each line and mark has its name, shown when pointed at."""
    corners = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in series.points)
    dashed = " dashed" if series.dashed else ""
    line = f'<polyline class="line l{series.colour}{dashed}" points="{corners}"/>'
    marks = "".join(
        _mark(series, x_of(x), y_of(y), f"{series.name}: {y:.4g}" if marked is None else series.name)
        for x, y in (series.points if marked is None else marked)
    )
    return f"<g><title>{escape(series.name)}</title>{line}{marks}</g>"


def _mark(series: Series, x: float, y: float, said: str) -> str:
    """Shapes differ as colours do, for those who see no colours."""
    if series.mark == "none":
        return ""
    shape = f'<path class="mark m{series.colour}" d="M{x:.1f} {y:.1f}{_SHAPES[series.mark]}">'
    return f"{shape}<title>{escape(said)}</title></path>"
