"""Puts the parts of an app together: the only place that names concrete classes of stores and executors.

Read `Declared` (what the author of an app gives), `Parts` (what the app consists of), then `assemble`, which makes
the one from the other; the functions below it make one part each.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flowstone.app.details import DetailsReader
from flowstone.app.notifications import Notifications, declare
from flowstone.app.plugins import (
    COMPUTE_GROUP,
    registered_compute,
    registered_io,
    registered_names,
    registered_resource,
)
from flowstone.app.results import Results
from flowstone.app.waiting import Waiting
from flowstone.compute.select import ComputeSelector, refuse_what_is_no_compute
from flowstone.config import Settings
from flowstone.core.asset import Asset
from flowstone.core.automation.schedule import Schedule
from flowstone.core.automation.sensor import Sensor
from flowstone.core.capability import Capability
from flowstone.core.check import Check, CheckSet
from flowstone.core.declaring import is_text, shown
from flowstone.core.graph import AssetGraph
from flowstone.core.limits import check_limits
from flowstone.core.notification import Notify
from flowstone.core.output import StoredOutput
from flowstone.core.project import Project
from flowstone.core.published import PUBLISHED
from flowstone.core.scatter import Scatter
from flowstone.core.shape import Shapes
from flowstone.core.step import StepRecord
from flowstone.core.value_types import ValueTypes
from flowstone.engine.approvals import ApprovalNotices, InPlaceApproval, Notifier
from flowstone.engine.call import CoroutineRunner, Invoker
from flowstone.engine.checks import CheckRunner, StepChecks
from flowstone.engine.driver import Driver
from flowstone.engine.freshness import FreshnessReader, TimeWatch
from flowstone.engine.inline import InlineRunner
from flowstone.engine.isolation import IsolatedCalls
from flowstone.engine.logs import LogCapture
from flowstone.engine.middleware import HookSet
from flowstone.engine.notifications import Composer, Delivery
from flowstone.engine.planner import KeySnapshots, Planner
from flowstone.engine.publishing import ValuePublisher, publisher_of
from flowstone.engine.remote.calls import RemoteCalls
from flowstone.engine.resources import ResourcePool
from flowstone.engine.runner import StepRunner
from flowstone.engine.scatter import IO_NAME, GatheredIO, Scattering
from flowstone.engine.values import InputReader, ValueStore
from flowstone.errors import (
    ConfigurationError,
    DefinitionError,
    ExecutorUnavailableError,
    WaitTimeoutError,
    did_you_mean,
)
from flowstone.executors.inline import AsyncExecutor, SerialExecutor, SyncExecutor
from flowstone.executors.limits import LocalLimits, Room
from flowstone.executors.oban.executor import ObanExecutor
from flowstone.executors.select import ExecutorSelector, concurrency_of
from flowstone.io.by_reference import as_scan
from flowstone.io.delta import DeltaIO
from flowstone.io.filesystem import FilesystemIO
from flowstone.io.memory import MemoryIO, PublishedIO
from flowstone.io.postgres import Connect, PostgresIO
from flowstone.io.table_postgres import TableIO
from flowstone.protocols import (
    BulkDiscardIO,
    Compute,
    Control,
    Executor,
    Hook,
    IOManager,
    LimitingIO,
    Observer,
    OfProjectIO,
    RunJob,
    Store,
)
from flowstone.stores.memory import MemoryStore
from flowstone.stores.postgres.store import PostgresStore

_OWN_IO = ("memory", "filesystem", "postgres", PUBLISHED, IO_NAME)

_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "assets": ((Asset,), "assets, as @asset makes them"),
    "checks": ((Check,), "checks, as @check makes them"),
    "schedules": ((Schedule,), "Schedule objects"),
    "sensors": ((Sensor,), "sensors, as @sensor makes them"),
    "notify": ((Notify,), "Notify(...) objects"),
}

type ExecutorLike = Executor | Callable[[], Executor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Everything that was passed to `FlowStone(...)`, under the same names."""

    assets: Iterable[Asset]
    checks: Iterable[Check] = ()
    io: Mapping[str, IOManager] = field(default_factory=dict)
    default_io: str | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    hooks: Sequence[Hook | Mapping[str, Hook]] | Mapping[str, Hook] = ()
    executors: Mapping[str, ExecutorLike] = field(default_factory=dict)
    compute: Mapping[str, Compute] = field(default_factory=dict)
    notifiers: Sequence[Notifier] = ()
    notify: Sequence[Notify] = ()
    schedules: Sequence[Schedule] = ()
    sensors: Sequence[Sensor] = ()


