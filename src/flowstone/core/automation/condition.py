"""What a condition is: a value that combines with `&`, `|` and `~`, judges a target, and explains its verdict.

`Verdict` and `Decision` are what it comes to; `Condition` and its kinds are the algebra. The conditions that users
combine are in `core/automation/conditions`; they are leaves of this algebra and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, NoReturn

from flowstone.core.automation.facts import TargetFacts
from flowstone.core.partitions import PartitionKey
from flowstone.errors import DefinitionError


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
        partition_key: encoded partition.
        name: the target as people read it.
        because: the verdicts of the condition and of what always holds.
        in_progress: whether it is being computed, or placed for it.
        held: why it is not requested yet although the condition holds, for people.
    """

    asset: str
    partition_key: PartitionKey
    name: str
    because: Verdict
    in_progress: bool = False
    held: str | None = None

    @property
    def partition(self) -> PartitionKey:
        """The same as `partition_key`; deprecated, and gone in the next version."""
        return self.partition_key

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
            "partition": self.partition_key or None,
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


MAX_REQUESTS = 1000
"""How many partitions of one asset a condition asks for at once when it does not say otherwise."""
MAX_ACTIVE = 1000
"""How many steps of one asset may be active for a condition to ask for more when it does not say otherwise."""
MAX_AT_WORK = 40
"""How many of the steps that a condition asked for are at work at once, in the whole fleet."""


class Condition(ABC):
    """When an asset should be computed; combine with `&` (and), `|` (or) and `~` (not).

    Conditions are values without side effects: they judge facts and the time they are given.
    """

    @abstractmethod
    def judge(self, facts: TargetFacts, now: datetime) -> Verdict:
        """Say whether it holds for one target, and why.

        Args:
            facts: how the target and its inputs stand.
            now: the present, as an aware datetime.
        """

    def evaluate(self, facts: TargetFacts, now: datetime) -> Decision:
        """Decide about one target: the condition, and what always has to hold beside it.

        Whatever the condition says, a target is never requested whose partition is not over (unless the asset
        allows that), that is in progress, whose inputs are not all committed, or whose last try committed nothing
        and would meet the same inputs and code again.

        Args:
            facts: how the target and its inputs stand.
            now: the present, as an aware datetime.
        """
        verdict = self.judge(facts, now)
        parts = (verdict, *_guards(facts, verdict))
        whole = Verdict(all(part.holds for part in parts), "all of", parts)
        active = facts.status.active is not None
        return Decision(facts.asset, facts.partition_key, facts.name, whole, active)

    def at_most(self, requests: int, *, active: int = MAX_AT_WORK) -> Paced:
        """Limit how much is asked for; the last thing that is said about a condition.

        Args:
            requests: how many partitions at once, the newest first.
            active: nothing is asked for while that many steps of the asset are active.
        """
        return Paced(self, requests, active)

    def debounce(self, quiet: timedelta) -> Paced:
        """Ask only when no input was committed for a while: what comes in bursts is then computed once.

        Inputs that never rest are waited for ten times as long, not for ever.

        Args:
            quiet: how long nothing has to be committed.

        Raises:
            DefinitionError: it is not a positive timedelta.
        """
        return Paced(self).debounce(quiet)

    def __and__(self, other: Condition) -> Condition:
        return _joined(AllOf, self, other)

    def __or__(self, other: Condition) -> Condition:
        return _joined(AnyOf, self, other)

    def __invert__(self) -> Condition:
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise DefinitionError(
            f"The condition {self} is neither true nor false by itself. Combine conditions with &, | and ~ "
            "instead of 'and', 'or' and 'not'."
        )


