"""Four small charts as SVG text: no script, no inline style; colours come from the classes of `report.css`.

Every chart has a title and a description for screen readers, every mark a `<title>`, which browsers show as a
tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from git_history.markup import escape

_WIDTH, _HEIGHT = 960, 240  # user units; the page scales them
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 26
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_SHADES = 5


@dataclass(frozen=True, slots=True)
class Mark:
    """One position on the time axis.

    Args:
        label: what it is, for the tooltip.
        value: what is drawn upwards.
        below: what is drawn downwards; only columns do.
        tick: text under the axis, if any.
    """

    label: str
    value: int
    below: int = 0
    tick: str = ""


def compact(number: float) -> str:
    """Write a number in at most five characters.

    Example:
        >>> compact(950), compact(12_345), compact(3_400_000)
        ('950', '12.3k', '3.4M')
    """
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            scaled = number / limit
            return f"{scaled:.0f}{unit}" if abs(scaled) >= 100 else f"{scaled:.1f}".removesuffix(".0") + unit
    return f"{number:g}"


def ticks(highest: int, *, count: int = 4) -> list[int]:
    """Choose round numbers for an axis from 0 to at least the highest value.

    Args:
        highest: the largest value; 0 is allowed.
        count: about how many steps.

    Returns:
        Ascending, beginning with 0.

    Example:
        >>> ticks(87)
        [0, 25, 50, 75, 100]
    """
    rough = max(highest, 1) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    whole = max(1, math.ceil(step))
    return list(range(0, whole * math.ceil(max(highest, 1) / whole) + 1, whole))


def area(name: str, marks: Sequence[Mark], *, title: str, description: str, unit: str) -> str:
    """Draw one series over time as a line with a filled area.

    Args:
        name: unique in the page; letters only.
        marks: at least one, equally spaced.
        title: for screen readers.
        description: for screen readers.
        unit: such as `commits`, for tooltips.
    """
    scale = ticks(max(mark.value for mark in marks))
    slot = (_WIDTH - _LEFT - _RIGHT) / len(marks)
    floor = _HEIGHT - _BOTTOM
    heights = [_y(mark.value, 0, scale[-1]) for mark in marks]
    if len(marks) == 1:  # a line needs two points
        spots = [(_LEFT + 2.0, heights[0]), (_WIDTH - _RIGHT - 2.0, heights[0])]
    else:
        spots = [(_LEFT + slot * (place + 0.5), height) for place, height in enumerate(heights)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    fill = f"{spots[0][0]:.1f},{floor} {line} {spots[-1][0]:.1f},{floor}"
    hover = "".join(
        f'<g class="hover"><rect class="slot" x="{_LEFT + slot * place:.1f}" y="{_TOP}" width="{slot:.1f}" '
        f'height="{floor - _TOP}"/><circle class="dot" cx="{_LEFT + slot * (place + 0.5):.1f}" '
        f'cy="{heights[place]:.1f}" r="4"/><title>{escape(mark.label)}: {mark.value:,} {unit}</title></g>'
        for place, mark in enumerate(marks)
    )
    shapes = f'<polygon class="area" points="{fill}"/><polyline class="line" points="{line}"/>{hover}'
    return _figure(name, title, description, _grid(scale, 0, scale[-1]) + _time_axis(marks) + shapes)


def columns(name: str, marks: Sequence[Mark], *, title: str, description: str, units: tuple[str, str]) -> str:
    """Draw two series over time as columns, one upwards and one downwards from a common line.

    Args:
        name: unique in the page; letters only.
        marks: at least one, equally spaced.
        title: for screen readers.
        description: for screen readers.
        units: such as `("lines added", "lines deleted")`, for tooltips.
    """
    above, below = max(mark.value for mark in marks), max(mark.below for mark in marks)
    step = ticks(max(above, below), count=3)[1]  # one step for both sides, so that lengths can be compared
    top, bottom = step * max(1, math.ceil(above / step)), -step * math.ceil(below / step)
    slot = (_WIDTH - _LEFT - _RIGHT) / len(marks)
    width = min(max(slot * 0.75, 0.8), 36)
    zero = _y(0, bottom, top)
    shapes: list[str] = []
    for place, mark in enumerate(marks):
        x = _LEFT + slot * (place + 0.5) - width / 2
        high, low = _y(mark.value, bottom, top), _y(-mark.below, bottom, top)
        shapes.append(
            f'<g class="hover"><rect class="slot" x="{_LEFT + slot * place:.1f}" y="{_TOP}" '
            f'width="{slot:.1f}" height="{_HEIGHT - _BOTTOM - _TOP}"/>'
            f'<rect class="up" x="{x:.1f}" y="{high:.1f}" width="{width:.1f}" height="{zero - high:.1f}"/>'
            f'<rect class="down" x="{x:.1f}" y="{zero:.1f}" width="{width:.1f}" height="{low - zero:.1f}"/>'
            f"<title>{escape(mark.label)}: {mark.value:,} {units[0]}, {mark.below:,} {units[1]}</title></g>"
        )
    lines = range(bottom, top + 1, step)
    return _figure(name, title, description, _grid(lines, bottom, top) + _time_axis(marks) + "".join(shapes))


def heat_map(name: str, counts: Mapping[tuple[int, int], int], *, title: str, description: str) -> str:
    """Draw weekdays by hours as cells in five shades (and none for nothing).

    Args:
        name: unique in the page; letters only.
        counts: by weekday (0 is Monday) and hour.
        title: for screen readers.
        description: for screen readers.
    """
    cell, left, top = 37, 52, 8
    maximum = max(counts.values(), default=1)
    parts = [
        f'<text class="tick end" x="{left - 10}" y="{top + cell * day + 23}">{_DAYS[day]}</text>'
        for day in range(7)
    ]
    parts += [
        f'<text class="tick mid" x="{left + cell * hour + 17}" y="{top + cell * 7 + 16}">{hour:02d}</text>'
        for hour in range(24)
    ]
    for day in range(7):
        for hour in range(24):
            count = counts.get((day, hour), 0)
            # by square root: the nights of a busy project would otherwise all look empty
            shade = math.ceil(_SHADES * math.sqrt(count / maximum))
            parts.append(
                f'<rect class="cell shade{shade}" x="{left + cell * hour}" y="{top + cell * day}" '
                f'width="{cell - 3}" height="{cell - 3}" rx="5">'
                f"<title>{_DAYS[day]} {hour:02d}:00–{hour:02d}:59: {count:,} commits</title></rect>"
            )
    return _figure(name, title, description, "".join(parts), height=top + cell * 7 + 24)


def bar(share: float) -> str:
    """Draw one horizontal bar that fills a part of its cell, to stand next to text that says the same.

    Args:
        share: 0 to 1.
    """
    percent = min(max(share, 0.0), 1.0) * 100
    return (
        '<svg class="bar" aria-hidden="true" height="8" width="100%">'
        f'<rect rx="4" height="8" width="{percent:.1f}%"/></svg>'
    )


def _figure(name: str, title: str, description: str, content: str, *, height: int = _HEIGHT) -> str:
    return (
        f'<div class="plot" tabindex="0"><svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-labelledby="{name}Title {name}Text"><title id="{name}Title">{escape(title)}</title>'
        f'<desc id="{name}Text">{escape(description)}</desc>{content}</svg></div>'
    )


def _grid(values: Sequence[int], bottom: int, top: int) -> str:
    return "".join(
        f'<line class="{"base" if value == 0 else "grid"}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" '
        f'y1="{_y(value, bottom, top):.1f}" y2="{_y(value, bottom, top):.1f}"/>'
        f'<text class="tick end" x="{_LEFT - 8}" y="{_y(value, bottom, top) + 4:.1f}">{compact(abs(value))}</text>'
        for value in values
    )


def _time_axis(marks: Sequence[Mark]) -> str:
    """Write the ticks under the axis, without those that would touch the one before."""
    slot = (_WIDTH - _LEFT - _RIGHT) / len(marks)
    free = 0.0
    parts: list[str] = []
    for place, mark in enumerate(marks):
        x = _LEFT + slot * (place + 0.5)
        half = 4.0 * len(mark.tick)
        if mark.tick and x - half >= free and x + half <= _WIDTH:
            parts.append(f'<text class="tick mid" x="{x:.1f}" y="{_HEIGHT - 6}">{escape(mark.tick)}</text>')
            free = x + half + 8
    return "".join(parts)


def _y(value: int, bottom: int, top: int) -> float:
    return _TOP + (_HEIGHT - _BOTTOM - _TOP) * (top - value) / (top - bottom)
