"""From targets to steps: what must run, what is already there, what waits for what.

`Planner` walks upstream from the targets, one question to the catalog for each level of the graph. `Routing`
leaves out what committed decisions did not choose; `KeySnapshots` are the keys of dynamic partitions as this
process knows them.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

from flowstone.core.automation.record import PartitionChange
from flowstone.core.definition import ends, is_over
from flowstone.core.forks import renew_after_fork
from flowstone.core.frozen import maker
from flowstone.core.graph import AssetGraph, Completeness
from flowstone.core.html_tables import html_table
from flowstone.core.partitions import (
    KeySource,
    KeyState,
    KnownKeys,
    PartitionKey,
    decode_partition,
    encode_partition,
)
from flowstone.core.route import decision_of
from flowstone.core.step import NewStep, Target, make_step
from flowstone.engine.run_spec import RunSpec
from flowstone.engine.values import InputReader
from flowstone.errors import FlowStoneError, IncompletePartitionError
from flowstone.protocols import Catalog, PartitionKeys


class Routing:
    """Answers which targets the committed versions of their routers did not choose.

    Args:
        graph: the assets with their routes.
        reader: knows which partitions of a router a branch reads.
        catalog: what is committed.
    """

    def __init__(self, graph: AssetGraph, reader: InputReader, catalog: Catalog) -> None:
        self._graph = graph
        self._reader = reader
        self._catalog = catalog
        self.any_routes = any(asset.routes for asset in graph)
        """Whether any asset decides about others."""

    def not_chosen(
        self, targets: Iterable[Target], now: datetime, decides_again: Callable[[Target], bool]
    ) -> dict[Target, str]:
        """Return the targets that are not to run, and why.

        A branch that was committed after the decision counts as chosen: it was computed by force.

        Args:
            targets: in question; those that nobody decides about cost nothing.
            now: time that decides which partitions are complete.
            decides_again: whether a router is about to be computed, so that its old decision is void.
        """
        pairs = [
            (target, router)
            for target in dict.fromkeys(targets)
            if self._graph.routers(target[0])
            for router in self._deciding(target, now)
            if not decides_again(router)
        ]
        if not pairs:
            return {}
        committed = self._catalog.current([target for target, _ in pairs])
        deciding = self._catalog.resolve([("", *router) for _, router in pairs])
        found: dict[Target, str] = {}
        for (target, router), version in zip(pairs, deciding, strict=True):
            decision = decision_of(version.stored) if version is not None else None
            if version is None or decision is None or target[0] in decision.chosen:
                continue
            if committed.get(target, 0) < version.step_id:
                found.setdefault(target, decision.explain(router[0]))
        return found

    def _deciding(self, target: Target, now: datetime) -> list[Target]:
        routers = self._graph.routers(target[0])
        return [read for read in self._reader.targets(*target, now) if read[0] in routers]


_CHAIN = 1000
_AHEAD = 1000
"""At most so many targets are asked about before it is known whether they are needed."""


@dataclass(slots=True)
class Plan:
    """Steps in an order in which they can run, and inputs that nobody will provide.

    Args:
        steps: what runs or is reused.
        missing: per target, the inputs that are neither planned nor committed.
    """

    steps: list[NewStep]
    missing: dict[Target, list[Target]] = field(default_factory=dict)

    @property
    def runs(self) -> int:
        """Number of steps that will run."""
        return sum(step.runs for step in self.steps)

    def _repr_html_(self) -> str:
        """What a notebook shows: what runs and what is reused, by asset."""
        counts: dict[str, list[int]] = {}
        for step in self.steps:
            column = 0 if step.runs else 1 if step.reuse is not None else 2
            counts.setdefault(step.asset, [0, 0, 0])[column] += 1
        rows = [(asset, *(f"{one:,}" if one else None for one in found)) for asset, found in counts.items()]
        rows += [
            (f"{asset} {key}".strip(), None, None, f"missing: {', '.join(name for name, _ in missing)}")
            for (asset, key), missing in self.missing.items()
        ]
        title = f"Plan: {self.runs:,} to run, {self.reuses:,} reused"
        return html_table(title, ("asset", "runs", "reused", "left out"), rows)

    def running(self) -> set[str]:
        """Return the names of the assets of which something will run."""
        return {step.asset for step in self.steps if step.reuse is None and step.skip is None}

    @property
    def reuses(self) -> int:
        """Number of targets that are served by what is committed."""
        return sum(step.reuse is not None for step in self.steps)


_SAME: Mapping[str, str | None] = MappingProxyType({})


class Planner:
    """Plans against what is committed: one question to the catalog for all that is upstream by the same key.

    What is read by other mappings is asked about level by level of the graph.
    """

    def __init__(self, graph: AssetGraph, reader: InputReader, catalog: Catalog) -> None:
        self._graph = graph
        self._reader = reader
        self._catalog = catalog
        self._timed = frozenset([asset.name for asset in graph if ends(asset.partitions)])
        self._routing = Routing(graph, reader, catalog)
        self._own = frozenset([asset.name for asset in graph if graph.reads_itself(asset.name)])
        self._rank = {name: position for position, name in enumerate(graph.order)}
        self._optional = frozenset([name for name in graph.order if reader.optional(name)])
        self._upstream: dict[tuple[str, ...], tuple[str, ...]] = {}

    def plan(
        self,
        spec: RunSpec,
        *,
        now: datetime,
        present: datetime | None = None,
        same_config: Mapping[str, str | None] = _SAME,
    ) -> Plan:
        """Plan a run; shared inputs appear once.

        Args:
            spec: what is asked for.
            now: time that decides which partitions are read, where "all so far" is meant.
            present: time that decides which partitions are over; `now` when None.
            same_config: assets whose committed values serve only when they were made with this `config_hash`.

        Returns:
            The plan; its size is the number of (asset, partition) pairs, values are not touched.

        Raises:
            IncompletePartitionError: a partition that was said is not over, or reads what is not over.
        """
        targets = dict.fromkeys(spec.targets)
        found = _make_found(spec, now, present or now, same_config, targets, self._graph, self._own)
        if self._timed and spec.explicit and not spec.allow_incomplete:
            self._refuse_incomplete(found)
        self._learn(found, self._ahead(found))
        if same_config:
            self._forget_outdated(found)
        if not spec.force and self._routing.any_routes:
            self._leave_out(found, found.requested)
        level = list(found.requested)
        while level:
            level = self._level(found, level)
            if level:
                self._learn(found, level)
        if found.held_up:
            self._leave_out_held_up(found)
        return Plan(self._steps(found), self._missing(found) if found.outside else {})

    def not_chosen(self, target: Target, now: datetime) -> str | None:
        """Return why a target is not to run, when what decides about it has not chosen it."""
        return self._routing.not_chosen([target], now, lambda router: False).get(target)

    def _ahead(self, found: _Found) -> list[Target]:
        """Return the targets with what is upstream of them by the same key, unless that is much.

        So a deep graph is not asked about level by level.
        """
        targets = list(found.requested)
        if found.spec.expand is not None or self._routing.any_routes or len(targets) > _AHEAD:
            return targets
        requested: defaultdict[PartitionKey, list[str]] = defaultdict(list)
        for asset, key in targets:
            requested[key].append(asset)
        ahead = {(name, key): True for key, of in requested.items() for name in self._upstream_of(tuple(of))}
        if len(ahead) + len(targets) > _AHEAD:
            return targets
        found.ahead = ahead
        return [*targets, *ahead]

    def _upstream_of(self, assets: tuple[str, ...]) -> tuple[str, ...]:
        """Return what assets read by the same key, what these read so, and so on."""
        known = self._upstream.get(assets)
        if known is None:
            same_key, names, left = self._reader.same_key, set(assets), list(assets)
            for name in left:  # becomes longer
                for read in same_key[name]:
                    if read not in names:
                        names.add(read)
                        left.append(read)
            known = self._upstream[assets] = tuple(left[len(assets) :])
        return known

    def _learn(self, found: _Found, targets: Sequence[Target]) -> None:
        if self._own:
            targets = [target for target in targets if target not in found.queried]
            found.queried.update(target for target in targets if target[0] in self._own)
        if not targets:
            return
        committed = self._catalog.current(targets)
        if not committed:
            return
        if self._timed:
            early = self._early(committed)
            found.early |= early
            for target in early:
                del committed[target]
        same_config = found.same_config
        if same_config:
            steps = [step for target, step in committed.items() if target[0] in same_config]
            hashes = self._catalog.config_hashes(steps)
            others = [
                target
                for target, step in committed.items()
                if target[0] in same_config and hashes.get(step) != same_config[target[0]]
            ]
            for target in (*others, *(target for target in found.outdated if target in committed)):
                committed.pop(target, None)
        found.committed.update(committed)

    def _forget_outdated(self, found: _Found) -> None:
        """Let committed targets not serve when what they are made of is computed again, with another config."""
        concerned = {name for name in found.same_config if name in self._graph}
        concerned |= {below for name in concerned for below in self._graph.downstream(name)}
        reads: dict[Target, list[Target]] = {}
        level = [target for target in found.requested if target[0] in concerned]
        while level:
            following: dict[Target, None] = {}
            for target in level:
                reads[target] = [
                    read
                    for read in self._reader.targets(*target, found.now)
                    if read[0] in concerned and (read in found.requested or found.may_expand(read))
                ]
                following.update(dict.fromkeys(read for read in reads[target] if read not in reads))
            level = list(following)
            self._learn(found, level)
        for target in sorted(reads, key=lambda one: self._rank[one[0]]):
            if any(read not in found.committed for read in reads[target]):
                found.committed.pop(target, None)
                found.outdated.add(target)

    def _learn_before(self, found: _Found, target: Target, reads: Sequence[Target]) -> None:
        """Ask about many partitions before this one at once: a long chain is not asked about one by one."""
        name, definition = target[0], self._graph[target[0]].partitions
        if definition is None or all(read in found.queried for read in reads if read[0] == name):
            return
        try:
            earlier = definition.earlier(decode_partition(target[1]), _CHAIN)
        except FlowStoneError:  # of several dimensions, or removed meanwhile
            return
        self._learn(found, [(name, encode_partition(key)) for key in reversed(earlier)])

    def _early(self, committed: Collection[Target]) -> set[Target]:
        """Return which committed versions were begun before their partition was over: they say nothing final."""
        timed = [target for target in committed if target[0] in self._timed]
        if not timed:
            return set()
        started = self._catalog.started(timed)
        # nearly all are later than the end of all of them, which is quickly seen
        first = Completeness(self._graph, min(started.values())) if started else None
        suspects = [target for target in started if first is not None and not first.is_over(*target)]
        return {
            (name, key)
            for name, key in suspects
            if not is_over(self._graph[name].partitions, key, started[name, key])
        }

    def _refuse_incomplete(self, found: _Found) -> None:
        for target in found.requested:
            if target[0] in found.spec.explicit and not self._may(found, target):
                raise self._incomplete(target, target)

    def _may(self, found: _Found, target: Target) -> bool:
        """Whether a target may be computed as far as it is over."""
        if target[0] not in self._timed or found.over.is_over(target[0], target[1]):
            return True
        return found.spec.allow_incomplete or self._graph[target[0]].allow_incomplete

    def _incomplete(self, target: Target, unfinished: Target) -> IncompletePartitionError:
        describe, until = self._graph.describe, self._graph.over_at(*unfinished)
        return IncompletePartitionError(describe(*target), describe(*unfinished), until)

    def _leave_out_held_up(self, found: _Found) -> None:
        """Leave out what reads a partition that is not over, and what reads that in turn.

        Raises:
            IncompletePartitionError: it was asked for by name.
        """
        held_up = found.held_up
        for target in self._in_order(found.running, found.running):
            cause = next((held_up[read] for read in found.running[target] if read in held_up), None)
            if cause is not None:
                held_up.setdefault(target, cause)
        for target, cause in held_up.items():
            if target in found.requested and target[0] in found.spec.explicit:
                raise self._incomplete(target, cause)
            found.running.pop(target, None)
            found.requested.pop(target, None)
        found.outside = [(target, read) for target, read in found.outside if target not in held_up]

    def _leave_out(self, found: _Found, targets: Iterable[Target]) -> None:
        found.skipped.update(self._routing.not_chosen(targets, found.now, found.decides_again))

    def _level(self, found: _Found, level: Sequence[Target]) -> list[Target]:
        """Expand what may have to run; return what that reads and nobody has asked about yet."""
        spec, running, ahead = found.spec, found.running, found.ahead
        committed, skipped, timed = found.committed, found.skipped, self._timed
        targets_of = self._reader.targets
        following: dict[Target, None] = {}
        level = list(level)
        for target in level:  # becomes longer by what was asked about ahead
            if target in running or target in skipped:
                continue
            if target in committed and not (spec.force if target in found.requested else spec.force_deps):
                continue
            so_far = None
            if target[0] in timed and not found.over.is_over(target[0], target[1]):
                so_far = found.over
            running[target] = reads = targets_of(target[0], target[1], found.now, so_far)
            if not reads:
                continue
            if timed:
                held_up = next((read for read in reads if not self._may(found, read)), None)
                if held_up is not None:
                    found.held_up[target] = held_up
                    continue
            if spec.expand is None:
                if target[0] in self._own:
                    self._learn_before(found, target, reads)
            else:
                found.outside += [(target, read) for read in reads if not found.may_expand(read)]
            for read in reads:
                is_new = ahead.get(read)
                if is_new is None:
                    following[read] = None
                elif is_new:
                    ahead[read] = False
                    level.append(read)
        if not following:
            return []
        if self._routing.any_routes:
            self._leave_out(found, (read for read in following if read not in found.requested))
        new = [
            read
            for read in following
            if read not in running
            and read not in found.skipped
            and (spec.force_deps or read not in found.committed)
        ]
        return new if spec.expand is None else [read for read in new if found.may_expand(read)]

    def _steps(self, found: _Found) -> list[NewStep]:
        running, spec = found.running, found.spec
        ordered = list({**running, **found.requested, **found.skipped})
        position: dict[Target, int] = {}
        if len(ordered) > 1:  # else it reads nothing of this plan
            ordered = self._in_order(ordered, running)
            position = {target: index for index, target in enumerate(ordered)}
        # force holds also for what another run commits between planning and placing
        forced = {*found.committed, *found.outdated, *found.early}
        if spec.force:
            forced.update(found.requested)
        if spec.force_deps:
            forced.update(target for target in running if target not in found.requested)
        steps = []
        for target in ordered:
            reads = running.get(target)
            if reads is None:
                skip = found.skipped.get(target)
                reuse = found.committed[target] if skip is None else None
                steps.append(make_step(target[0], target[1], reuse=reuse, skip=skip))
                continue
            inputs = tuple([position[read] for read in reads if read in position]) if position else ()
            step = make_step(target[0], target[1], inputs)
            step.forced = target in forced
            if inputs and target[0] in self._optional:
                self._mark_optional(step, reads, ordered)
            steps.append(step)
        return steps

    def _in_order(self, targets: Iterable[Target], reads: Mapping[Target, Sequence[Target]]) -> list[Target]:
        """Return targets in an order that can run: by rank, partitions of one that reads itself in turn."""
        targets = list(targets)
        if len(targets) < 2:
            return targets
        if not self._own:
            rank = self._rank
            return sorted(targets, key=lambda target: rank[target[0]])
        place: dict[Target, int] = {}
        for root in targets:
            stack = [root] if root[0] in self._own else []
            while stack:
                before = [one for one in reads.get(stack[-1], ()) if one[0] == root[0] and one not in place]
                if before:
                    stack += before
                else:
                    place.setdefault(stack.pop(), len(place))
        return sorted(targets, key=lambda target: (self._rank[target[0]], place.get(target, 0)))

    def _mark_optional(self, step: NewStep, reads: Sequence[Target], ordered: Sequence[Target]) -> None:
        """Note which inputs a step can do without; its only one it cannot: without it, it is skipped as well."""
        if len(reads) > 1:
            names = self._reader.optional(step.asset)
            step.optional = tuple([one for one in step.inputs if ordered[one][0] in names])
            step.all_optional = len(step.optional) == len(reads)

    def _missing(self, found: _Found) -> dict[Target, list[Target]]:
        reads = [
            (target, read)
            for target, read in found.outside
            if read not in found.running and read not in found.skipped
        ]
        known = self._catalog.current([read for _, read in reads]) if reads else {}
        # what is not over now may be read as far as it is; what is over by now is read when it was computed again
        early = {read for read in self._early(known) if found.over.is_over(*read)}
        reads = [(target, read) for target, read in reads if read not in known or read in early]
        optional = {(target, read) for target, read in reads if read[0] in self._reader.optional(target[0])}
        without = self._reader.skipped([read for _, read in optional]) if optional else set()
        missing: dict[Target, list[Target]] = {}
        for target, read in reads:
            if read not in without or (target, read) not in optional:
                missing.setdefault(target, []).append(read)
        return missing


@dataclass(slots=True)
class _Found:
    """What is known of a run while it is planned."""

    spec: RunSpec
    now: datetime
    present: datetime
    same_config: Mapping[str, str | None]
    requested: dict[Target, None]
    graph: AssetGraph
    own: Collection[str]
    """Assets that read earlier partitions of their own."""
    committed: dict[Target, int] = field(default_factory=dict)
    running: dict[Target, list[Target]] = field(default_factory=dict)
    """What has to run, with what it reads."""
    skipped: dict[Target, str] = field(default_factory=dict)
    """What committed decisions exclude, and why."""
    ahead: dict[Target, bool] = field(default_factory=dict)
    """What is upstream of the targets by the same key, and whether it is not expanded yet; the catalog was asked
    about it with them."""
    queried: set[Target] = field(default_factory=set)
    """Targets of assets that read themselves about which the catalog was asked."""
    early: set[Target] = field(default_factory=set)
    """Targets of which a version is committed that was begun before they were over."""
    held_up: dict[Target, Target] = field(default_factory=dict)
    """Targets that cannot be computed now, with the partition they need that is not over."""
    outside: list[tuple[Target, Target]] = field(default_factory=list)
    """Targets with what they read that this plan may not add."""
    outdated: set[Target] = field(default_factory=set)
    """Targets whose committed versions do not serve, because an input is computed with another config."""

    completeness: Completeness | None = None

    @property
    def over(self) -> Completeness:
        """Which partitions are over; asked about assets whose partitions end."""
        if self.completeness is None:
            self.completeness = Completeness(self.graph, self.present)
        return self.completeness

    def may_expand(self, read: Target) -> bool:
        if self.spec.expand is None:
            return True
        # of an asset that reads itself, the partitions that were said are meant, not all those before them
        return read[0] in self.spec.expand and not (read[0] in self.own and read[0] in self.spec.explicit)

    def decides_again(self, router: Target) -> bool:
        """Whether a committed router is computed again, so that its old decision is void."""
        if router in self.requested:
            return self.spec.force
        return self.spec.force_deps and self.may_expand(router)


_make_found = maker(_Found)

_NOTHING = KnownKeys()
_SHORT_SECONDS = 1.0


class _Assumed:
    """Changes that are taken for made, and what the keys are then."""

    __slots__ = ("_then", "changes")

    def __init__(self, changes: Sequence[PartitionChange] = ()) -> None:
        self.changes = tuple(changes)
        # for each definition, so that 1,000 requests do not work out 1,000 times what 1,000 changes come to
        self._then: dict[str, tuple[KnownKeys, KnownKeys]] = {}

    def after(self, name: str, known: KnownKeys) -> KnownKeys:
        """Return the keys of a definition once the changes are made."""
        before, then = self._then.get(name, (None, known))
        if before is not known:
            then = _assuming(known, [change for change in self.changes if change.definition == name])
            self._then[name] = known, then
        return then


_NONE = _Assumed()


class KeySnapshots(KeySource):
    """Implements `flowstone.core.partitions.KeySource` over a store.

    A snapshot serves for a short while, so that checking 100,000 keys is not a question each. Reading it again
    only fetches what changed. Whoever misses a key asks for a fresh one before saying so; a key that another
    process removed may pass until the snapshot is read again.

    Args:
        store: where the keys are.
        short_seconds: how long a snapshot serves.

    Example:
        >>> from flowstone.stores.memory import MemoryStore
        >>> store = MemoryStore().partition_keys
        >>> keys = KeySnapshots(store)
        >>> added = store.add("customers", ["s:acme"])
        >>> list(keys.known("customers", fresh=True).active.values())
        ['acme']
    """

    def __init__(self, store: PartitionKeys, *, short_seconds: float = _SHORT_SECONDS) -> None:
        self._store = store
        self._short_seconds = short_seconds
        self._begin()
        renew_after_fork(self, KeySnapshots._begin)
        self._read: dict[str, tuple[float, KnownKeys]] = {}
        self._assumed: ContextVar[_Assumed] = ContextVar("assumed", default=_NONE)

    def _begin(self) -> None:
        self._guard = threading.Lock()

    def known(self, name: str, *, fresh: bool = False) -> KnownKeys:
        started = time.monotonic()
        read_at, known = self._read.get(name, (float("-inf"), _NOTHING))
        if fresh or started - read_at > self._short_seconds:
            changes = self._store.changed(name, after=known.revision)
            known = self._keep(name, started, known.after(changes) if changes else known)
        assumed = self._assumed.get()
        return assumed.after(name, known) if assumed.changes else known

    @contextmanager
    def assuming(self, changes: Sequence[PartitionChange]) -> Iterator[None]:
        """Let this thread (or task) see keys as they will be once these changes are made.

        For planning what is committed together with them; nobody else sees them before.
        """
        token = self._assumed.set(_Assumed((*self._assumed.get().changes, *changes)))
        try:
            yield
        finally:
            self._assumed.reset(token)
            with self._guard:  # whoever asks next, in this process, sees what was committed with the plan
                for change in changes:
                    if change.definition in self._read:
                        self._read[change.definition] = float("-inf"), self._read[change.definition][1]

    def _keep(self, name: str, started: float, known: KnownKeys) -> KnownKeys:
        """Keep what was read, unless another thread read something newer meanwhile; return the newer one."""
        with self._guard:
            read_at, kept = self._read.get(name, (started, known))
            newest = known if known.revision >= kept.revision else kept
            self._read[name] = max(read_at, started), newest
        return newest


def _assuming(known: KnownKeys, changes: Sequence[PartitionChange]) -> KnownKeys:
    states: dict[str, KeyState] = {}
    for revision, (_, key, remove) in enumerate(changes, known.revision + 1):
        active = not states[key].removed if key in states else key in known.active
        if active is remove:
            position = revision
            if remove:
                position = states[key].position if key in states else known.positions[key]
            states.pop(key, None)
            states[key] = KeyState(key, position, revision)
    return known.after(states.values()) if states else known