@dataclass(frozen=True, slots=True)
class Leaf(Condition):
    """A condition of its own.

    Args:
        text: how it is written.
        test: judges.
    """

    text: str
    test: Callable[[TargetFacts, datetime], Verdict]

    def judge(self, facts: TargetFacts, now: datetime) -> Verdict:
        return self.test(facts, now)._replace(name=self.text)

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Named(Condition):
    """A combination that goes by a name of its own."""

    text: str
    inner: Condition

    def judge(self, facts: TargetFacts, now: datetime) -> Verdict:
        verdict = self.inner.judge(facts, now)
        return Verdict(verdict.holds, self.text, verdict.parts or (verdict,), verdict.retries)

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class AllOf(Condition):
    """Holds when all its parts do; `a & b`."""

    parts: tuple[Condition, ...]

    def judge(self, facts: TargetFacts, now: datetime) -> Verdict:
        parts = tuple(part.judge(facts, now) for part in self.parts)
        holds = all(part.holds for part in parts)
        return Verdict(holds, "all of", parts, holds and any(part.retries for part in parts))

    def __repr__(self) -> str:
        return " & ".join(f"({part})" if isinstance(part, AnyOf) else str(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AnyOf(Condition):
    """Holds when one of its parts does; `a | b`."""

    parts: tuple[Condition, ...]

    def judge(self, facts: TargetFacts, now: datetime) -> Verdict:
        parts = tuple(part.judge(facts, now) for part in self.parts)
        retries = any(part.holds and part.retries for part in parts)
        return Verdict(any(part.holds for part in parts), "any of", parts, retries)

    def __repr__(self) -> str:
        return " | ".join(map(str, self.parts))


@dataclass(frozen=True, slots=True)
class Not(Condition):
    """Holds when its part does not; `~a`."""

    part: Condition

    def judge(self, facts: TargetFacts, now: datetime) -> Verdict:
        verdict = self.part.judge(facts, now)
        return Verdict(not verdict.holds, "not", (verdict,))

    def __repr__(self) -> str:
        return f"~({self.part})" if isinstance(self.part, AllOf | AnyOf) else f"~{self.part}"


@dataclass(frozen=True, slots=True)
class Paced:
    """A condition with its limits; see `Condition.at_most`.

    Raises:
        DefinitionError: a limit is less than 1.
    """

    condition: Condition
    requests: int = MAX_REQUESTS
    active: int = MAX_ACTIVE
    quiet: timedelta | None = None

    def at_most(self, requests: int, *, active: int = MAX_AT_WORK) -> Paced:
        """Return the condition with other numbers of requests; see `Condition.at_most`."""
        return Paced(self.condition, requests, active, self.quiet)

    def debounce(self, quiet: timedelta) -> Paced:
        """Return the condition with a time without commits; see `Condition.debounce`."""
        given: object = quiet
        if not isinstance(given, timedelta) or given <= timedelta(0):
            raise DefinitionError(
                f"debounce({quiet!r}): give a positive timedelta, such as timedelta(seconds=30)."
            )
        return Paced(self.condition, self.requests, self.active, quiet)

    def __post_init__(self) -> None:
        given: tuple[tuple[str, object], ...] = (("requests", self.requests), ("active", self.active))
        for name, value in given:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise DefinitionError(f"at_most(): {name}={value!r}: give a whole number of at least 1.")

    def __repr__(self) -> str:
        text = repr(self.condition)
        if (self.requests, self.active) != (MAX_REQUESTS, MAX_ACTIVE):
            text = f"({text}).at_most({self.requests}, active={self.active})"
        return text if self.quiet is None else f"({text}).debounce({self.quiet})"


def paced(automation: Condition | Paced) -> Paced:
    """Return a condition with its limits, the default ones if none were said."""
    return automation if isinstance(automation, Paced) else Paced(automation)


def _joined[Kind: (AllOf, AnyOf)](kind: type[Kind], left: Condition, right: object) -> Condition:
    if not isinstance(right, Condition):
        limits = " Say at_most() last, around the whole condition." if isinstance(right, Paced) else ""
        raise DefinitionError(f"{right!r} cannot be combined with the condition {left}.{limits}")
    parts: list[Condition] = []
    for one in (left, right):
        parts += one.parts if isinstance(one, kind) else (one,)
    return kind(tuple(parts))


def _guards(facts: TargetFacts, verdict: Verdict) -> Iterator[Verdict]:
    """Yield what has to hold whatever the condition says."""
    yield Verdict(
        facts.unfinished is None,
        f"it is {facts.unfinished}" if facts.unfinished else "its partition is over, or may be computed before",
    )
    active = facts.status.active
    yield Verdict(active is None, f"it is {active.state.value}" if active else "nothing of it is in progress")
    unready = facts.unready
    yield Verdict(not unready, listed(unready) or "all its inputs are committed")
    ended = None if verdict.retries else facts.unchanged_try
    if ended is None:
        yield Verdict(True, "inputs or code changed since a try without a result, or there was none")
    else:
        yield Verdict(False, f"it ended as {ended.state.value} and neither inputs nor code changed since")
