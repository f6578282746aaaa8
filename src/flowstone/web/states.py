"""How a state is shown: a word, a glyph, a shape and a tone. Never a colour alone.

A tone is a class of the stylesheet (`tone-failed`); its colours differ in lightness too, so that a page printed in
grey is still read, and each tone has a shape of its own for cells and nodes that are too small for a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from flowstone.web.svg import Html, element

type Tone = Literal["ok", "failed", "blocked", "active", "waiting", "stale", "attention", "none"]


@dataclass(frozen=True, slots=True)
class Shape:
    """How one state is shown.

    Attributes:
        word: what it is called on a page.
        glyph: one character for lists, beside the word.
        tone: the class of its colour, without `tone-`.
        rank: how much it matters; of several states in one place, the one with the highest rank is shown.
    """

    word: str
    glyph: str
    tone: Tone
    rank: int

    @property
    def css(self) -> str:
        """The class of the stylesheet, as in `tone-failed`."""
        return f"tone-{self.tone}"


SHAPES: Mapping[str, Shape] = {
    "failed": Shape("failed", "✕", "failed", 100),
    "upstream_failed": Shape("upstream failed", "▽", "blocked", 90),
    "awaiting_approval": Shape("awaiting approval", "◆", "attention", 80),
    "cancelling": Shape("cancelling", "◐", "active", 74),
    "retrying": Shape("retrying", "↻", "attention", 72),
    "running": Shape("running", "●", "active", 70),
    "active": Shape("active", "●", "active", 69),
    "pending": Shape("pending", "○", "waiting", 66),
    "scheduled": Shape("scheduled", "◔", "waiting", 64),
    "waiting": Shape("waiting", "◌", "waiting", 62),
    "stale": Shape("stale", "△", "stale", 50),
    "unstarted": Shape("unstarted", "·", "none", 40),
    "missing": Shape("missing", "·", "none", 40),
    "cancelled": Shape("cancelled", "⊘", "none", 36),
    "skipped": Shape("skipped", "–", "none", 34),
    "reused": Shape("reused", "=", "ok", 22),
    "completed": Shape("completed", "✓", "ok", 20),
    "committed": Shape("committed", "✓", "ok", 20),
    "not_found": Shape("not found", "?", "none", 10),
    "paused": Shape("paused", "‖", "attention", 60),
}
"""Each state of steps, runs, partitions and queues, by its name in the database and in JSON."""

_PATHS: Mapping[Tone, str] = {
    "ok": "M1 6.5 4.5 10 11 2.5",
    "failed": "M2 2 10 10M10 2 2 10",
    "blocked": "M1.5 2.5h9L6 10.5z",
    "active": "M6 1.5a4.5 4.5 0 1 0 .01 0z",
    "waiting": "M6 1.5a4.5 4.5 0 1 0 .01 0z",
    "stale": "M1.5 10h9L6 2z",
    "attention": "M6 .5 11.5 6 6 11.5.5 6z",
    "none": "M2 6h8",
}


def shape(state: str) -> Shape:
    """Return how a state is shown; one that is not known here is shown by its own word.

    Example:
        >>> shape("upstream_failed").word, shape("odd_one").word
        ('upstream failed', 'odd one')
    """
    return SHAPES.get(state) or Shape(str(state).replace("_", " "), "?", "none", 5)


def worst(states: Iterable[str]) -> str:
    """Return the state that matters most of those that share one place.

    Example:
        >>> worst(["committed", "failed", "active"])
        'failed'
    """
    return max(states, key=lambda one: (shape(one).rank, one), default="unstarted")


def glyph_path(state: str, x: float = 0, y: float = 0) -> Html:
    """Return the shape of a state for an SVG, 12 units wide and high, with its corner at `x`, `y`.

    Example:
        >>> str(glyph_path("failed"))
        '<path class="glyph tone-failed" d="M2 2 10 10M10 2 2 10"></path>'
    """
    tone = shape(state).tone
    at = f"translate({x:g} {y:g})" if x or y else None
    return element("path", class_=f"glyph tone-{tone}", d=_PATHS[tone], transform=at)


def counted(counts: Mapping[str, int] | Iterable[tuple[str, int]]) -> str:
    """Return counts by state as a sentence, what matters most first.

    Example:
        >>> counted({"committed": 1204, "failed": 2})
        '2 failed, 1,204 committed'
    """
    found = dict(counts)
    names = sorted((one for one in found if found[one]), key=lambda one: (-shape(one).rank, one))
    return ", ".join(f"{found[one]:,} {shape(one).word}" for one in names) or "none"