def check_declared(**given: Any) -> None:
    """Refuse what cannot be what `FlowStone(...)` asks for, in words of whoever wrote it.

    Args:
        **given: the options by name.

    Raises:
        ConfigurationError: names the option and what it takes.
    """
    for option, (kinds, what) in _KINDS.items():
        listed = given.get(option, ())
        if isinstance(listed, str | bytes | Mapping | Asset) or not isinstance(listed, Iterable):
            raise ConfigurationError(f"FlowStone({option}={shown(listed)}): give a list of {what}.")
        if option in ("schedules", "sensors", "notify") and isinstance(listed, list | tuple):
            for one in listed:
                if not isinstance(one, kinds):
                    raise ConfigurationError(f"FlowStone({option}=[{shown(one)}]): give a list of {what}.")
    for option in ("io", "resources", "executors", "compute"):
        named = given.get(option)
        if named is None:
            continue
        if not isinstance(named, Mapping) or not all(isinstance(name, str) and name for name in named):
            raise ConfigurationError(f"FlowStone({option}={shown(named)}): give a mapping of names to objects.")
    for name, executor in (given.get("executors") or {}).items():
        if not callable(executor) and not all(hasattr(executor, one) for one in ("bind", "execute", "schedule")):
            what = "give an executor, or a function that makes one."
            raise ConfigurationError(f"FlowStone(executors={{{name!r}: {shown(executor)}}}): {what}")
    for name, manager in (given.get("io") or {}).items():
        if not is_text(name) or not name.isprintable():
            raise ConfigurationError(f"FlowStone(io={{{shown(name)}: ...}}): give a line of text as the name.")
        if isinstance(manager, type) or not all(hasattr(manager, one) for one in ("name", "store", "load")):
            raise ConfigurationError(f"FlowStone(io={{{name!r}: {shown(manager)}}}): give an IO manager object.")
    default_io = given.get("default_io")
    if default_io is not None and not isinstance(default_io, str):
        raise ConfigurationError(f"FlowStone(default_io={shown(default_io)}): give the name of an IO manager.")
    observers = given.get("observers", ())
    if isinstance(observers, str | bytes | Mapping) or not isinstance(observers, Iterable):
        raise ConfigurationError(f"FlowStone(observers={shown(observers)}): give a list of observers.")
    for one in observers:
        if isinstance(one, type) or not isinstance(one, Observer):
            what = "give objects such as flowstone.observability.OpenTelemetry()."
            raise ConfigurationError(f"FlowStone(observers=[{shown(one)}]): {what}")
    for name, compute in (given.get("compute") or {}).items():
        refuse_what_is_no_compute(f"FlowStone(compute={{{name!r}: ...}})", compute)
    notifiers = given.get("notifiers")
    if (
        isinstance(notifiers, str | bytes | Mapping)
        or not isinstance(notifiers, Iterable)
        or not all(map(callable, notifiers))
    ):
        raise ConfigurationError(f"FlowStone(notifiers={shown(notifiers)}): give a list of functions.")
    settings = given.get("settings")
    if settings is not None and not isinstance(settings, Settings):
        raise ConfigurationError(f"FlowStone(settings={shown(settings)}): give Settings(...).")


log = logging.getLogger("flowstone")

_WAIT_SECONDS = 2.0


