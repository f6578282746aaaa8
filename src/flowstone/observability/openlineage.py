"""OpenLineage: for each attempt that is over, which versions it read and what it wrote, as they are recorded.

An event is made from the tables after the commit, never from what a function says it reads. With a database the
transaction that ends an attempt notes it (`AttemptFeed`), and whoever works on the project sends what is noted: a
process that dies between commit and sending loses nothing. Ids are derived, so that an event that is sent twice is
the same event.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flowstone import telemetry
from flowstone.core.clean import error_line
from flowstone.core.forks import renew_after_fork
from flowstone.core.output import StoredOutput
from flowstone.core.published import catalog_scheme
from flowstone.core.state import State
from flowstone.core.step import AttemptRecord, InputVersion, StepRecord, Target
from flowstone.errors import MissingExtraError
from flowstone.observability.background import Background, report_counters_of
from flowstone.protocols import AttemptFeed, EndedAttempt, FeedEntry, NamesDatasets, ObservedApp

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent

log = logging.getLogger("flowstone.observability")

PRODUCER = "urn:flowstone"
_FEED = "openlineage"
_IDS = uuid.UUID("6f1d2b6e-6a0c-5d3f-9a55-0b9a3f1c9d10")
_EVENTS = ("worker.start", "run.start", "attempt.committed", "attempt.lost")
_POLL_SECONDS = 5.0
_LEASE_SECONDS = 120.0
_BATCH = 50
_MAX_TRIES = 100
_MAX_PAUSE_SECONDS = 600.0
_STOP_SECONDS = 2.0
_MAX_VERSIONS = 20

_WITH_CONTAINER = ("abfss", "wasbs")

type DatasetName = tuple[str, str]
"""Namespace and name, as the naming rules of OpenLineage make them."""


class OpenLineage:
    """Sends an event for each attempt; give it to an app: `FlowStone(..., observers=[OpenLineage()])`.

    Args:
        client: sends events; by default one that is configured as OpenLineage says (`OPENLINEAGE_URL`,
            `openlineage.yml` and so on).
        namespace: of jobs, and of datasets whose storage has no name of its own; by default
            `OPENLINEAGE_NAMESPACE`, else `flowstone`.

    Raises:
        MissingExtraError: openlineage-python is not installed.

    Example:
        >>> OpenLineage(namespace="shop").namespace
        'shop'
    """

    def __init__(self, client: OpenLineageClient | None = None, *, namespace: str | None = None) -> None:
        try:
            import openlineage.client  # noqa: F401 - said here, and not when the first attempt is over
        except ModuleNotFoundError as error:
            raise MissingExtraError("openlineage-python", "openlineage", "Lineage") from error
        self.name = "openlineage"
        self.namespace = namespace or os.environ.get("OPENLINEAGE_NAMESPACE") or "flowstone"
        self.dropped = self.failed = self.sent = 0
        self._client = client
        self._jobs: dict[str, Job] = {}
        self._app: ObservedApp | None = None
        self._memory: Background[tuple[int, int]] | None = None
        self._begin()
        renew_after_fork(self, OpenLineage._begin)

    def _begin(self) -> None:
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_subscribed = False

    def start(self, app: ObservedApp) -> None:
        """Begin to report what the app does; nothing is asked of its database before it works."""
        self._app = app
        self._jobs.clear()
        self._stopping.clear()
        if app.store.feed is None:
            self._memory = Background(self.name, self._report_now)
        else:
            report_counters_of(self)
        telemetry.attach(f"openlineage-{id(self)}", _EVENTS, self._on_event)

    def stop(self) -> None:
        """Send what is noted as far as that does not take long; others send the rest."""
        telemetry.detach(f"openlineage-{id(self)}")
        self.flush(timeout_seconds=_STOP_SECONDS)
        self._stopping.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    @property
    def waiting(self) -> int:
        """How many attempts are noted and not sent; 0 where that is not known."""
        feed = self._feed
        try:
            return feed.waiting(_FEED) if feed is not None and self._is_subscribed else 0
        except Exception:  # noqa: BLE001 - a number for people is no reason to fail
            return 0

    def flush(self, *, timeout_seconds: float) -> bool:
        """Wait until what is noted was sent; return whether that was so in time."""
        if self._memory is not None:
            return self._memory.flush(timeout_seconds=timeout_seconds)
        if self._thread is None:
            return True
        until = time.monotonic() + timeout_seconds
        while self.waiting:
            if time.monotonic() >= until or not self._thread.is_alive():
                return False
            self._wake.set()
            time.sleep(0.02)
        return True

    # --- hearing of attempts ------------------------------------------------------------------------------------

    @property
    def _feed(self) -> AttemptFeed | None:
        return None if self._app is None else self._app.store.feed

    def _on_event(self, event: str, measured: Mapping[str, float], about: Mapping[str, Any]) -> None:
        if self._memory is not None:
            if event == "attempt.committed" and about["accepted"]:
                self._memory.put((int(about["step_id"]), about["attempt"]))
            return
        if event in ("worker.start", "run.start"):
            self._subscribe()  # before the first attempt that this process ends
        if event != "run.start" and self._thread is None:
            self._start_thread()
        self._wake.set()

    def _subscribe(self) -> None:
        feed = self._feed
        if self._is_subscribed or feed is None:
            return
        try:
            feed.subscribe(_FEED)
        except Exception as error:  # noqa: BLE001 - work goes on without lineage
            log.warning("Lineage is not noted for now: %s", error)
        else:
            self._is_subscribed = True

    def _start_thread(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="flowstone-openlineage", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        pause, is_failing = _POLL_SECONDS, False
        while not self._stopping.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._stopping.is_set():
                return
            try:
                self._subscribe()
                while self._is_subscribed and not self._stopping.is_set() and self.send_due():
                    pass
            except Exception as error:  # noqa: BLE001 - a collector that is away, or the database
                if self._stopping.is_set():
                    return
                self.failed += 1
                pause = min(_MAX_PAUSE_SECONDS, pause * 2)
                if not is_failing:
                    log.warning("Lineage cannot be sent for now, and is kept: %s", error_line(repr(error)))
                is_failing = True
                self._stopping.wait(min(pause, _POLL_SECONDS))
            else:
                if is_failing:
                    log.info("Lineage is sent again.")
                pause, is_failing = _POLL_SECONDS, False

    def send_due(self) -> int:
        """Send what is noted and due, a batch of it; return how many attempts that were.

        Raises:
            Exception: the transport failed; what was not sent is kept.
        """
        feed = self._feed
        if feed is None:
            return 0
        entries = feed.claim(_FEED, lease_seconds=_LEASE_SECONDS, limit=_BATCH)
        until = time.monotonic() + _LEASE_SECONDS / 2
        sent: list[FeedEntry] = []
        events = self._events([(one.step_id, one.attempt) for one in entries])
        try:
            for entry in entries:
                self._emit(events.get((entry.step_id, entry.attempt), ()))
                sent.append(entry)
                if time.monotonic() > until:  # a slow collector: others may have the rest
                    break
        except Exception:
            self._keep(feed, entries[len(sent)], entries[len(sent) + 1 :])
            raise
        else:
            if len(sent) < len(entries):
                feed.release(entries[len(sent) :], retry_in_seconds=0.0)
        finally:
            if sent:  # at once: who dies before it has a batch sent again, with the same ids
                feed.acknowledge(sent)
        return len(entries)

    def _keep(self, feed: AttemptFeed, failed: FeedEntry, others: Sequence[FeedEntry]) -> None:
        """Keep what could not be sent for later; what fails time and again is given up, and counted."""
        if failed.tries >= _MAX_TRIES:
            self.dropped += 1
            log.error("The lineage of attempt %d of step %d is given up.", failed.attempt, failed.step_id)
            feed.acknowledge([failed])
        else:
            pause = min(_MAX_PAUSE_SECONDS, 2.0 ** min(failed.tries, 20))
            feed.release([failed], retry_in_seconds=pause)
        if others:
            feed.release(others, retry_in_seconds=0.0)

    # --- events -------------------------------------------------------------------------------------------------

    def _report_now(self, attempt: tuple[int, int]) -> None:
        self._emit(self.events(*attempt))

    def _emit(self, events: Sequence[RunEvent]) -> None:
        if self._client is None:
            from openlineage.client import OpenLineageClient

            self._client = OpenLineageClient()
        for event in events:
            self._client.emit(event)
        self.sent += 1

    def events(self, step_id: int, attempt: int) -> list[RunEvent]:
        """Return the events of an attempt that is over: its start without datasets, and its end with them.

        Args:
            step_id: the step.
            attempt: number of the attempt.

        Returns:
            Nothing when the step, or its attempt, is not recorded any more.
        """
        return self._events([(step_id, attempt)]).get((step_id, attempt), [])

    def _events(self, attempts: Sequence[tuple[int, int]]) -> dict[tuple[int, int], list[RunEvent]]:
        """Return the events of attempts that are recorded: what they need is read for all of them together."""
        ended = self._ended(attempts)
        inputs = self._inputs_of(ended)
        firsts = {(one.asset, one.step_id) for read in inputs.values() for one in _one_of_each(read)}
        stored = self._stored({step_id for _, step_id in firsts})
        found = {}
        for one in ended:
            key = one.step.id, one.attempt.attempt
            found[key] = self._of(one, inputs.get(key, ()), stored)
        return found

    def _ended(self, attempts: Sequence[tuple[int, int]]) -> list[EndedAttempt]:
        assert self._app is not None
        if self._feed is not None:
            return self._feed.read(attempts)
        catalog = self._app.store.catalog
        found = []
        for step_id, number in attempts:
            step = catalog.step(step_id)
            records = [one for one in catalog.attempts(step_id) if one.attempt == number] if step else []
            run = catalog.run(step.run_id) if step and records else None
            if step is not None and records:
                found.append(EndedAttempt(step, records[-1], run.kind if run else ""))
        return found

    def _ends_its_step(self, one: EndedAttempt) -> bool:
        """Whether an attempt ended its step, whatever its end was: what it had read is recorded of the step."""
        if one.attempt.state is State.COMPLETED:
            return True
        return one.attempt.attempt == one.step.attempt and one.step.state.is_terminal

    def _inputs_of(self, ended: Sequence[EndedAttempt]) -> dict[tuple[int, int], Sequence[InputVersion]]:
        """Return what is recorded that attempts had read."""
        assert self._app is not None
        store = self._app.store
        completed = {one.step.id for one in ended if one.attempt.state is State.COMPLETED}
        lasts = {one.step.id: one.attempt.attempt for one in ended if self._ends_its_step(one)}
        others = sorted(lasts.keys() - completed)
        of_steps: dict[int, Sequence[InputVersion]] = dict(
            store.catalog.inputs(sorted(completed)) if completed else {}
        )
        for step_id, read in (store.target_statuses.reads(others) if others else {}).items():
            of_steps[step_id] = [InputVersion("", *target, version.step_id) for target, version in read.items()]
        found = {(step_id, lasts[step_id]): read for step_id, read in of_steps.items() if step_id in lasts}
        tried_again = [one for one in ended if not self._ends_its_step(one)]
        targets = self._targets({step_id for one in tried_again for step_id in one.attempt.read})
        for one in tried_again:
            found[one.step.id, one.attempt.attempt] = [
                InputVersion("", *targets[step_id], step_id) for step_id in one.attempt.read if step_id in targets
            ]
        return found

    def _targets(self, step_ids: Collection[int]) -> Mapping[int, Target]:
        """Return what some versions are of."""
        assert self._app is not None
        if not step_ids:
            return {}
        if self._feed is not None:
            return self._feed.targets(sorted(step_ids))
        steps = [self._app.store.catalog.step(step_id) for step_id in step_ids]
        return {step.id: (step.asset, step.partition_key) for step in steps if step is not None}

    def _stored(self, step_ids: Collection[int]) -> Mapping[int, StoredOutput | None]:
        """Return where some versions lie."""
        assert self._app is not None
        if not step_ids:
            return {}
        if self._feed is not None:
            return self._feed.stored(sorted(step_ids))
        steps = {step_id: self._app.store.catalog.step(step_id) for step_id in step_ids}
        return {step_id: step.stored if step else None for step_id, step in steps.items()}

    def _of(
        self, ended: EndedAttempt, read: Sequence[InputVersion], stored: Mapping[int, StoredOutput | None]
    ) -> list[RunEvent]:
        """Return the events of an attempt.

        Args:
            ended: the attempt.
            read: what it had read.
            stored: where one version of each asset lies that it had read.
        """
        from openlineage.client.event_v2 import RunEvent, RunState

        step, record, _ = ended
        states = {
            State.COMPLETED: RunState.COMPLETE,
            State.SKIPPED: RunState.COMPLETE,
            State.FAILED: RunState.FAIL,
        }
        state = states.get(record.state, RunState.ABORT)
        job = self._job(step)
        started, over = self._run(ended, None), self._run(ended, record if state is RunState.FAIL else None)
        return [
            RunEvent(
                eventTime=record.started_at.isoformat(),
                producer=PRODUCER,
                run=started,
                job=job,
                eventType=RunState.START,
            ),
            RunEvent(
                eventTime=record.finished_at.isoformat(),
                producer=PRODUCER,
                run=over,
                job=job,
                eventType=state,
                inputs=self._inputs(read, stored),
                outputs=[self._output(step)] if record.state is State.COMPLETED else [],
            ),
        ]

    def run_id(self, step_id: int, attempt: int, run_id: str) -> str:
        """Return the id by which OpenLineage knows an attempt: the same whoever derives it."""
        return str(uuid.uuid5(_IDS, f"{self.namespace}/{run_id}/{step_id}/{attempt}"))

    def _run(self, ended: EndedAttempt, failed: AttemptRecord | None) -> Run:
        from openlineage.client.event_v2 import Run
        from openlineage.client.facet_v2 import error_message_run, parent_run, processing_engine_run, tags_run

        step, record, kind = ended
        tags = {"attempt": str(record.attempt), "run_id": step.run_id, "step_id": str(step.id)}
        if step.partition_key:
            tags["partition"] = step.partition_key
        facets: dict[str, Any] = {
            "processing_engine": processing_engine_run.ProcessingEngineRunFacet(
                version=_own_version(), name="flowstone", producer=PRODUCER
            ),
            "tags": tags_run.TagsRunFacet(
                tags=[tags_run.TagsRunFacetFields(key, value, "FLOWSTONE") for key, value in tags.items()],
                producer=PRODUCER,
            ),
        }
        if kind:
            whole = str(uuid.uuid5(_IDS, f"{self.namespace}/{step.run_id}"))
            facets["parent"] = parent_run.ParentRunFacet(
                run=parent_run.Run(runId=whole),
                job=parent_run.Job(namespace=self.namespace, name=kind),
                producer=PRODUCER,
            )
        if failed is not None:
            text = failed.error or failed.error_type or "failed"
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
                message=error_line(text), programmingLanguage="PYTHON", stackTrace=failed.error, producer=PRODUCER
            )
        return Run(runId=self.run_id(step.id, record.attempt, step.run_id), facets=facets)

    def _job(self, step: StepRecord) -> Job:
        """Return the job of an asset, made once: it says the same of each attempt."""
        if step.asset not in self._jobs:
            self._jobs[step.asset] = self._make_job(step.asset)
        return self._jobs[step.asset]

    def _make_job(self, name: str) -> Job:
        from openlineage.client.event_v2 import Job
        from openlineage.client.facet_v2 import documentation_job, job_type_job

        facets: dict[str, Any] = {
            "jobType": job_type_job.JobTypeJobFacet(
                processingType="BATCH", integration="FLOWSTONE", jobType="ASSET", producer=PRODUCER
            )
        }
        assert self._app is not None
        asset = self._app.graph.assets.get(name)
        if asset is not None and asset.description:
            facets["documentation"] = documentation_job.DocumentationJobFacet(
                description=asset.description, producer=PRODUCER
            )
        return Job(namespace=self.namespace, name=name, facets=facets)

    def _inputs(
        self, read: Sequence[InputVersion], stored: Mapping[int, StoredOutput | None]
    ) -> list[InputDataset]:
        """Return one dataset for each asset that was read, with the exact versions."""
        from openlineage.client.event_v2 import InputDataset

        by_asset: dict[str, set[int]] = {}
        for one in read:
            by_asset.setdefault(one.asset, set()).add(one.step_id)
        found: dict[DatasetName, InputDataset] = {}
        for first in _one_of_each(read):
            namespace, name = self.dataset(first.asset, stored.get(first.step_id))
            steps = [str(step_id) for step_id in sorted(by_asset[first.asset])]
            shown = ",".join(steps[:_MAX_VERSIONS]) + (",..." if len(steps) > _MAX_VERSIONS else "")
            found.setdefault(
                (namespace, name), InputDataset(namespace=namespace, name=name, facets=_version(shown))
            )
        return list(found.values())

    def _output(self, step: StepRecord) -> OutputDataset:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

        namespace, name = self.dataset(step.asset, step.stored)
        size = step.stored.size_bytes if step.stored else None
        rows = step.stored.metadata.get("rows") if step.stored else None
        counted = rows if isinstance(rows, int) and not isinstance(rows, bool) else None
        facets: dict[str, Any] = {}
        if size is not None or counted is not None:
            facets["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(
                rowCount=counted, size=size, producer=PRODUCER
            )
        return OutputDataset(namespace=namespace, name=name, facets=_version(str(step.id)), outputFacets=facets)

    def dataset(self, asset: str, stored: StoredOutput | None) -> DatasetName:
        """Return namespace and name of what is kept of an asset, by where it lies.

        Args:
            asset: name of the asset.
            stored: one version of it.
        """
        assert self._app is not None
        manager: object = None if stored is None else self._app.managers.get(stored.io)
        named = manager.dataset(asset) if isinstance(manager, NamesDatasets) else None
        if named is not None:
            return named
        if stored is not None and "://" in stored.location:
            return dataset_of_url(stored.location, asset)
        return self.namespace, asset


def _one_of_each(read: Sequence[InputVersion]) -> list[InputVersion]:
    """Return the first version of each asset that was read: where it lies names the dataset of all."""
    return list({one.asset: one for one in reversed(read)}.values())[::-1]


def dataset_of_url(location: str, asset: str) -> DatasetName:
    """Return namespace and name of a URL as OpenLineage writes them; what is of one version alone is left out.

    Example:
        >>> dataset_of_url("s3://lake/values/orders/2024-01-05/12-1.parquet", "orders")
        ('s3://lake', 'values/orders')
        >>> dataset_of_url("postgresql://me:secret@db:5432/shop.sales.orders@17", "orders")
        ('postgres://db:5432', 'shop.sales.orders')
        >>> dataset_of_url("file:///data/orders.csv", "orders")
        ('file', '/data/orders.csv')
    """
    url = urlsplit(location.rpartition("@")[0] if _has_version(location) else location)
    scheme = catalog_scheme(url.scheme)
    # before the @ stands who logs in, and with Azure's schemes the container
    host = url.netloc if scheme in _WITH_CONTAINER else url.netloc.rpartition("@")[2]
    path = url.path
    segments = path.split("/")
    if asset in segments[:-1]:
        path = "/".join(segments[: segments.index(asset) + 1])
    if scheme == "file" and not host:
        return "file", path
    return f"{scheme}://{host}", path.lstrip("/") or "/"


def _has_version(location: str) -> bool:
    """Whether a URL ends with a version: an @ behind the host."""
    return "@" in location.partition("://")[2].partition("/")[2]


@cache
def _own_version() -> str:
    try:
        return version("flowstone")
    except PackageNotFoundError:
        return "unknown"


def _version(name: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    facet = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=name, producer=PRODUCER)
    return {"version": facet}
