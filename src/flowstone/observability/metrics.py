"""Metrics for Prometheus, written as its text format: what this process did, and what the tables say.

`ProcessMetrics` counts events of this process; `TableMetrics` reads the tables, so that a scrape sees work that
waits, and workers that crashed. Labels are names that stand in code or settings (asset, queue, limit,
kind) or words of ours; a run, a step or a partition never is one.

The format is written here: it is a page of rules, and the client library would bring a registry and locks of its
own for it. Metrics of the program's own that are registered with `prometheus_client` are answered as well.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flowstone import telemetry
from flowstone.core.graph import AssetGraph
from flowstone.core.notification import NotificationState
from flowstone.core.run_filter import RunFilter
from flowstone.observability import background
from flowstone.protocols import Store

log = logging.getLogger("flowstone.observability")

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_ASSETS = 500
"""Of so many assets each has series of its own, in the order of the graph; what is behind shares one."""
OTHER = "_other"
_BUCKETS = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_MAX_COUNTED = 10_000
_KEPT_SECONDS = 5.0

type Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Family:
    """A metric with its series.

    Args:
        name: its name, without the suffixes of a histogram.
        kind: `counter`, `gauge` or `histogram`.
        about: one line for people.
        samples: suffix, labels and value of each line.
    """

    name: str
    kind: str
    about: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a series."""
        self.samples.append(("", tuple(labels.items()), value))


