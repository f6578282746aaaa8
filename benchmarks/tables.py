"""Results as Markdown that can be pasted into the documentation, and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.environments import PEERS
from benchmarks.figures import Figure, Target
from benchmarks.measurement import Series
from benchmarks.noise import Noise

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def duration(seconds: float) -> str:
    """Write a duration with three digits and its unit.

    Example:
        >>> duration(0.0123)
        '12.3 ms'
    """
    scale, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{seconds / scale:.3g} {unit}" if seconds / scale < 1000 else f"{seconds / scale:,.0f} {unit}"


def spread(values: Sequence[float]) -> str:
    """Write minimum and maximum."""
    return f"{duration(min(values))} – {duration(max(values))}"


def figure_table(figure: Figure, results: Sequence[Series]) -> str:
    """Return the table of a figure, with its targets below."""
    rows = [_row(figure, one, results[0]) for one in results]
    head = ["", "median", "min – max", f"one {figure.item}", f"{figure.item}s / s", f"÷ {results[0].name}"]
    parts = [f"### {figure.title}", _table(head, rows)]
    extras = [
        f"- {one.name}: {name} {', '.join(map(str, values))}"
        for one in results
        for name, values in one.extra.items()
    ]
    if extras:
        parts.append("\n".join(extras))
    if figure.targets:
        by_name = {one.name: one for one in results}
        checked = [_target(target, by_name) for target in figure.targets]
        parts.append(_table(["target", "aim", "measured (min – max of rounds)", "met"], checked))
    return "\n\n".join(parts)


def noise_table(noise: Noise) -> str:
    """Return how unsteady the machine was."""
    rows = [
        [name, duration(min(values)), duration(statistics.median(values)), duration(max(values)), str(len(values))]
        for name, values in (("loop of pure Python", noise.loop), ("`SELECT 1`", noise.select))
        if values
    ]
    return "### Noise of the machine\n\n" + _table(["control", "min", "median", "max", "times"], rows)


def setting_lines(server: dict[str, str] | None) -> str:
    """Return what was measured on."""
    peers = ", ".join(package for peer in PEERS.values() for package in peer.packages[:1])
    lines = [
        f"- {platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        f"- peers: {peers}",
    ]
    if server:
        lines.append("- PostgreSQL, embedded: " + ", ".join(f"{name} {value}" for name, value in server.items()))
    return "\n".join(lines)


def as_json(figures: Iterable[tuple[Figure, Sequence[Series]]], noise: Noise) -> dict[str, Any]:
    """Return everything that was measured."""
    return {
        "noise": {"loop_seconds": noise.loop, "select_seconds": noise.select},
        "figures": [
            {
                "title": figure.title,
                "series": [
                    {"name": one.name, "items": one.items, "rounds": one.rounds, "extra": one.extra}
                    for one in results
                ],
            }
            for figure, results in figures
        ],
    }


def _row(figure: Figure, one: Series, first: Series) -> list[str]:
    each = one.median / one.items
    ratio = statistics.median(first.ratios(one))
    return [
        one.name,
        duration(one.median),
        spread(one.seconds),
        duration(each),
        f"{1 / each:,.0f}",
        f"{ratio:,.3g}",
    ]


def _target(target: Target, by_name: dict[str, Series]) -> list[str]:
    ratios = by_name[target.ours].ratios(by_name[target.theirs])
    measured = statistics.median(ratios)
    if target.at_least < 1:  # dearer than the peer, within bounds
        aim, got = f"at most {1 / target.at_least:g} ×", 1 / measured
        low, high = 1 / max(ratios), 1 / min(ratios)
    else:
        aim, got = f"{target.at_least:g} × cheaper", measured
        low, high = min(ratios), max(ratios)
    met = "yes" if measured >= target.at_least else "no"
    return [f"{target.ours} : {target.theirs}", aim, f"{got:,.3g} × ({low:,.3g} – {high:,.3g})", met]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
