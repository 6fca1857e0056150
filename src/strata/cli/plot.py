"""Line plots as SVG, written by hand: axes, a legend, nothing to install."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 200, 56, 60
# Told apart by people who do not see all colours, too (Okabe and Ito).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_DASHES = ("", "8 4", "2 4", "10 3 2 3", "4 2")


@dataclass(frozen=True)
class Line:
    """A curve. points: x and y, x ascending."""

    name: str
    points: Sequence[tuple[float, float]]


def line_plot(title: str, x_title: str, y_title: str, lines: Sequence[Line]) -> str:
    """The plot as an SVG document. The y axis starts at zero; x ticks are where points are."""
    xs = sorted({x for line in lines for x, _ in line.points}) or [0]
    ticks = _ticks(max([y for line in lines for _, y in line.points] or [1]))
    span = (xs[-1] - xs[0]) or 1
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / span if len(xs) > 1 else 0.5
        return _LEFT + across * width, _TOP + height * (1 - y / ticks[-1])

    bottom, right = _TOP + height, _LEFT + width
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _text(_LEFT, 30, title, size=16, weight="bold"),
    ]
    for tick in ticks:
        y = at(xs[0], tick)[1]
        parts.append(_stroke(_LEFT, y, right, y, "#dddddd"))
        parts.append(_text(_LEFT - 8, y + 4, f"{tick:g}", anchor="end"))
    for x in xs:
        across = at(x, 0)[0]
        parts.append(_stroke(across, bottom, across, bottom + 5, "#333333"))
        parts.append(_text(across, bottom + 20, f"{x:g}", anchor="middle"))
    parts.append(_stroke(_LEFT, bottom, right, bottom, "#333333"))
    parts.append(_stroke(_LEFT, _TOP, _LEFT, bottom, "#333333"))
    parts.append(_text(_LEFT + width / 2, _HEIGHT - 14, x_title, anchor="middle"))
    middle = _TOP + height / 2
    turned = f' transform="rotate(-90 22 {middle:.1f})"'
    parts.append(_text(22, middle, y_title, anchor="middle", extra=turned))
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = _DASHES[number % len(_DASHES)]
        style = f'fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"'
        places = [at(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" {style}/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in places]
        row = _TOP + 14 + 24 * number
        parts.append(f'<polyline points="{right + 16},{row} {right + 48},{row}" {style}/>')
        parts.append(_text(right + 56, row + 4, line.name))
    return "\n".join([*parts, "</svg>", ""])


def _ticks(highest: float) -> list[float]:
    """Round values from zero to beyond the highest."""
    if highest <= 0:
        return [0, 1]
    power = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * 5 >= highest)
    return [step * number for number in range(math.ceil(highest / step) + 1)]


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: str = "normal",
    extra: str = "",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}"{extra}>{escape(text)}</text>'
    )