@dataclass(slots=True, kw_only=True)
class Parts:
    """The parts of one app."""

    settings: Settings
    graph: AssetGraph
    store: Store
    keys: KeySnapshots
    values: ValueStore
    managers: Mapping[str, IOManager]
    reader: InputReader
    runner: StepRunner
    results: Results
    inline: InlineRunner
    planner: Planner
    driver: Driver
    executors: ExecutorSelector
    waiting: Waiting
    notices: ApprovalNotices
    notifications: Notifications
    delivery: Delivery | None
    """Sends notifications of what happens in this process; None when the app declares none."""
    checks: StepChecks
    details: DetailsReader
    resources: ResourcePool
    coroutines: CoroutineRunner
    processes: IsolatedCalls
    remote: RemoteCalls
    shapes: Shapes
    logs: LogCapture | None
    publisher: ValuePublisher | None = None
    before_close: list[Callable[[], None]] = field(default_factory=list)
    """Called when the app is closed, before its parts are: what watches it ends."""

    def wait(self, record: StepRecord, timeout_seconds: float | None) -> None:
        """Wait until a step is over.

        Raises:
            WaitTimeoutError: it was not over in time; it goes on.
        """
        deadline = time.monotonic() + timeout_seconds if timeout_seconds is not None else None
        notice = self.waiting.notice_of_step(record.id)
        while True:
            left = deadline - time.monotonic() if deadline is not None else _WAIT_SECONDS
            if self.store.catalog.wait([record.id], timeout_seconds=max(0.0, min(left, _WAIT_SECONDS))):
                return
            notice()
            self.store.end_lost([record.id])
            if left <= 0:
                raise WaitTimeoutError(record.asset, timeout_seconds or 0.0, str(record.id))

    def close(self) -> None:
        """Close what was opened, what was opened last first; all of it, also when closing a resource fails."""
        with ExitStack() as stack:
            for part in (self.store, self.resources, self.coroutines, self.processes, self.remote):
                stack.callback(part.close)
            if self.logs is not None:
                stack.callback(self.logs.close)
            for ends in self.before_close:
                stack.callback(ends)
            self.before_close = []
            stack.callback(self.notifications.delivery.close, shared=self.store.shared)


def control_of(parts: Parts) -> Control:
    """Return what steers running work.

    Raises:
        ExecutorUnavailableError: this app has no database.
    """
    if parts.store.control is None:
        raise ExecutorUnavailableError(
            "oban",
            "this app keeps everything in memory, where there are no queues to steer",
            "Pass FlowStone(..., database_url=...) or set FLOWSTONE_DATABASE_URL.",
        )
    return parts.store.control


def discard_values(
    managers: Mapping[str, IOManager], outputs: Sequence[StoredOutput], *, of_this_process: bool = False
) -> Counter[str]:
    """Delete values that nobody can read any more.

    Args:
        managers: by name.
        outputs: the values.
        of_this_process: only those that other processes cannot read anyway.

    Returns:
        How many could not be deleted, by the name of their manager: it is not declared here, or it failed.
    """
    out_of_reach: Counter[str] = Counter()
    of_manager: dict[str, list[StoredOutput]] = {}
    for stored in outputs:
        of_manager.setdefault(stored.io, []).append(stored)
    for name, values in of_manager.items():
        manager = managers.get(name)
        if of_this_process and (manager is None or manager.shared):
            continue
        if manager is None:
            out_of_reach[name] += len(values)
        elif not _discard_at_once(manager, values):
            out_of_reach += _discard_one_by_one(manager, values)
    return out_of_reach


def _discard_at_once(manager: IOManager, values: Sequence[StoredOutput]) -> bool:
    """Delete all of some values, if the manager can; one that cannot be deleted is found one by one."""
    if len(values) < 2 or not isinstance(manager, BulkDiscardIO):
        return False
    try:
        manager.discard_many(values)
    except Exception as error:  # noqa: BLE001 - the others are deleted all the same
        log.debug("%d values of the IO manager %r are deleted one by one: %s", len(values), manager.name, error)
        return False
    return True


def _discard_one_by_one(manager: IOManager, values: Sequence[StoredOutput]) -> Counter[str]:
    out_of_reach: Counter[str] = Counter()
    for stored in values:
        try:
            manager.discard(stored)
        except Exception as error:  # noqa: BLE001 - the others are deleted all the same
            if not out_of_reach:
                log.warning("A value of the IO manager %r cannot be deleted: %s", stored.io, error)
            out_of_reach[stored.io] += 1
    return out_of_reach


