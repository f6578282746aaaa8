"""The values of steps: which versions one reads, as arguments of its function, and where its own is stored."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.by_reference import ScanKind, scan_kinds
from flowstone.core.clean import clean_text
from flowstone.core.context import AssetContext
from flowstone.core.control import describe_target
from flowstone.core.definition import PartitionsDefinition, ends, is_over
from flowstone.core.frozen import maker
from flowstone.core.graph import AssetGraph, Completeness
from flowstone.core.mappings import PartitionMapping, SameKey
from flowstone.core.output import PLAIN, OutputAddress, StoredOutput, is_read_once, type_name
from flowstone.core.partitions import PartitionKey, decode_partition, encode_partition
from flowstone.core.project import DEFAULT_PROJECT
from flowstone.core.published import PUBLISHED, Published
from flowstone.core.route import ALL_SKIPPED, decision_of
from flowstone.core.state import State
from flowstone.core.step import Attempt, CommittedOutput, InputVersion, Target
from flowstone.core.value_types import ValueTypes, value_types
from flowstone.errors import (
    ConfigurationError,
    DependencyNotReadyError,
    FlowStoneError,
    SerializationError,
    StorageError,
    did_you_mean,
)
from flowstone.protocols import Catalog, FindableIO, InternalIO, IOManager, KeepsObjects, RetryingIO, ScannableIO

log = logging.getLogger("flowstone")


@dataclass(slots=True)
class InputPlan:
    """How one dependency of an asset is read.

    Args:
        name: upstream asset.
        label: what lineage calls this input: the parameter, or the asset's name.
        parameter: parameter that receives the value; None when it only has to be there.
        upstream: its partitions.
        downstream: the partitions of the asset that reads.
        mapping: which partitions are read.
        same_key: whether that is just the partition of the same key.
        many: whether the parameter receives a dict of partitions.
        optional: whether the step runs also when this input was skipped.
        decides: whether the upstream asset decides if the one that reads runs at all.
    """

    name: str
    label: str
    parameter: str | None
    upstream: PartitionsDefinition | None
    downstream: PartitionsDefinition | None
    mapping: PartitionMapping
    same_key: bool
    many: bool
    optional: bool = False
    decides: bool = False
    scan: ScanKind | None = None
    """What the parameter receives in place of the value."""
    ends: bool = False
    """Whether upstream partitions may be read that are not over, or were computed before they were."""

    def is_early(self, key: PartitionKey, version: CommittedOutput, now: datetime) -> bool:
        """Whether a version says nothing final about a partition that is over by now: it was begun before."""
        if version.own or version.started_at is None or is_over(self.upstream, key, version.started_at):
            return False
        return is_over(self.upstream, key, now)

    def keys(self, key: PartitionKey, now: datetime) -> list[PartitionKey]:
        """Return the encoded upstream partitions that a downstream partition reads."""
        if self.same_key:
            return [key]
        partitions = self.mapping.upstream(
            decode_partition(key), downstream=self.downstream, upstream=self.upstream, now=now
        )
        return [encode_partition(partition) for partition in partitions]

    def placed(self) -> InputPlan:
        """Return the plan for steps that were placed: they go on although a key of theirs is removed meanwhile."""
        upstream = None if self.upstream is None else self.upstream.with_removed()
        downstream = None if self.downstream is None else self.downstream.with_removed()
        return replace(self, upstream=upstream, downstream=downstream)


_SHOWN = 5
_STORE_PAUSES_SECONDS = (0.05, 0.5)
_NOTHING: Mapping[str, str] = {}
_make_tuple = tuple.__new__
"""Makes a named tuple as its class does it, without a call of a function for each."""

type NotReady = Callable[[Target, Sequence[Target], datetime], DependencyNotReadyError]

type Scan = Callable[[StoredOutput, ScanKind, dict[str, Any]], object]
"""Opens a stored table without reading it; the scans of one step share a dict."""

type Read = tuple[InputPlan, PartitionKey, CommittedOutput]
"""One version that is read: for which dependency, which partition, which version."""


@dataclass(slots=True)
class ResolvedInputs:
    """The exact versions a step reads, in the order of its dependencies."""

    plans: Sequence[InputPlan]
    reads: list[Read]
    missing: list[Target]
    error: Exception | None = None
    """What a partition mapping raised: that is a failure of the step, as any other of user code."""
    skipped: int = 0
    """How many of its inputs were skipped."""
    skip: str | None = None
    """Why there is nothing to do: the step was not chosen, or all its inputs were skipped."""
    phase: Asset | None = None
    """What the runner calls instead of the asset, for one that runs in several parts."""
    given: Mapping[str, Any] = MappingProxyType({})
    """Arguments that are not the values of other assets."""
    not_ready: NotReady = lambda target, missing, now: DependencyNotReadyError(*target, missing)
    """Returns the error for inputs that are missing."""
    recorded: tuple[InputVersion, ...] | None = None
    """The lineage, when an earlier part of the step read its inputs."""

    def problem(self, attempt: Attempt) -> Exception | None:
        """Return why the step cannot run, if so."""
        if self.error is None and self.missing:
            return self.not_ready((attempt.asset, attempt.partition_key), self.missing, attempt.started_at)
        return self.error

    def versions(self) -> tuple[InputVersion, ...]:
        """Return the lineage of the step."""
        if self.recorded is not None:
            return self.recorded
        return tuple(
            [
                _make_tuple(InputVersion, (plan.label, plan.name, key, version.step_id))
                for plan, key, version in self.reads
            ]
        )

    def arguments(self, load: Callable[[StoredOutput], object], scan: Scan) -> dict[str, Any]:
        """Load the values and return them by parameter; several partitions come as a dict."""
        if not self.plans:
            return dict(self.given)
        session: dict[str, Any] = {}
        arguments: dict[str, Any] = {}
        for plan, key, version in self.reads:
            parameter = plan.parameter
            if parameter is None:
                continue
            value = load(version.stored) if plan.scan is None else _scanned(plan, version.stored, scan, session)
            if plan.many:
                arguments.setdefault(parameter, {})[decode_partition(key)] = value
            else:
                arguments[parameter] = value
        if len(arguments) < len(self.plans):
            # a dependency on no partition at all is an empty dict, and on a skipped input or one before the first
            # partition None: not missing arguments
            for plan in self.plans:
                if plan.parameter is not None:
                    arguments.setdefault(plan.parameter, {} if plan.many else None)
        return arguments


def _scanned(plan: InputPlan, stored: StoredOutput, scan: Scan, session: dict[str, Any]) -> object:
    assert plan.scan is not None
    try:
        return scan(stored, plan.scan, session)
    except SerializationError as error:
        raise error.for_asset(plan.name, "") from error.__cause__


make_inputs = maker(ResolvedInputs)
"""Makes what a step reads, of the same arguments: every step that reads anything has one."""

NO_INPUTS = ResolvedInputs((), [], [])

type Complete = Callable[[Sequence[Attempt], list[ResolvedInputs]], None]


class InputReader:
    """Resolves the inputs of steps against the catalog, many steps in one question.

    Args:
        graph: the assets.
        catalog: knows the versions.
        complete: changes what was resolved for steps that read more than other assets.
    """

    def __init__(self, graph: AssetGraph, catalog: Catalog, *, complete: Complete | None = None) -> None:
        self._catalog = catalog
        self._not_ready = graph.not_ready
        self._complete = complete
        self._plans = {asset.name: tuple(_plans(graph, asset)) for asset in graph}
        self._placed = {name: tuple([plan.placed() for plan in plans]) for name, plans in self._plans.items()}
        self._optional = {
            name: frozenset([plan.name for plan in plans if plan.optional]) for name, plans in self._plans.items()
        }
        # what may be skipped when it is about to start; most graphs have no such assets
        self._conditional = frozenset(
            [name for name, plans in self._plans.items() if any(one.optional or one.decides for one in plans)]
        )
        self.same_key = {name: [one.name for one in plans if one.same_key] for name, plans in self._plans.items()}
        """The assets of which an asset reads the partition of its own key, by name."""
        # most assets read nothing, or just the partition of the same key, which is quickly resolved
        self._simple = {
            name: plans
            for name, plans in self._placed.items()
            if complete is None and name not in self._conditional and all(one.same_key for one in plans)
        }

    def plans(self, asset: str) -> tuple[InputPlan, ...]:
        """Return how each dependency of an asset is read."""
        return self._plans[asset]

    def targets(
        self, asset: str, key: PartitionKey, now: datetime, so_far: Completeness | None = None
    ) -> list[Target]:
        """Return every (asset, partition) that one partition of an asset reads.

        Args:
            asset: the asset.
            key: its encoded partition.
            now: the present.
            so_far: for a partition that is not over: of several partitions it reads only those that are.
        """
        if asset in self._simple:
            return [(name, key) for name in self.same_key[asset]]
        return [
            (plan.name, upstream)
            for plan in self._plans[asset]
            for upstream in plan.keys(key, now)
            if so_far is None or not plan.many or so_far.is_over(plan.name, upstream)
        ]

    def optional(self, asset: str) -> frozenset[str]:
        """Return the upstream assets that an asset can do without when they were skipped."""
        return self._optional[asset]

    def skipped(self, targets: Sequence[Target]) -> set[Target]:
        """Return which targets an optional reader outside of their runs finds skipped."""
        found = self._catalog.skipped([("", *target) for target in targets])
        return {targets[position] for position in found}

    def resolve(self, attempts: Sequence[Attempt]) -> list[ResolvedInputs]:
        """Find the versions that each claimed step reads; what is missing is named in the result."""
        resolved: list[ResolvedInputs] = []
        requested: list[tuple[str, str, PartitionKey]] = []
        readers: list[tuple[ResolvedInputs, InputPlan, datetime]] = []
        for attempt in attempts:
            plans = self._placed[attempt.asset]
            if not plans:
                resolved.append(NO_INPUTS)
                continue
            inputs = ResolvedInputs(plans, [], [], not_ready=self._not_ready)
            resolved.append(inputs)
            try:
                keys = [(plan, plan.keys(attempt.partition_key, attempt.started_at)) for plan in plans]
            except Exception as error:  # noqa: BLE001 - a mapping may be a function of the user
                inputs.error = error
                continue
            for plan, upstream_keys in keys:
                for key in upstream_keys:
                    requested.append((attempt.run_id, plan.name, key))
                    readers.append((inputs, plan, attempt.started_at))
        if requested:
            self._fill(requested, readers)
            for attempt, inputs in zip(attempts, resolved, strict=True):
                if inputs.missing:
                    _leave_out_unfinished(attempt, inputs)
        if self._conditional:
            for attempt, inputs in zip(attempts, resolved, strict=True):
                if attempt.asset in self._conditional:
                    inputs.skip = _reason_to_skip(attempt, inputs)
        if self._complete is not None:
            self._complete(attempts, resolved)
        return resolved

    def resolve_one(self, attempt: Attempt) -> ResolvedInputs:
        """Do the same for one step; one that reads just its own key, or nothing, needs none of the lists."""
        plans = self._simple.get(attempt.asset)
        if plans is None:
            return self.resolve([attempt])[0]
        if not plans:
            return NO_INPUTS
        key, run_id = attempt.partition_key, attempt.run_id
        reads: list[Read] = []
        missing: list[Target] = []
        answers = self._catalog.resolve([(run_id, plan.name, key) for plan in plans])
        for position, plan in enumerate(plans):
            version = answers[position]
            if version is None or (plan.ends and plan.is_early(key, version, attempt.started_at)):
                missing.append((plan.name, key))
            else:
                reads.append((plan, key, version))
        inputs = make_inputs(plans, reads, missing)
        if missing:
            inputs.not_ready = self._not_ready
        return inputs

    def _fill(
        self,
        requested: list[tuple[str, str, PartitionKey]],
        readers: list[tuple[ResolvedInputs, InputPlan, datetime]],
    ) -> None:
        answers = self._catalog.resolve(requested)
        skipped = self._skipped(requested, readers) if self._conditional else ()
        for position, (read, (inputs, plan, now), version) in enumerate(
            zip(requested, readers, answers, strict=True)
        ):
            if position in skipped:
                inputs.skipped += 1
                continue
            if version is None or (plan.ends and plan.is_early(read[2], version, now)):
                inputs.missing.append(read[1:])
            else:
                inputs.reads.append((plan, read[2], version))

    def _skipped(
        self,
        requested: list[tuple[str, str, PartitionKey]],
        readers: list[tuple[ResolvedInputs, InputPlan, datetime]],
    ) -> set[int]:
        """Return the positions of optional inputs that were skipped: they have no version here."""
        positions = [position for position, (_, plan, _now) in enumerate(readers) if plan.optional]
        if not positions:
            return set()
        found = self._catalog.skipped([requested[position] for position in positions])
        return {positions[index] for index in found}


class ValueStore:
    """Finds the IO manager of an asset, stores with retries of the storing alone, loads.

    Args:
        managers: IO managers by name.
        default: name of the one used by assets that name none.
        project: project of the app.
        types: the classes that assets declare; objects of no others are stored as JSON, or built of it.
        as_scan: makes a scan of a value, for IO managers that cannot scan what they stored.
    """

    def __init__(
        self,
        managers: Mapping[str, IOManager],
        default: str,
        *,
        project: str = DEFAULT_PROJECT,
        types: ValueTypes | None = None,
        as_scan: Callable[[object, ScanKind, dict[str, Any]], object] | None = None,
    ) -> None:
        self._as_scan = as_scan
        self._types = types
        self._managers = managers
        # they know no encoding, so that the classes do not matter
        keep_objects = {
            name: one for name, one in managers.items() if isinstance(one, KeepsObjects) and one.keeps_objects
        }
        self._keep_objects = list(keep_objects.values())
        self._object_loads = {name: one.load for name, one in keep_objects.items()}
        self._default = default
        self._project = project

    @property
    def names(self) -> Collection[str]:
        """Names of the IO managers that may be chosen."""
        return [name for name, manager in self._managers.items() if not isinstance(manager, InternalIO)]

    @property
    def type_names(self) -> frozenset[str]:
        """Names of the classes that assets declare."""
        return frozenset() if self._types is None else self._types.names

    def manager(self, asset: Asset, chosen: Mapping[str, str] = _NOTHING) -> IOManager:
        """Return the IO manager of an asset.

        Args:
            asset: the asset.
            chosen: IO managers that a run uses instead of the declared ones, by asset.

        Raises:
            ConfigurationError: this app does not declare the one that the run names.
        """
        other = chosen.get(asset.owner) if chosen and asset.has_own_io else None
        if other is None:
            return self._managers[asset.io or self._default]
        if other not in self._managers:
            raise ConfigurationError(
                f"The run keeps {asset.owner!r} with the IO manager {other!r}, which this app does not declare."
                f"{did_you_mean(other, self.names)} Pass FlowStone(..., io={{{other!r}: ...}})."
            )
        return self._managers[other]

    def manager_of(self, stored: StoredOutput) -> IOManager:
        """Return the IO manager that stored a value.

        Raises:
            LookupError: it is not declared here.
        """
        try:
            return self._managers[stored.io]
        except KeyError:
            raise LookupError(
                f"The value was stored by the IO manager {stored.io!r}, which this app does not declare "
                f"(declared: {', '.join(sorted(self._managers))}). Pass FlowStone(..., io={{{stored.io!r}: ...}})."
            ) from None

    def load(self, stored: StoredOutput) -> object:
        """Load a value that any process stored.

        Raises:
            StorageError: its IO manager is not declared here, or cannot load it.
        """
        load = self._object_loads.get(stored.io)
        if load is not None:
            return load(stored)
        manager = self.manager_of(stored)
        token = value_types.set(self._types)
        try:
            return manager.load(stored)
        finally:
            value_types.reset(token)

    def scan(self, stored: StoredOutput, kind: ScanKind, session: dict[str, Any]) -> object:
        """Return a scan of a stored table; where its IO manager cannot scan, the value is loaded for it.

        Args:
            stored: the table.
            kind: what the parameter is annotated with.
            session: what the scans of one step share.

        Raises:
            StorageError: see `load`.
            SerializationError: the value is no table.
        """
        manager: object = self._managers.get(stored.io)
        if isinstance(manager, ScannableIO):
            return manager.scan(stored, kind, session)
        value = self.load(stored)
        return value if self._as_scan is None else self._as_scan(value, kind, session)

    def store(self, context: AssetContext, value: object) -> StoredOutput:
        """Store the value of a step; a passing fault is retried without running the function again.

        Raises:
            SerializationError: the value cannot be represented; names the asset.
            OSError: storing failed repeatedly.
        """
        asset, chosen = context.asset, context.run.details.io
        manager = self.manager(asset, chosen) if chosen else self._managers[asset.io or self._default]
        if type(value) not in PLAIN:
            if isinstance(value, Published):
                manager = self._managers[PUBLISHED]
            else:
                refuse_read_once(asset.name, value)
        address = self.address(context)
        if manager in self._keep_objects:
            stored = manager.store(value, address)
        else:
            token = value_types.set(self._types)
            try:
                stored = stored_again(manager, manager.store, value, address)
            finally:
                value_types.reset(token)
        return replace(stored, metadata=stored.metadata | context.metadata) if context.metadata else stored

    def address(self, context: AssetContext) -> OutputAddress:
        """Return the address under which an attempt stores."""
        return _make_tuple(
            OutputAddress,
            (
                context.asset.name,
                context.key,
                context.run_id,
                context.step_id,
                context.attempt,
                context.token,
                self._project,
            ),
        )


def refuse_read_once(asset: str, value: object) -> None:
    """Refuse a value that is used up by whoever reads it first.

    Raises:
        SerializationError: names the asset.
    """
    if is_read_once(value):
        raise SerializationError(
            f"Asset {asset!r} returned something that can be read only once",
            path="$",
            type_name=type_name(value),
            remedy="Return a list (or a table, or a path) instead of a generator, iterator or open file.",
        )


def stored_again[**P](
    manager: object, store: Callable[P, StoredOutput], *args: P.args, **kwargs: P.kwargs
) -> StoredOutput:
    """Store, and again after a passing fault."""
    for pause in _STORE_PAUSES_SECONDS:
        try:
            return store(*args, **kwargs)
        except Exception as error:
            if not _may_pass(manager, error):
                raise
        time.sleep(pause)
    return store(*args, **kwargs)


_PASSING = frozenset({"full", "unavailable", "other"})


def _may_pass(manager: object, error: Exception) -> bool:
    """Whether storing again right away may succeed: the manager says so, else the kind of the failure."""
    if isinstance(manager, RetryingIO):
        return manager.may_pass(error)
    if isinstance(error, ExceptionGroup):
        return error.split(OSError)[1] is None
    if isinstance(error, StorageError):
        return error.kind in _PASSING
    return isinstance(error, OSError)


def waits_for(
    missing: Sequence[Target],
    doing: Mapping[Target, State] | None = None,
    describe: Callable[[str, str], str] = describe_target,
) -> str:
    """Return why a step waits whose inputs are missing, for people.

    Args:
        missing: the inputs.
        doing: what those are doing that are about to be made.
        describe: returns an asset and its encoded partition as people write them.

    Example:
        >>> waits_for([("raw", "d:2024-01-01")], {})
        'waits for raw [2024-01-01], which nobody is about to make'
    """
    shown = []
    for target in missing[:_SHOWN]:
        known = "" if doing is None else ", which nobody is about to make"
        if doing is not None and target in doing:
            known = f", which is {doing[target].value}"
        shown.append(f"{describe(*target)}{known}")
    more = len(missing) - _SHOWN
    return clean_text(f"waits for {'; '.join(shown)}" + (f" and {more} more" if more > 0 else ""), limit=1000)


def _leave_out_unfinished(attempt: Attempt, inputs: ResolvedInputs) -> None:
    """Let a partition that is not over be computed from what is there so far.

    Of several upstream partitions those at the end that nobody has computed are left out; one that is missing
    before another that is there is a missing input as ever.
    """
    for plan in inputs.plans:
        if not plan.many or is_over(plan.downstream, attempt.partition_key, attempt.started_at):
            continue
        there = {key for read, key, _ in inputs.reads if read is plan}
        left_out: set[Target] = set()
        for key in reversed(plan.keys(attempt.partition_key, attempt.started_at)):
            if key in there:
                break
            if there or not is_over(plan.upstream, key, attempt.started_at):
                left_out.add((plan.name, key))
        inputs.missing = [target for target in inputs.missing if target not in left_out]


def _reason_to_skip(attempt: Attempt, inputs: ResolvedInputs) -> str | None:
    """Return why a step that is about to start is skipped instead.

    Mostly the transaction of its last input has seen to that. What is left are inputs from outside of the run.
    """
    for plan, _key, version in inputs.reads:
        decision = decision_of(version.stored) if plan.decides and not attempt.forced else None
        if decision is not None and attempt.asset not in decision.chosen:
            return decision.explain(plan.name)
    nothing_else = not (inputs.reads or inputs.missing or inputs.error)
    return ALL_SKIPPED if inputs.skipped and nothing_else else None


def _plans(graph: AssetGraph, asset: Asset) -> list[InputPlan]:
    plans = []
    kinds = scan_kinds(asset.function, [one.parameter for one in asset.dependencies if one.parameter])
    for dependency in asset.dependencies:
        upstream = graph[dependency.asset]
        mapping = graph.mapping(asset.name, upstream.name)
        same = type(mapping) is SameKey and asset.partitions == upstream.partitions
        label = dependency.parameter or upstream.name
        plans.append(
            InputPlan(
                upstream.name,
                label,
                dependency.parameter,
                upstream.partitions,
                asset.partitions,
                mapping,
                same,
                mapping.many,
                dependency.optional,
                asset.name in upstream.routes,
                kinds.get(dependency.parameter or ""),
                ends(upstream.partitions),
            )
        )
    return plans


def find_values(managers: Mapping[str, IOManager], stored: Sequence[StoredOutput | None]) -> list[bool | None]:
    """Return for each value whether it is there; None where its IO manager cannot say without loading it.

    Args:
        managers: by name.
        stored: the values; None for one that is gone.
    """
    found: list[bool | None] = [False if one is None else None for one in stored]
    of_manager: defaultdict[str, list[int]] = defaultdict(list)
    for position, one in enumerate(stored):
        if one is not None:
            of_manager[one.io].append(position)
    for name, positions in of_manager.items():
        manager = managers.get(name)
        if manager is None or not isinstance(manager, FindableIO):
            continue
        try:
            there = manager.find([one for one in map(stored.__getitem__, positions) if one is not None])
        except (FlowStoneError, OSError) as error:
            log.warning("Whether the IO manager %r still has values is not known: %s", name, error)
            continue
        for position, is_there in zip(positions, there, strict=True):
            found[position] = is_there
    return found
