"""The shape of a state in drawings: cells, nodes and pieces that are too small for its word and its glyph.

Words, glyphs and colours are those of `web/shown`; this adds a form for each kind of state, so that a drawing is
read without colour, and an order of how much a state matters where several share one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from flowstone.core.state import State
from flowstone.web import shown
from flowstone.web.svg import Html, element

type Form = Literal["check", "cross", "down", "disc", "ring", "wedge", "diamond", "dash"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How one state is drawn.

    Attributes:
        form: its form.
        rank: how much it matters; of several states in one place, the one with the highest rank is shown.
        css: its class in the stylesheet: good, bad, warn, busy, off or idle.
    """

    form: Form
    rank: int
    css: str


_FORMS: Mapping[str, tuple[Form, int]] = {
    State.FAILED: ("cross", 100),
    State.UPSTREAM_FAILED: ("down", 90),
    State.AWAITING_APPROVAL: ("diamond", 80),
    State.CANCELLING: ("disc", 74),
    State.RETRYING: ("diamond", 72),
    State.RUNNING: ("disc", 70),
    "active": ("disc", 69),
    State.PENDING: ("ring", 66),
    State.SCHEDULED: ("ring", 64),
    State.WAITING: ("ring", 62),
    "paused": ("diamond", 60),
    "unstarted": ("ring", 58),
    "partial": ("wedge", 52),
    "stale": ("wedge", 50),
    "missing": ("dash", 40),
    State.CANCELLED: ("dash", 36),
    State.SKIPPED: ("dash", 34),
    State.REUSED: ("check", 22),
    State.COMPLETED: ("check", 20),
    "committed": ("check", 20),
    "current": ("check", 20),
    State.NOT_FOUND: ("dash", 10),
}

_GLYPHS: Mapping[Form, str] = {
    "check": "M1 6.5 4.5 10 11 2.5",
    "cross": "M2 2 10 10M10 2 2 10",
    "down": "M1.5 2.5h9L6 10.5z",
    "disc": "M6 1.5a4.5 4.5 0 1 0 .01 0z",
    "ring": "M6 1.5a4.5 4.5 0 1 0 .01 0z",
    "wedge": "M1.5 10h9L6 2z",
    "diamond": "M6 .5 11.5 6 6 11.5.5 6z",
    "dash": "M2 6h8",
}
_CELLS: Mapping[Form, str] = {
    "check": "h12v12h-12z",
    "cross": "h3l3 3 3-3h3v3l-3 3 3 3v3h-3l-3-3-3 3h-3v-3l3-3-3-3z",
    "down": "h12l-6 11z",
    "disc": "m6 1a5 5 0 1 0 .01 0z",
    "ring": "h12v12h-12zm2 2v8h8v-8z",
    "wedge": "v12h12z",
    "diamond": "m6 0 6 6-6 6-6-6z",
    "dash": "m2 5h8v2h-8z",
}


def shape(state: str) -> Shape:
    """Return how a state is drawn.

    Example:
        >>> shape("failed")
        Shape(form='cross', rank=100, css='bad')
        >>> shape("never seen").form
        'dash'
    """
    form, rank = _FORMS.get(state, ("dash", 5))
    return Shape(form, rank, shown.tone(state))


def word(state: str) -> str:
    """Return a state as people read it.

    Example:
        >>> word("upstream_failed")
        'upstream failed'
    """
    return shown.words(state)


def worst(states: Iterable[str]) -> str:
    """Return the state that matters most of those that share one place; `missing` for none.

    Example:
        >>> worst(["committed", "failed", "active"])
        'failed'
    """
    return max(states, key=lambda one: (shape(one).rank, one), default="missing")


def glyph_path(state: str, x: float = 0, y: float = 0) -> Html:
    """Return the sign of a state for an SVG, 12 units wide and high, with its corner at `x`, `y`.

    Example:
        >>> str(glyph_path("failed"))
        '<path class="glyph cross bad" d="M2 2 10 10M10 2 2 10"></path>'
    """
    found = shape(state)
    at = f"translate({x:g} {y:g})" if x or y else None
    return element("path", class_=f"glyph {found.form} {found.css}", d=_GLYPHS[found.form], transform=at)


def cell_path(state: str, x: float, y: float) -> str:
    """Return the path of a cell of a heat map, 12 units wide and high: its outline differs by kind of state.

    Example:
        >>> cell_path("committed", 1, 2)
        'M1 2h12v12h-12z'
    """
    return f"M{x:g} {y:g}{_CELLS[shape(state).form]}"


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by state as words, what matters most first.

    Example:
        >>> counted({"committed": 1204, "failed": 2})
        '2 failed, 1,204 committed'
    """
    names = sorted((one for one in counts if counts[one]), key=lambda one: (-shape(one).rank, one))
    return ", ".join(f"{counts[one]:,} {word(one)}" for one in names) or "none"
