"""An app put together from its declarations: its parts, and the objects that group the less common verbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from flowstone.app.admin import ApprovalsView, AuditView, ChecksView, ExecutorsView, QueuesView, RetentionView
from flowstone.app.automation import SchedulesView, SensorsView
from flowstone.app.build import Declared, ExecutorLike, assemble, check_declared, is_recording_in_memory
from flowstone.app.bulk import BulkView
from flowstone.app.conditions import ConditionsView
from flowstone.app.launch import LaunchView
from flowstone.app.lineage import LineageView
from flowstone.app.logs import LogsView
from flowstone.app.notifications import NotificationsView
from flowstone.app.partition_keys import PartitionKeysView
from flowstone.app.reading import Reading
from flowstone.app.runs import RunsView
from flowstone.app.submit import Placement
from flowstone.app.versions import VersionsView
from flowstone.config import Settings
from flowstone.core.asset import Asset
from flowstone.core.automation.condition import Decision
from flowstone.core.automation.schedule import Schedule
from flowstone.core.automation.sensor import Sensor
from flowstone.core.check import Check
from flowstone.core.graph import AssetGraph
from flowstone.core.html_tables import html_table
from flowstone.core.notification import Notify
from flowstone.core.partitions import PartitionKey, decode_partition
from flowstone.core.project import DEFAULT_PROJECT
from flowstone.engine.approvals import Notifier
from flowstone.errors import ConfigurationError
from flowstone.protocols import Compute, Evaluator, Hook, IOManager, Observer
from flowstone.stores.postgres.dsn import address_of

if TYPE_CHECKING:
    from flowstone.app.insights import InsightsView
    from flowstone.engine.insights.automation import Automations


class AssembledApp:
    """What every app consists of; see `flowstone.FlowStone` for the arguments."""

    def __init__(
        self,
        assets: Iterable[Asset],
        *,
        checks: Iterable[Check] = (),
        database_url: object = None,
        project: str | None = None,
        io: Mapping[str, IOManager] | None = None,
        default_io: str | None = None,
        resources: Mapping[str, Any] | None = None,
        hooks: Sequence[Hook | Mapping[str, Hook]] | Mapping[str, Hook] = (),
        executors: Mapping[str, ExecutorLike] | None = None,
        compute: Mapping[str, Compute] | None = None,
        notifiers: Iterable[Notifier] = (),
        observers: Iterable[Observer] = (),
        notify: Iterable[Notify] = (),
        schedules: Iterable[Schedule] = (),
        sensors: Iterable[Sensor] = (),
        settings: Settings | None = None,
    ) -> None:
        assets, checks, observers = _listed(assets), _listed(checks), _listed(observers)
        notify, schedules, sensors = _listed(notify), _listed(schedules), _listed(sensors)
        notifiers = _listed(notifiers)
        check_declared(
            assets=assets,
            checks=checks,
            io=io,
            default_io=default_io,
            resources=resources,
            executors=executors,
            compute=compute,
            notifiers=notifiers,
            observers=observers,
            notify=notify,
            schedules=schedules,
            sensors=sensors,
            settings=settings,
        )
        self.settings = _settings(settings, database_url=database_url, project=project)
        declared = Declared(
            assets=assets,
            checks=checks,
            io=io or {},
            default_io=default_io,
            resources=resources or {},
            hooks=hooks,
            executors=executors or {},
            compute=compute or {},
            notifiers=list(notifiers),
            notify=list(notify),
            schedules=list(schedules),
            sensors=list(sensors),
        )
        self.parts = assemble(declared, self.settings)
        self._placement = Placement(self.parts)
        try:
            self._group_verbs(list(schedules), list(sensors))
            self._start_observers(observers)
        except BaseException:
            self.parts.close()  # it may have started a server
            raise

    def _group_verbs(self, schedules: Sequence[Schedule], sensors: Sequence[Sensor]) -> None:
        """Make the objects that group the less common verbs."""
        self.runs = RunsView(self.parts, self._placement)
        self.bulk = BulkView(self.parts, self.runs)
        self.executors = ExecutorsView(self.parts, self._placement)
        self.queues = QueuesView(self.parts)
        self.conditions = ConditionsView(self.parts, self._placement)
        self.partitions = PartitionKeysView(self.parts)
        self.checks = ChecksView(self.parts)
        self.approvals = ApprovalsView(self.parts)
        self.notifications = NotificationsView(self.parts.notifications)
        self.audit = AuditView(self.parts)
        self.retention = RetentionView(self.parts)
        self.launch = LaunchView(self.parts, self._placement, self.runs)
        self.lineage = LineageView(self.parts)
        self.logs = LogsView(self.parts)
        self.versions = VersionsView(self.parts, self.lineage)
        self.schedules = SchedulesView(self.parts, self._placement, schedules)
        self.sensors = SensorsView(self.parts, self._placement, self.partitions, sensors)
        self._declared_automations = (schedules, sensors)

    # what pages show is a fifth of all modules, and most apps (a worker, a script) show nothing: see decision 9
    @cached_property
    def insights(self) -> InsightsView:
        """What there is to see, as plain data."""
        found: InsightsView = import_module("flowstone.app.insights").InsightsView(self.parts, self._automations)
        return found

    @cached_property
    def _automations(self) -> Automations:
        kind: type[Automations] = import_module("flowstone.engine.insights.automation").Automations
        return kind(*self._declared_automations, self._decide)

    def _start_observers(self, observers: Iterable[Observer]) -> None:
        """Start what watches this app; an app that records in memory only to be read is not watched."""
        if is_recording_in_memory():
            return
        for observer in observers:
            observer.start(self.parts)
            self.parts.before_close.append(observer.stop)

    def _decide(self, asset: str, partitions: Sequence[PartitionKey] | None) -> Sequence[Decision]:
        keys = None if partitions is None else [decode_partition(key) for key in partitions]
        return self.conditions.evaluate(asset, partitions=keys)

    @classmethod
    def for_testing(
        cls,
        assets: Iterable[Asset],
        *,
        checks: Iterable[Check] = (),
        database_url: object = None,
        project: str | None = None,
        io: Mapping[str, IOManager] | None = None,
        default_io: str | None = None,
        resources: Mapping[str, Any] | None = None,
        hooks: Sequence[Hook | Mapping[str, Hook]] | Mapping[str, Hook] = (),
        executors: Mapping[str, ExecutorLike] | None = None,
        compute: Mapping[str, Compute] | None = None,
        notifiers: Iterable[Notifier] = (),
        observers: Iterable[Observer] = (),
        notify: Iterable[Notify] = (),
        schedules: Iterable[Schedule] = (),
        sensors: Iterable[Sensor] = (),
        settings: Settings | None = None,
    ) -> Self:
        """Return an app that records in memory and never chooses Oban, whatever file and environment say."""
        if settings is None:
            settings = Settings(executor="sync", project=project or DEFAULT_PROJECT, notifications=False)
            project = None
        return cls(
            assets,
            checks=checks,
            database_url=database_url,
            project=project,
            io=io,
            default_io=default_io,
            resources=resources,
            hooks=hooks,
            executors=executors,
            compute=compute,
            notifiers=notifiers,
            observers=observers,
            notify=notify,
            schedules=schedules,
            sensors=sensors,
            settings=settings,
        )

    @classmethod
    def for_production(
        cls,
        assets: Iterable[Asset],
        *,
        checks: Iterable[Check] = (),
        database_url: object = None,
        project: str | None = None,
        io: Mapping[str, IOManager] | None = None,
        default_io: str | None = None,
        resources: Mapping[str, Any] | None = None,
        hooks: Sequence[Hook | Mapping[str, Hook]] | Mapping[str, Hook] = (),
        executors: Mapping[str, ExecutorLike] | None = None,
        compute: Mapping[str, Compute] | None = None,
        notifiers: Iterable[Notifier] = (),
        observers: Iterable[Observer] = (),
        notify: Iterable[Notify] = (),
        schedules: Iterable[Schedule] = (),
        sensors: Iterable[Sensor] = (),
        settings: Settings | None = None,
    ) -> Self:
        """Return an app that uses Oban; fails now when there is no database to use it on.

        Raises:
            ExecutorUnavailableError: no database is configured, or it does not answer.
        """
        app = cls(
            assets,
            checks=checks,
            database_url=database_url,
            project=project,
            io=io,
            default_io=default_io,
            resources=resources,
            hooks=hooks,
            executors=executors,
            compute=compute,
            notifiers=notifiers,
            observers=observers,
            notify=notify,
            schedules=schedules,
            sensors=sensors,
            settings=settings,
        )
        if not is_recording_in_memory():
            app.parts.executors.get("oban")
        return app

    @property
    def graph(self) -> AssetGraph:
        """The assets and their dependencies."""
        return self.parts.graph

    def _repr_html_(self) -> str:
        """What a notebook shows: the assets, and where they are recorded; no database is asked."""
        where = "PostgreSQL" if self.parts.store.durable else "memory"
        rows = [
            ("recorded in", where),
            ("project", self.settings.project),
            ("executor", self.settings.executor),
            ("schedules", ", ".join(one.id.name for one in self.schedules.evaluators) or None),
            ("sensors", ", ".join(one.id.name for one in self.sensors.evaluators) or None),
        ]
        about = html_table("FlowStone", ("", ""), [row for row in rows if row[1] is not None])
        return about + self.graph._repr_html_()

    @property
    def evaluators(self) -> list[Evaluator]:
        """What runs by itself: worker nodes evaluate it."""
        return [*self.conditions.evaluators, *self.schedules.evaluators, *self.sensors.evaluators]

    def reading(self) -> Reading:
        """Return the insights over a few connections of their own that cannot write: for whoever serves pages.

        Close it when nobody watches any more; the app closes it with itself.
        """
        return Reading(self.parts, self._automations)

    def close(self) -> None:
        """Release what the app holds: resources, connections, threads, an embedded server it started."""
        self.parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _settings(given: Settings | None, *, database_url: object, project: str | None) -> Settings:
    """Return the settings that an app was given, or those of the environment."""
    if given is None:
        return Settings.load(database_url=address_of(database_url), project=project)
    _refuse_both(database_url=database_url, project=project)
    given.check("Settings(...)")
    return given


def _refuse_both(**given: object) -> None:
    """Refuse options beside settings, which carry their own."""
    for option, value in given.items():
        if value is not None:
            raise ConfigurationError(f"Pass {option} or settings, not both: settings carry their own.")


def _listed[T](given: Iterable[T]) -> Iterable[T]:
    """Return what is read more than once as a list; what is none is refused later, in words of its option."""
    is_one = isinstance(given, str | bytes | Mapping | Asset) or not isinstance(given, Iterable)
    return given if is_one else list(given)