class Histogram:
    """How many values were at most so large; safe to use from several threads with the lock of its owner."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(_BUCKETS, value)] += 1
        self.total += value

    def samples(self, labels: Labels) -> Iterator[tuple[str, Labels, float]]:
        """Return the lines of its series."""
        running = 0
        for bound, number in zip((*_BUCKETS, math.inf), self.counts, strict=True):
            running += number
            yield "_bucket", (*labels, ("le", _number(bound))), running
        yield "_sum", labels, self.total
        yield "_count", labels, running


def exposition(families: Iterable[Family]) -> str:
    """Return metrics in the text format of Prometheus.

    Example:
        >>> workers = Family("flowstone_workers", "gauge", "Processes with a lease.")
        >>> workers.add(2, kind="node")
        >>> print(exposition([workers]), end="")
        # HELP flowstone_workers Processes with a lease.
        # TYPE flowstone_workers gauge
        flowstone_workers{kind="node"} 2
    """
    lines = []
    for one in families:
        about = one.about.replace("\\", "\\\\").replace("\n", " ")
        lines += [f"# HELP {one.name} {about}", f"# TYPE {one.name} {one.kind}"]
        for suffix, labels, value in one.samples:
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels)
            lines.append(
                f"{one.name}{suffix}{{{inside}}} {_number(value)}"
                if inside
                else f"{one.name}{suffix} {_number(value)}"
            )
    return "\n".join(lines) + "\n" if lines else ""


def _escaped(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode()
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == math.inf:
        return "+Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


class ProcessMetrics:
    """Counts what happens in this process, from the events of `flowstone.telemetry`.

    Args:
        graph: the assets; others are counted together.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def one():
        ...     return 1
        >>> flow = FlowStone.for_testing([one])
        >>> metrics = ProcessMetrics(flow.graph)
        >>> metrics.start()
        >>> _ = flow.materialize("one")
        >>> metrics.stop()
        >>> 'flowstone_attempts_total{asset="one",outcome="succeeded"} 1' in exposition(metrics.families())
        True
    """

    def __init__(self, graph: AssetGraph) -> None:
        names = [asset.name for asset in graph]
        self._assets = frozenset(names[:MAX_ASSETS])
        self._queues = {asset.name: asset.queue for asset in graph}
        self._lock = threading.Lock()
        self._started_at = time.time()
        self._counters: Counter[tuple[str, Labels]] = Counter()
        self._durations: defaultdict[Labels, Histogram] = defaultdict(Histogram)
        self._waits: defaultdict[Labels, Histogram] = defaultdict(Histogram)
        self._commits = Histogram()
        self._running = 0

    def start(self) -> None:
        """Begin to count."""
        telemetry.attach(f"metrics-{id(self)}", ["*"], self._count)

    def stop(self) -> None:
        """Count no more."""
        telemetry.detach(f"metrics-{id(self)}")

    def _asset(self, name: str) -> str:
        return name if name in self._assets else OTHER

    def _count(self, event: str, measured: Mapping[str, float], about: Mapping[str, Any]) -> None:
        with self._lock:
            match event:
                case "step.start":
                    self._running += 1
                case "step.stop" | "step.exception":
                    self._running -= 1
                case "attempt.committed":
                    self._count_attempt(measured, about)
                case "attempt.lost":
                    self._add("flowstone_attempts_total", asset=self._asset(about["asset"]), outcome="lost")
                case "commit.stop":
                    self._commits.observe(measured["duration_seconds"])
                case "check.stop":
                    result = "passed" if about["passed"] else "failed"
                    self._add("flowstone_checks_total", asset=self._asset(about["asset"]), result=result)
                case "run.ended":
                    self._add("flowstone_runs_ended_total", kind=about["kind"], state=about["state"])
                case "step.parked":
                    self._add("flowstone_steps_parked_total", asset=self._asset(about["asset"]))
                case "automation.stop":
                    self._add("flowstone_automations_total", kind=about["kind"])

    def _count_attempt(self, measured: Mapping[str, float], about: Mapping[str, Any]) -> None:
        asset = self._asset(about["asset"])
        outcome = about["outcome"] if about["accepted"] else "superseded"
        if about["accepted"] and about["state"] in ("retrying", "cancelled"):
            outcome = about["state"]
        self._add("flowstone_attempts_total", asset=asset, outcome=outcome)
        self._durations[(("asset", asset),)].observe(measured["duration_seconds"])
        if "queue_seconds" in measured:
            queue = self._queues.get(about["asset"], OTHER)
            self._waits[(("queue", queue),)].observe(measured["queue_seconds"])

    def _add(self, name: str, **labels: str) -> None:
        self._counters[name, tuple(labels.items())] += 1

    def families(self) -> list[Family]:
        """Return what was counted by now."""
        found = {name: Family(name, "counter", about) for name, about in _COUNTERS.items()}
        started = Family("flowstone_process_start_time_seconds", "gauge", "When this process began to count.")
        started.add(self._started_at)
        running = Family("flowstone_attempts_running", "gauge", "Attempts that run in this process.")
        durations = Family("flowstone_attempt_duration_seconds", "histogram", "How long attempts took here.")
        waits = Family("flowstone_queue_time_seconds", "histogram", "How long steps had been due when they began.")
        commits = Family("flowstone_commit_duration_seconds", "histogram", "How long commits of groups took here.")
        with self._lock:
            running.add(self._running)
            for (name, labels), number in sorted(self._counters.items()):
                found[name].samples.append(("", labels, number))
            for family, histograms in ((durations, self._durations), (waits, self._waits)):
                for one, histogram in sorted(histograms.items()):
                    family.samples += histogram.samples(one)
            commits.samples += self._commits.samples(())
        return [started, running, *found.values(), durations, waits, commits, *_exporter_families()]


_COUNTERS = {
    "flowstone_attempts_total": "Attempts that were committed by this process, by their end.",
    "flowstone_runs_ended_total": "Runs whose last step was committed by this process.",
    "flowstone_checks_total": "Results of checks in this process.",
    "flowstone_steps_parked_total": "Steps that a limit, a rate or a breaker held back.",
    "flowstone_automations_total": "Evaluations of schedules, sensors and conditions in this process.",
}


def _exporter_families() -> list[Family]:
    dropped = Family("flowstone_telemetry_dropped_total", "counter", "What was not sent because a queue was full.")
    failed = Family("flowstone_telemetry_failed_total", "counter", "What could not be sent.")
    waiting = Family("flowstone_telemetry_waiting", "gauge", "What waits to be sent.")
    for name, (lost, refused, left) in sorted(background.counters().items()):
        dropped.add(lost, exporter=name)
        failed.add(refused, exporter=name)
        waiting.add(left, exporter=name)
    return [dropped, failed, waiting]


class WatchedFleet(Protocol):
    """What is read of `flow.insights`."""

    def queues(self) -> Any:
        """Return the queues and limits."""

    def workers(self) -> Any:
        """Return the workers."""

    def assets(self) -> Sequence[Any]:
        """Return how each asset stands."""

    def freshness(self) -> Sequence[Any]:
        """Return how old the data of assets are that declare how old they may be."""

    def automation_counts(self) -> Mapping[str, int]:
        """Return how many automations are in each state."""

    def late_automations(self, *, limit: int) -> Sequence[Any]:
        """Return what should have been evaluated by now."""


class TableMetrics:
    """What the tables say, read at most every few seconds however often it is asked for.

    Args:
        insights: `flow.insights`, or the same over connections that only read.
        store: where it reads how many runs and requests are open.
    """

    def __init__(self, insights: WatchedFleet, store: Store) -> None:
        self._insights = insights
        self._store = store
        self._reading = threading.Lock()
        self._kept: list[Family] = []
        self._read_at = float("-inf")
        self._is_up = False

    def families(self) -> list[Family]:
        """Return the newest that is known; while the database does not answer, what it said last, with its age."""
        if time.monotonic() - self._read_at > _KEPT_SECONDS and self._reading.acquire(timeout=_KEPT_SECONDS):
            try:
                if time.monotonic() - self._read_at > _KEPT_SECONDS:
                    self._read()
            finally:
                self._reading.release()
        up = Family("flowstone_database_up", "gauge", "Whether the tables could be read.")
        up.add(int(self._is_up))
        age = Family("flowstone_tables_age_seconds", "gauge", "How old what is said of the tables is.")
        if self._kept:
            age.add(max(0.0, time.monotonic() - self._read_at))
        return [up, age, *self._kept]

    def _read(self) -> None:
        try:
            self._kept = [
                *(*self._queues(), *self._workers(), *self._assets()),
                *(*self._open(), *self._automations(), self._notifications()),
            ]
        except Exception as error:  # noqa: BLE001 - a scrape is answered whatever the database does
            if self._is_up:
                log.warning("The tables cannot be read for metrics: %s", error)
            self._is_up = False
        else:
            self._is_up = True
            self._read_at = time.monotonic()

    def _queues(self) -> list[Family]:
        found = self._insights.queues()
        steps = Family("flowstone_steps", "gauge", "Steps by queue and state; what waits is counted to 10,000.")
        oldest = Family("flowstone_oldest_waiting_seconds", "gauge", "For how long the oldest step has been due.")
        capacity = Family("flowstone_queue_capacity", "gauge", "Steps at once over all living workers.")
        paused = Family("flowstone_queue_paused", "gauge", "Whether nothing of the queue is started.")
        for one in found.items:
            for state in ("available", "later", "unstarted", "running"):
                steps.add(getattr(one, state), queue=one.name, state=_STATES.get(state, state))
            oldest.add(one.oldest_seconds or 0.0, queue=one.name)
            capacity.add(one.capacity, queue=one.name)
            paused.add(int(one.paused), queue=one.name)
        slots = Family("flowstone_limit_slots", "gauge", "How many may hold a limit, or start in its time.")
        taken = Family("flowstone_limit_slots_taken", "gauge", "How many hold it, or have started in its time.")
        waiting = Family("flowstone_limit_waiting", "gauge", "Steps that wait for a limit.")
        opened = Family("flowstone_breaker_open", "gauge", "Whether a breaker lets nothing start.")
        for limit in found.limits:
            if limit.maximum is not None:
                slots.add(limit.maximum, limit=limit.name)
            taken.add(limit.taken, limit=limit.name)
            waiting.add(limit.waiting, limit=limit.name)
            if limit.kind == "breaker":
                opened.add(int(limit.open_until is not None), limit=limit.name)
        return [steps, oldest, capacity, paused, slots, taken, waiting, opened]

    def _workers(self) -> list[Family]:
        workers = Family("flowstone_workers", "gauge", "Processes with a lease, or that lost it in a day.")
        running = Family("flowstone_workers_running_steps", "gauge", "Steps that they run.")
        numbers: Counter[tuple[str, str]] = Counter({("node", state): 0 for state in ("alive", "late", "lost")})
        steps: Counter[str] = Counter(node=0)
        for one in self._insights.workers().items:
            numbers[one.kind, one.state] += 1
            steps[one.kind] += one.running
        for (kind, state), number in sorted(numbers.items()):
            workers.add(number, kind=kind, state=state)
        for kind, number in sorted(steps.items()):
            running.add(number, kind=kind)
        return [workers, running]

    def _assets(self) -> list[Family]:
        partitions = Family("flowstone_asset_partitions", "gauge", "Partitions of an asset by state, or states.")
        success = Family(
            "flowstone_asset_last_success_timestamp_seconds", "gauge", "When the newest version was committed."
        )
        for one in list(self._insights.assets())[:MAX_ASSETS]:
            for state in ("committed", "failed", "active"):
                partitions.add(getattr(one, state), asset=one.name, state=state)
            if one.committed_at is not None:
                success.add(one.committed_at.timestamp(), asset=one.name)
        late = Family(
            "flowstone_asset_late", "gauge", "Whether the data of an asset are older than its fresh_within."
        )
        for line in list(self._insights.freshness())[:MAX_ASSETS]:
            late.add(int(line.late_since is not None), asset=line.asset)
        return [partitions, success, late]

    def _open(self) -> list[Family]:
        runs = Family("flowstone_runs_open", "gauge", "Runs that are not over, counted to 10,000.")
        runs.add(self._store.insights.runs.count(RunFilter.parse("state:running"), limit=_MAX_COUNTED))
        approvals = Family("flowstone_approvals_pending", "gauge", "Requests that wait for a person.")
        approvals.add(self._store.insights.automation.pending(limit=_MAX_COUNTED))
        return [runs, approvals]

    def _automations(self) -> list[Family]:
        automations = Family("flowstone_automations", "gauge", "Schedules, sensors and conditions, by state.")
        for state, number in sorted(
            ({"late": 0, "failing": 0} | dict(self._insights.automation_counts())).items()
        ):
            automations.add(number, state=state)
        late = Family(
            "flowstone_automation_late_seconds", "gauge", "For how long those are due that nobody has evaluated."
        )
        for one in self._insights.late_automations(limit=MAX_ASSETS):
            late.add(one.late_seconds, kind=one.kind, automation=one.name)
        return [automations, late]

    def _notifications(self) -> Family:
        found = Family("flowstone_notifications", "gauge", "Notifications that are kept, by state.")
        counts = self._store.notifications.counts()
        for state in NotificationState:
            found.add(counts.get(state, 0), state=state.value)
        return found


_STATES = {"later": "scheduled"}


class Metrics:
    """What a scrape is answered.

    Args:
        version: of FlowStone.
        process: what this process counts; None where nothing is counted.
        tables: what the tables say.
    """

    def __init__(
        self, version: str, *, process: ProcessMetrics | None = None, tables: TableMetrics | None = None
    ) -> None:
        self._version = version
        self._process = process
        self._tables = tables

    def text(self, only: str | None = None) -> str:
        """Return everything, or one part of it.

        Args:
            only: `process` for what this process counts, `tables` for what the tables say.

        Raises:
            ValueError: there is no such part.
        """
        if only not in (None, "process", "tables"):
            raise ValueError(f"from={only!r}: give process, tables, or neither.")
        info = Family("flowstone_info", "gauge", "The version of FlowStone.")
        info.add(1, version=self._version)
        families = [info]
        if self._process is not None and only != "tables":
            families += self._process.families()
        if self._tables is not None and only != "process":
            families += self._tables.families()
        text = exposition(one for one in families if one.samples)
        return text if only == "tables" else text + _own_metrics()


def _own_metrics() -> str:
    """Return what the program has registered with `prometheus_client`, if it uses that."""
    client = sys.modules.get("prometheus_client")
    if client is None:
        return ""
    try:
        found: bytes = client.generate_latest()
    except Exception as error:  # noqa: BLE001 - a collector of the program's own may raise
        log.warning("The metrics of prometheus_client cannot be collected: %s", error)
        return ""
    return found.decode("utf-8", "replace")
