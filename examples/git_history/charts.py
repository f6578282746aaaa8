"""Four small charts, drawn by matplotlib as SVG pictures, in a light and a dark version each.

A picture lies in the page as data, so the page needs nothing else and lets nothing in: what is inside of an
`<img>` has no scripts, and its styles are its own. What it shows is also said in its description. Above it lie
invisible rectangles, one for each mark, whose `<title>` browsers show as a tooltip: an `<img>` itself has none.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from git_history.markup import escape

_WIDTH, _HEIGHT = 9.6, 2.4  # inches; the page scales them
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MAX_TICKS = 14

# the same findings give the same page: no random ids, no time of its making; text stays text
mpl.rcParams.update({"svg.hashsalt": "flowstone", "svg.fonttype": "none", "font.family": "sans-serif"})
mpl.rcParams["font.sans-serif"] = ["system-ui", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans"]


class Theme(NamedTuple):
    """Colours of a page."""

    soft: str
    grid: str
    main: str
    up: str
    down: str
    card: str
    shades: tuple[str, ...]


_LIGHT = Theme(
    *("#59616b", "#eceef1", "#2f6fd0", "#1d8f6a", "#d4573b", "#ffffff"),
    shades=("#f0f2f4", "#d3e2f8", "#a5c4ef", "#6f9fe3", "#3f79d2", "#1d4f9f"),
)
_DARK = Theme(
    *("#9aa4af", "#242a31", "#6aa2f2", "#3fbf93", "#f0846a", "#181c21"),
    shades=("#20252b", "#1d3153", "#264a82", "#3567b3", "#5a91e0", "#a3c7fb"),
)


@dataclass(frozen=True, slots=True)
class Mark:
    """One position on the time axis.

    Args:
        label: what it is, for the description and the tooltip.
        value: what is drawn upwards.
        below: what is drawn downwards; only columns do.
        tick: text under the axis, if any.
    """

    label: str
    value: int
    below: int = 0
    tick: str = ""


class Spot(NamedTuple):
    """A rectangle of a chart that has a tooltip, in the units of its axes; from top to bottom without a height."""

    left: float
    right: float
    text: str
    bottom: float | None = None
    top: float | None = None


type Draw = Callable[[Axes, Theme], Sequence[Spot]]


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


def area(marks: Sequence[Mark], *, title: str, description: str, unit: str) -> str:
    """Draw one series over time as a line with a filled area.

    Args:
        marks: at least one, equally spaced.
        title: for screen readers.
        description: for screen readers.
        unit: such as `commits`, for tooltips.
    """

    def draw(axes: Axes, theme: Theme) -> Sequence[Spot]:
        values = [mark.value for mark in marks]
        shown = values if len(values) > 1 else values * 2  # a line needs two points
        axes.fill_between(range(len(shown)), shown, color=theme.main, alpha=0.15, linewidth=0)
        axes.plot(shown, color=theme.main, linewidth=2, solid_joinstyle="round")
        _scale(axes, theme, marks)
        axes.set_xlim(-0.5, max(len(shown) - 0.5, 0.5))
        axes.set_ylim(bottom=0, top=max(*shown, 1) * 1.08)
        if len(marks) == 1:
            return [Spot(-0.5, 1.5, f"{marks[0].label}: {marks[0].value:,} {unit}")]
        return [Spot(n - 0.5, n + 0.5, f"{mark.label}: {mark.value:,} {unit}") for n, mark in enumerate(marks)]

    return _picture(draw, title, description)


def columns(marks: Sequence[Mark], *, title: str, description: str, units: tuple[str, str]) -> str:
    """Draw two series over time as columns, one upwards and one downwards from a common line.

    Args:
        marks: at least one, equally spaced.
        title: for screen readers.
        description: for screen readers.
        units: what goes upwards and what downwards, such as `("lines added", "lines deleted")`, for tooltips.
    """

    def draw(axes: Axes, theme: Theme) -> Sequence[Spot]:
        axes.bar(range(len(marks)), [mark.value for mark in marks], width=0.75, color=theme.up)
        axes.bar(range(len(marks)), [-mark.below for mark in marks], width=0.75, color=theme.down)
        _scale(axes, theme, marks)
        axes.axhline(0, color=theme.soft, alpha=0.55, linewidth=1)
        axes.set_xlim(-1, len(marks))
        up, down = units
        return [
            Spot(n - 0.5, n + 0.5, f"{mark.label}: {mark.value:,} {up}, {mark.below:,} {down}")
            for n, mark in enumerate(marks)
        ]

    return _picture(draw, title, description)


def heat_map(counts: Mapping[tuple[int, int], int], *, title: str, description: str, unit: str) -> str:
    """Draw weekdays by hours as cells in five shades (and one for nothing).

    Args:
        counts: by weekday (0 is Monday) and hour.
        title: for screen readers.
        description: for screen readers.
        unit: such as `commits`, for tooltips.
    """
    shades = heat(counts)

    def draw(axes: Axes, theme: Theme) -> Sequence[Spot]:
        cells = ListedColormap(theme.shades)
        axes.pcolormesh(shades, cmap=cells, vmin=0, vmax=5, edgecolors=theme.card, linewidth=3)
        axes.set_yticks(np.arange(7) + 0.5, _DAYS)
        axes.set_xticks(np.arange(24) + 0.5, [f"{hour:02d}" for hour in range(24)])
        axes.invert_yaxis()
        _plain(axes, theme)
        return [
            Spot(hour, hour + 1, f"{_DAYS[day]} {hour:02d}:00: {count:,} {unit}", day, day + 1)
            for (day, hour), count in sorted(counts.items())
        ]

    return _picture(draw, title, description)


def heat(counts: Mapping[tuple[int, int], int]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return the shade of each cell, 0 for nothing to 5.

    By square root: the nights of a busy project would otherwise all look empty.

    Example:
        >>> int(heat({(0, 0): 100, (6, 23): 1})[6, 23])
        1
    """
    maximum = max(counts.values(), default=1)
    shades = np.zeros((7, 24), dtype=np.int64)
    for (day, hour), count in counts.items():
        shades[day, hour] = math.ceil(5 * math.sqrt(count / maximum))
    return shades


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


