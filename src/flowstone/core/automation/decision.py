"""What a condition came to: a verdict with the facts it follows from, and the decision about a target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Verdict(NamedTuple):
    """Whether a condition holds, why, and the verdicts it follows from.

    Args:
        holds: whether it holds.
        text: the fact, or how the parts are combined, for people.
        parts: the verdicts it follows from.
        retries: whether it asks again although nothing changed since the last try committed nothing.
        name: the condition as it is written, for one that judges by itself.
    """

    holds: bool
    text: str
    parts: tuple[Verdict, ...] = ()
    retries: bool = False
    name: str = ""

    def lines(self, depth: int = 0) -> Iterator[str]:
        """Yield one line for each fact, indented below what follows from it.

        Example:
            >>> list(Verdict(True, "any of", (Verdict(True, "it is missing"),)).lines())
            ['yes: any of', '  yes: it is missing']
        """
        name = f"{self.name}: " if self.name and self.name != self.text else ""
        yield f"{'  ' * depth}{'yes' if self.holds else 'no'}: {name}{self.text}"
        for part in self.parts:
            yield from part.lines(depth + 1)

    def decisive(self) -> Iterator[str]:
        """Yield the facts that made it hold, or not."""
        if not self.parts:
            yield self.text
        # a negation follows from the opposite: then all its parts count
        for part in [part for part in self.parts if part.holds is self.holds] or self.parts:
            yield from part.decisive()

    def to_json(self) -> dict[str, object]:
        """Return the tree with JSON types."""
        parts = [part.to_json() for part in self.parts]
        return {"holds": self.holds, "name": self.name or None, "text": self.text, "parts": parts}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a condition says about one target now.

    Args:
        asset: asset name.
        partition: encoded partition.
        name: the target as people read it.
        because: the verdicts of the condition and of what always holds.
        in_progress: whether it is being computed, or placed for it.
        held: why it is not requested yet although the condition holds, for people.
    """

    asset: str
    partition: str
    name: str
    because: Verdict
    in_progress: bool = False
    held: str | None = None

    @property
    def requested(self) -> bool:
        """Whether it should be computed now."""
        return self.because.holds

    @property
    def wanted(self) -> bool:
        """The same as `requested`; deprecated, and gone in the next version."""
        return self.requested

    @property
    def reason(self) -> str:
        """The facts that decided, on one line."""
        deciding = self.because.parts[0] if self.requested else self.because
        return "; ".join(dict.fromkeys(deciding.decisive()))

    def explain(self) -> list[str]:
        """Return lines for people: the answer, then each condition and fact with yes or no."""
        answer = "is requested" if self.requested else "is not requested"
        held = [f"it is asked for later: {self.held}"] if self.requested and self.held else []
        return [f"{self.name} {answer}: {self.reason}", *held, *self.because.lines(1)]

    def to_json(self) -> dict[str, object]:
        """Return the decision with JSON types."""
        return {
            "asset": self.asset,
            "partition": self.partition or None,
            "requested": self.requested,
            "wanted": self.requested,
            "reason": self.reason,
            "held": self.held,
            "because": self.because.to_json(),
        }


def listed(texts: list[str], maximum: int = 3) -> str:
    """Return some texts as one.

    Example:
        >>> listed(["a", "b", "c", "d"])
        'a, b, c and 1 more'
    """
    more = len(texts) - maximum
    return ", ".join(texts[:maximum]) + (f" and {more} more" if more > 0 else "")