def assemble(declared: Declared, settings: Settings) -> Parts:
    """Build an app's parts and check that they fit together.

    Raises:
        DefinitionError: assets do not fit together or name unknown parts.
        ConfigurationError: a setting cannot work.
    """
    io = _with_registered(declared)
    graph = AssetGraph(_limited(declared, io))
    check_limits({asset.name: asset.concurrency for asset in graph})
    checks = CheckSet(declared.checks, graph)
    pool = ResourcePool(_resources(declared.resources, [*graph, *checks]))
    pool.check(graph, checks)
    computes = ComputeSelector(declared.compute, registered_compute, partial(registered_names, COMPUTE_GROUP))
    computes.check(graph)
    store = _store(settings, graph)
    try:
        default = declared.default_io or ("postgres" if isinstance(store, PostgresStore) else "memory")
        managers = _managers(settings, store, io)
        _check_io(graph, managers, default)
    except BaseException:
        store.close()  # it may have started a server
        raise
    if isinstance(store, MemoryStore):
        store.retention.limit(settings.memory_steps, partial(discard_values, managers, of_this_process=True))
    values = ValueStore(managers, default, project=settings.project, types=_declared_types(graph), as_scan=as_scan)
    publisher = publisher_of(managers, store.publications)
    if publisher is not None:
        store.publish_with(publisher)
    managers[IO_NAME] = GatheredIO(store.scatters, values.load, shared=store.shared)
    return _connect(
        declared,
        settings,
        graph=graph,
        checks=checks,
        store=store,
        managers=managers,
        values=values,
        remote=RemoteCalls(computes, managers, values, project=settings.project),
        resources=pool,
        publisher=publisher,
    )


def _with_registered(declared: Declared) -> dict[str, IOManager]:
    """Return the IO managers of the app, and those that its assets name and installed packages register."""
    assets: list[Any] = list(declared.assets)
    named = {declared.default_io, *(one.io for one in assets if isinstance(one, Asset))}
    unknown = sorted(name for name in named if name and name not in declared.io and name not in _OWN_IO)
    found = {name: registered_io(name) for name in unknown}
    return {**declared.io, **{name: manager for name, manager in found.items() if manager is not None}}


def _limited(declared: Declared, io: Mapping[str, IOManager]) -> list[Asset]:
    """Return the assets, those of IO managers that declare limits with these."""
    assets: list[Any] = list(declared.assets)
    limits = {
        name: manager.limits for name, manager in io.items() if isinstance(manager, LimitingIO) and manager.limits
    }
    if not limits:
        return assets
    return [
        one.limited(limits[name])
        if isinstance(one, Asset) and (name := one.io or declared.default_io or "") in limits
        else one
        for one in assets
    ]


def _connect(
    declared: Declared,
    settings: Settings,
    *,
    graph: AssetGraph,
    checks: CheckSet,
    store: Store,
    managers: Mapping[str, IOManager],
    values: ValueStore,
    remote: RemoteCalls,
    resources: ResourcePool,
    publisher: ValuePublisher | None,
) -> Parts:
    graph = graph.bound(keys := KeySnapshots(store.partition_keys))
    scattering = Scattering(graph, store.scatters, values.load)
    reader = InputReader(graph, store.catalog, complete=scattering.complete if scattering.in_use else None)
    coroutines = CoroutineRunner()
    processes = IsolatedCalls()
    step_checks = StepChecks(checks, CheckRunner(resources, coroutines), values)
    hooks = HookSet(declared.hooks)
    logs = LogCapture(store.logs, at_once=not store.shared) if settings.log_days else None
    invoker = Invoker(coroutines, processes)
    runner = _runner(hooks, graph, values, resources, step_checks, invoker, logs, remote)
    driver = Driver(store.catalog, store.end_lost)
    notices = ApprovalNotices(store.approvals, declared.notifiers)
    results = Results(store, graph.label, values.load)
    notifications = _notifications(declared, settings, graph, store)
    delivery = notifications.delivery if notifications.rules else None
    inline = _inline(settings, graph, store, reader, runner, results, driver, notices, delivery)
    waiting = Waiting(store, graph.describe, graph.assets)
    shapes = Shapes(graph, lambda asset: values.manager(asset).name)
    if isinstance(store, PostgresStore):
        store.heartbeat.assets = shapes.to_json
    return Parts(
        settings=settings,
        graph=graph,
        store=store,
        keys=keys,
        values=values,
        managers=managers,
        reader=reader,
        runner=runner,
        results=results,
        inline=inline,
        planner=Planner(graph, reader, store.catalog),
        driver=driver,
        executors=_executors(store, inline, results, waiting, declared.executors),
        waiting=waiting,
        notices=notices,
        notifications=notifications,
        delivery=delivery,
        checks=step_checks,
        details=DetailsReader(graph, checks=checks, resources=resources, values=values, hooks=hooks),
        resources=resources,
        coroutines=coroutines,
        processes=processes,
        remote=remote,
        shapes=shapes,
        logs=logs,
        publisher=publisher,
    )