def _picture(draw: Draw, title: str, description: str) -> str:
    (light, _), (dark, spots) = (_svg(draw, theme) for theme in (_LIGHT, _DARK))
    return (
        '<div class="plot" tabindex="0"><div class="sheet">'
        f'<picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{escape(title)}. {escape(description, limit=400)}"></picture>'
        f'<svg class="spots" aria-hidden="true" viewBox="0 0 1000 1000" preserveAspectRatio="none">{spots}</svg>'
        "</div></div>"
    )


def _svg(draw: Draw, theme: Theme) -> tuple[str, str]:
    """Return a picture as data, and the rectangles with tooltips that lie above it."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axes = figure.subplots()
    spots = draw(axes, theme)
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    rectangles = "".join(_rectangles(figure, axes, spots))  # only now everything has its place
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}", rectangles


def _rectangles(figure: Figure, axes: Axes, spots: Sequence[Spot]) -> Iterator[str]:
    """Yield rectangles in thousandths of the width and of the height."""
    place = axes.transData + figure.transFigure.inverted()
    low, high = axes.get_ylim()
    for spot in spots:
        ends = low if spot.bottom is None else spot.bottom, high if spot.top is None else spot.top
        (x, y), (other_x, other_y) = (
            1000 * place.transform(corner) for corner in zip(spot[:2], ends, strict=True)
        )
        yield (
            f'<rect x="{x:.1f}" y="{1000 - max(y, other_y):.1f}" width="{other_x - x:.1f}" '
            f'height="{abs(y - other_y):.1f}"><title>{escape(spot.text)}</title></rect>'
        )


def _scale(axes: Axes, theme: Theme, marks: Sequence[Mark]) -> None:
    """Put whole numbers at the lines, and as many ticks under the axis as have room."""
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(abs(value))))
    axes.grid(axis="y", color=theme.grid)
    places = [place for place, mark in enumerate(marks) if mark.tick]
    places = places[:: max(1, math.ceil(len(places) / _MAX_TICKS))]
    axes.set_xticks(places, [marks[place].tick for place in places])
    axes.set_axisbelow(True)
    _plain(axes, theme)


def _plain(axes: Axes, theme: Theme) -> None:
    axes.tick_params(colors=theme.soft, length=0, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)
