"""Evaluates the condition of one asset: which partitions are requested, and one run that computes them.

`scope` bounds an evaluation: always the newest partition, and a window over the others that moves on from tick to
tick.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from flowstone.core.asset import Asset
from flowstone.core.automation.condition import MAX_AT_WORK, Decision, Paced, listed
from flowstone.core.automation.facts import TargetFacts
from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    Conclusion,
    NewTick,
    TakenAutomation,
    TickState,
)
from flowstone.core.clean import clean_text
from flowstone.core.definition import ListedPartitions, PartitionsDefinition
from flowstone.core.graph import AssetGraph
from flowstone.core.partitions import NO_PARTITION, Partition, PartitionKey, decode_partition, encode_partition
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.engine.automation.evaluation import FactReader
from flowstone.errors import PartitionError
from flowstone.protocols import PrepareTargets

NEWEST = 200
"""How many of the newest partitions every evaluation covers."""
OLDER = 200
"""How many of the others; the next evaluation goes on with those before them, and in the end begins anew."""


class Scope(NamedTuple):
    """Partitions to evaluate.

    Args:
        partitions: encoded, the newest first.
        resume: where the next evaluation goes on among the older ones; None for directly behind the newest.
    """

    partitions: list[PartitionKey]
    resume: str | None = None


def scope(
    definition: PartitionsDefinition | None,
    now: datetime,
    resume: str | None = None,
    *,
    newest: int = NEWEST,
    older: int = OLDER,
) -> Scope:
    """Return what the next evaluation covers.

    Args:
        definition: the partitions of the asset; None without partitions.
        now: decides which partitions are complete.
        resume: what the evaluation before left.
        newest: how many of the newest.
        older: how many of the others.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.partitions_by_time import DailyPartitions
        >>> now = datetime(2024, 1, 6, tzinfo=UTC)
        >>> scope(DailyPartitions("2024-01-01"), now, newest=1, older=2)
        Scope(partitions=['d:2024-01-05', 'd:2024-01-04', 'd:2024-01-03'], resume='d:2024-01-02')
        >>> scope(DailyPartitions("2024-01-01"), now, "d:2024-01-02", newest=1, older=2)
        Scope(partitions=['d:2024-01-05', 'd:2024-01-02', 'd:2024-01-01'], resume=None)
    """
    if definition is None:
        return Scope([NO_PARTITION])
    head = _until(definition, None, newest + 1, now)
    behind = head.pop(0) if len(head) > newest else None
    start = _resumed(definition, resume) if resume is not None else None
    if start is None:
        start = behind
    rest = [] if start is None or behind is None else _until(definition, start, older + 1, now)
    following = rest.pop(0) if len(rest) > older else None
    keys = dict.fromkeys(encode_partition(key) for key in (*reversed(head), *reversed(rest)))
    return Scope(list(keys), None if following is None else encode_partition(following))


def begun(definition: PartitionsDefinition | None, now: datetime) -> list[PartitionKey]:
    """Return the partition that is going on, encoded, of partitions by time; nothing when there is none.

    Example:
        >>> from datetime import UTC
        >>> from flowstone.core.partitions_by_time import DailyPartitions
        >>> begun(DailyPartitions("2024-01-01"), datetime(2024, 1, 6, 12, tzinfo=UTC))
        ['d:2024-01-06']
    """
    key = definition.containing(now) if isinstance(definition, TimePartitions) else None
    if definition is None or key is None or key not in definition or definition.is_complete(key, now):
        return []
    return [encode_partition(key)]


def every(definition: PartitionsDefinition | None, now: datetime) -> list[PartitionKey]:
    """Return all complete partitions, encoded, the newest first.

    Example:
        >>> from datetime import UTC
        >>> every(None, datetime(2024, 1, 1, tzinfo=UTC))
        ['']
    """
    return [NO_PARTITION] if definition is None else [encode_partition(key) for key in definition.keys(now)][::-1]


def _until(
    definition: PartitionsDefinition, last: Partition | None, number: int, now: datetime
) -> list[Partition]:
    """Return up to `number` complete keys that end with `last`, in order; None stands for the last one."""
    if isinstance(definition, TimePartitions):
        key = definition.last(now) if last is None else last
        found: list[Partition] = []
        while key is not None and key >= definition.start and len(found) < number:
            found.append(key)
            key = definition.shift(key, -1)
        return found[::-1]
    if isinstance(definition, ListedPartitions):
        return definition.until(last, number)
    keys = list(definition.keys(now))
    stop = len(keys) if last is None or last not in keys else keys.index(last) + 1
    return keys[max(0, stop - number) : stop]


def _resumed(definition: PartitionsDefinition, resume: str) -> Partition | None:
    """Return where to go on; None when that partition is not there any more."""
    try:
        return definition.validate(decode_partition(resume))
    except PartitionError:
        return None


KIND = "condition"
"""What runs are called that a condition asked for."""
_SOON_SECONDS = 0.5
_SLOWER = 1.6
_TIMEOUT_SECONDS = 60.0
_HOLD = timedelta(seconds=30)
_TIMES = 10
_WAVE = 3000
"""How many older partitions are checked when something is to be requested."""
_MAX_REASON = 1000


@dataclass(frozen=True, slots=True)
class Memory:
    """What one evaluation leaves for the next one.

    Args:
        older: where to go on among the older partitions.
        quiet: whether the newest tick, if there is one, says that nothing was requested.
        busy: for how many evaluations something has been in progress without anything being asked for.
        held: since when a request has been held back; None when nothing is.
    """

    older: str | None = None
    quiet: bool = True
    busy: int = 0
    held: datetime | None = None

    @classmethod
    def read(cls, cursor: str | None) -> Memory:
        """Read a cursor; one that cannot be read is as good as none.

        Example:
            >>> Memory.read(Memory("d:2024-01-01", False, 2).written())
            Memory(older='d:2024-01-01', quiet=False, busy=2, held=None)
            >>> Memory.read("what is this")
            Memory(older=None, quiet=True, busy=0, held=None)
        """
        try:
            found = json.loads(cursor or "{}")
            held = found.get("held")
            since = None if held is None else datetime.fromisoformat(held)
            return cls(found.get("older"), bool(found.get("quiet", True)), int(found.get("busy", 0)), since)
        except (ValueError, TypeError, AttributeError):
            return cls()

    def written(self) -> str:
        """Return the cursor."""
        held = None if self.held is None else self.held.isoformat()
        return json.dumps({"older": self.older, "quiet": self.quiet, "busy": self.busy, "held": held})


class ConditionEvaluator:
    """Implements `flowstone.protocols.Evaluator` for the condition of one asset.

    Args:
        asset: the asset.
        limits: its condition.
        graph: the assets.
        facts: reads what is judged.
        prepare: plans a run.
        every_seconds: how often nothing is found to do; what is in progress is looked at more often.
    """

    starts_paused = False
    timeout_seconds = _TIMEOUT_SECONDS

    def __init__(
        self,
        asset: Asset,
        limits: Paced,
        *,
        graph: AssetGraph,
        facts: FactReader,
        prepare: PrepareTargets,
        every_seconds: float,
    ) -> None:
        self._asset = asset
        self._limits = limits
        self._facts = facts
        self._prepare = prepare
        self._every = every_seconds
        self._around = [asset.name, *sorted(graph.upstream(asset.name))]
        below = (graph[name] for name in sorted(graph.downstream(asset.name)))
        self._below = [
            AutomationId(AutomationKind.CONDITION, one.name) for one in below if one.automation is not None
        ]

    @property
    def id(self) -> AutomationId:
        """Kind and name."""
        return AutomationId(AutomationKind.CONDITION, self._asset.name)

    def evaluate(self, taken: TakenAutomation) -> Iterator[Conclusion]:
        """Conclude once, with at most one run."""
        before = Memory.read(taken.record.cursor)
        # before the facts: what ends in between is seen, rather than missed for a while
        active = self._facts.active(self._around)
        examined = scope(self._asset.partitions, taken.now, before.older)
        facts, chosen = self._decide(examined, taken, active)
        since = before.held or taken.now
        why = held_back(self._limits, facts, active_upstream(active, self._asset), taken.now, since)
        held = bool(chosen) and why is not None and not taken.by_hand
        if held:
            chosen = []
        elif chosen and len(examined.partitions) >= NEWEST:
            # what changed for one partition may have changed for all: one run for as many as possible
            examined = scope(self._asset.partitions, taken.now, older=_WAVE)
            _, chosen = self._decide(examined, taken, active)
        busy = before.busy + 1 if (active or held) and not chosen else 0
        memory = Memory(examined.resume, not chosen, busy, since if held else None)
        yield Conclusion(
            ticks=self._ticks(taken, chosen, before),
            cursor=memory.written(),
            due_at=taken.now + timedelta(seconds=self._pause(busy, requested=bool(chosen))),
            wakes=self._below if chosen else (),
        )

    def _decide(
        self, examined: Scope, taken: TakenAutomation, active: Mapping[str, int]
    ) -> tuple[list[TargetFacts], list[Decision]]:
        """Return the facts of what is requested there, and the decisions that are affordable."""
        going_on = begun(self._asset.partitions, taken.now) if self._asset.allow_incomplete else []
        keys = [*going_on, *examined.partitions]
        facts = self._facts.facts(self._asset.name, keys, now=taken.now, since=taken.record.since)
        decisions = [self._limits.condition.evaluate(one, taken.now) for one in facts]
        requested = [one for one, decision in zip(facts, decisions, strict=True) if decision.requested]
        return requested, affordable(decisions, self._limits, active.get(self._asset.name, 0))

    def _ticks(self, taken: TakenAutomation, chosen: Sequence[Decision], before: Memory) -> list[NewTick]:
        """Return the tick that is worth recording: not one of many on which there was nothing to do."""
        if chosen:
            run = self._prepare(
                self._asset.name,
                [one.partition_key for one in chosen],
                run_id=f"{KIND}-{taken.token}",
                kind=KIND,
                max_concurrency=MAX_AT_WORK,
            )
            reason = listed([f"{one.name}: {one.reason}" for one in chosen])
            reason = clean_text(reason, limit=_MAX_REASON)
            return [NewTick(at=taken.now, state=TickState.REQUESTED, reason=reason, runs=[run])]
        if taken.by_hand or not before.quiet:
            return [NewTick(at=taken.now, state=TickState.SKIPPED, reason="nothing is requested")]
        return []

    def _pause(self, busy: int, *, requested: bool) -> float:
        """Return the seconds until the next evaluation: soon while something moves, later while it goes on."""
        if requested or busy:
            return min(self._every, _SOON_SECONDS * _SLOWER ** min(busy, 20))
        return self._every


def active_upstream(active: Mapping[str, int], asset: Asset) -> int:
    """Return how many steps upstream of an asset are active that may change several of its partitions."""
    if asset.partitions is None:
        return 0
    return sum(number for name, number in active.items() if name != asset.name)


def held_back(
    limits: Paced, requested: Sequence[TargetFacts], upstream: int, now: datetime, since: datetime
) -> str | None:
    """Return why nothing is requested yet although it should be: more may come, and one run for all is better.

    Args:
        limits: of the condition.
        requested: facts of what is to be requested.
        upstream: how many steps upstream are active.
        now: the present.
        since: since when something has been held back; nothing is for long.
    """
    waited = now - since
    if limits.quiet is not None and waited < _TIMES * limits.quiet:
        moments = [one.committed.committed_at for facts in requested for one in facts.inputs if one.committed]
        newest = max(moments, default=None)
        if newest is not None and now - newest < limits.quiet:
            ago = (now - newest).total_seconds()
            return f"an input was committed {ago:.0f} s ago, and it waits until none was for {limits.quiet}"
    if upstream and waited < _HOLD:
        steps = "1 step" if upstream == 1 else f"{upstream} steps"
        return f"{steps} upstream of it in progress may change more of its partitions, for {_HOLD} at most"
    return None


def affordable(decisions: Sequence[Decision], limits: Paced, active: int) -> list[Decision]:
    """Return those that are to be requested, in their order, as many as the limits allow.

    Args:
        decisions: in the order of their importance.
        limits: how many at once.
        active: how many steps of the asset are not over.
    """
    room = min(limits.requests, limits.active - active)
    return [one for one in decisions if one.requested][: max(0, room)]