def _runner(
    hooks: HookSet,
    graph: AssetGraph,
    values: ValueStore,
    resources: ResourcePool,
    checks: StepChecks,
    invoker: Invoker,
    logs: LogCapture | None,
    remote: RemoteCalls,
) -> StepRunner:
    return StepRunner(
        graph,
        values=values,
        resources=resources,
        invoker=invoker,
        hooks=hooks,
        checks=checks,
        logs=logs,
        remote=remote,
    )


def _notifications(declared: Declared, settings: Settings, graph: AssetGraph, store: Store) -> Notifications:
    rules, senders = declare(declared.notify, graph, declared.schedules, declared.sensors)
    if rules:
        store.notifications.watch(rules)
    composer = Composer(graph.describe, settings.project, settings.dashboard_url)
    reader = FreshnessReader(graph, store.catalog, store.notifications)
    noting = FreshnessReader(graph, store.catalog, store.notifications, note=True)
    watch = TimeWatch(noting, store.notifications)
    delivery = Delivery(
        store.notifications,
        senders,
        composer.compose,
        poll=watch.poll,
        sends=settings.notifications,
        lease_seconds=settings.lease_seconds,
    )
    return Notifications(store.notifications, rules, senders, composer, reader, watch, delivery)


def _inline(
    settings: Settings,
    graph: AssetGraph,
    store: Store,
    reader: InputReader,
    runner: StepRunner,
    results: Results,
    driver: Driver,
    notices: ApprovalNotices,
    delivery: Delivery | None,
) -> InlineRunner:
    announce = (lambda: None) if delivery is None else delivery.after_run
    return InlineRunner(
        graph,
        store,
        reader=reader,
        runner=runner,
        results=results,
        hold_limits=LocalLimits().hold,
        await_approval=InPlaceApproval(store, notices, announce).wait,
        on_released=driver.released,
        snooze_seconds=settings.snooze_seconds,
        deps_timeout_seconds=settings.deps_timeout_seconds,
    )


_in_memory: ContextVar[bool] = ContextVar("flowstone_in_memory", default=False)


@contextmanager
def recording_in_memory() -> Iterator[None]:
    """Have apps that are made in the block record in memory, whatever their settings say.

    For whoever only reads what an app declares: no server is started, none is asked.

    Example:
        >>> from flowstone import FlowStone
        >>> with recording_in_memory():
        ...     flow = FlowStone([], database_url="postgresql://unreachable.example/")
        >>> flow.parts.store.shared
        False
    """
    token = _in_memory.set(True)
    try:
        yield
    finally:
        _in_memory.reset(token)


def is_recording_in_memory() -> bool:
    """Whether an app that is made here records in memory, whatever its settings say."""
    return _in_memory.get()


def _store(settings: Settings, graph: AssetGraph) -> Store:
    if settings.database_url is None or is_recording_in_memory():
        return MemoryStore()
    return PostgresStore.connect(
        settings.database_url,
        directory=Path(settings.storage),
        project=Project(settings.project),
        renamed={earlier: one.name for one in graph for earlier in one.renamed_from},
        beat_seconds=settings.beat_seconds,
        lease_seconds=settings.lease_seconds,
    )


def _resources(declared: Mapping[str, Any], owners: Iterable[Asset | Check]) -> dict[str, Any]:
    """Return the declared resources, with those that packages register and an asset or a check requires."""
    resources = dict(declared)
    for name in sorted({name for owner in owners for name in owner.requires} - resources.keys()):
        found = registered_resource(name)
        if found is not None:
            resources[name] = found
    return resources


def _managers(settings: Settings, store: Store, io: Mapping[str, IOManager]) -> dict[str, IOManager]:
    managers: dict[str, IOManager] = {
        "memory": MemoryIO(),
        "filesystem": FilesystemIO(Path(settings.storage) / "values"),
        PUBLISHED: PublishedIO(),
    }
    if isinstance(store, PostgresStore):
        managers["postgres"] = PostgresIO(store.connection)
    for name, manager in io.items():
        if name in (PUBLISHED, IO_NAME):
            raise ConfigurationError(
                f"io={{{name!r}: ...}}: FlowStone has an IO manager of this name, for values of its own. Choose "
                "another name."
            )
        if manager.name != name:
            raise ConfigurationError(
                f"io={{{name!r}: ...}}: this IO manager calls itself {manager.name!r}, and that name is recorded "
                f"with every value. Make it with name={name!r}."
            )
        managers[name] = manager
    project = Project(settings.project)
    own = store.connection if isinstance(store, PostgresStore) else None
    issuer = store.publications.issuer
    return {name: _fitted(manager, project, own, issuer) for name, manager in managers.items()}


def _fitted(manager: IOManager, project: Project, connect: Connect | None, issuer: Callable[[], str]) -> IOManager:
    """Return an IO manager for the project and the database of the app."""
    if isinstance(manager, TableIO):
        manager = manager.in_database(connect)
    if isinstance(manager, DeltaIO):
        manager = manager.fenced_by(issuer)
    if isinstance(manager, OfProjectIO):
        manager = manager.in_project(project)
    return manager


def _declared_types(graph: AssetGraph) -> ValueTypes:
    functions = [one.function for one in graph]
    functions += [
        one.gathering.function for one in graph if isinstance(one, Scatter) and one.gathering is not None
    ]
    return ValueTypes(functions)


def _check_io(graph: AssetGraph, managers: Mapping[str, IOManager], default: str) -> None:
    if default not in managers:
        raise ConfigurationError(f"default_io={default!r} is not declared.{did_you_mean(default, managers)}")
    for asset in graph:
        if asset.io is not None and asset.io not in managers:
            raise DefinitionError(
                f"Asset {asset.name!r} names the IO manager {asset.io!r}, which is not declared."
                f"{did_you_mean(asset.io, managers)} Declared: {', '.join(sorted(managers))}.",
                where=asset.where,
            )


def _executors(
    store: Store, inline: InlineRunner, results: Results, waiting: Waiting, own: Mapping[str, ExecutorLike]
) -> ExecutorSelector:
    factories: dict[str, Callable[[], Executor]] = {
        "sync": SyncExecutor,
        "async": AsyncExecutor,
        "serial": SerialExecutor,
        "oban": lambda: ObanExecutor(store, answer=results.of_record, notice=waiting.notice_of_step),
    }
    for name, executor in own.items():
        factories[name] = executor if callable(executor) else _constant(executor)
    declared = {} if "oban" in own else {"oban": ObanExecutor.capabilities}
    return ExecutorSelector(
        factories,
        lambda executor: executor.bind(_runs(inline, executor)),
        declared=declared,
    )


def _runs(inline: InlineRunner, executor: Executor) -> RunJob:
    """Return what runs a job for an executor; items run side by side in room that all its jobs share."""
    if Capability.CONCURRENT not in executor.capabilities or Capability.SEQUENTIAL in executor.capabilities:
        return inline.run
    return partial(inline.run, items=Room(concurrency_of(executor)))


def _constant(executor: Executor) -> Callable[[], Executor]:
    return lambda: executor
