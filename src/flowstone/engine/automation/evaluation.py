"""One evaluation of an automation: in a thread of its own, to its conclusion or to its failure.

`FactReader` reads what conditions are judged by: many partitions of an asset in two questions to the store.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from flowstone import telemetry
from flowstone.core.asset import Asset
from flowstone.core.automation.facts import NOTHING, InputFacts, NewestStep, Reads, TargetFacts, TargetStatus
from flowstone.core.automation.record import AutomationId, Conclusion, NewTick, TakenAutomation, TickState
from flowstone.core.clean import clean_text
from flowstone.core.definition import is_over
from flowstone.core.graph import AssetGraph, Completeness
from flowstone.core.partitions import PartitionKey, encode_partition
from flowstone.core.partitions_by_time import TimePartitions
from flowstone.core.retry import RetryPolicy
from flowstone.core.step import Target
from flowstone.engine.failures import failure
from flowstone.engine.step_log import emit_placed
from flowstone.engine.values import InputReader
from flowstone.errors import FlowStoneError
from flowstone.protocols import AutomationStore, Evaluator, TargetStatuses


class FactReader:
    """Collects the facts of targets.

    Args:
        graph: the assets.
        reader: knows which partitions are read.
        statuses: the store's answers.
    """

    def __init__(self, graph: AssetGraph, reader: InputReader, target_statuses: TargetStatuses) -> None:
        self._graph = graph
        self._reader = reader
        self._target_statuses = target_statuses

    def facts(
        self, name: str, partitions: Sequence[PartitionKey], *, now: datetime, since: datetime | None = None
    ) -> list[TargetFacts]:
        """Return the facts of some partitions of an asset, in the same order.

        Args:
            name: the asset.
            partitions: encoded partitions.
            now: the present.
            since: when its condition was first declared.
        """
        asset = self._graph[name]
        over = Completeness(self._graph, now)
        requested = [self._inputs(name, key, now, over) for key in partitions]
        everything: dict[Target, None] = dict.fromkeys((name, key) for key in partitions)
        for reads, _ in requested:
            everything.update(dict.fromkeys(reads))
        status = self._target_statuses.status(list(everything))
        ids = [id_ for key in partitions for id_ in _steps_of(status.get((name, key), NOTHING))]
        read = self._target_statuses.reads(ids) if asset.dependencies else {}
        newest = _newest(asset, now)
        return [
            TargetFacts(
                asset=name,
                partition_key=key,
                status=(own := self._final((name, key), status, over)),
                inputs=tuple(self._input(one, (name, key), status, over) for one in dict.fromkeys(reads)),
                read=_read(read, own.committed.data.step_id if own.committed else None),
                tried=_read(read, own.without_result.step_id if own.without_result else None),
                declared_code=asset.code_version,
                is_newest=newest is None or key == newest,
                since=since,
                problem=problem,
                shown=self._graph.describe(name, key),
                unfinished=None if asset.allow_incomplete else self._until((name, key), over),
                early=own is not status.get((name, key), own),
            )
            for key, (reads, problem) in zip(partitions, requested, strict=True)
        ]

    def active(self, names: Sequence[str]) -> dict[str, int]:
        """Return how many steps of each asset are not over."""
        return self._target_statuses.active(names)

    def _final(self, target: Target, status: Mapping[Target, TargetStatus], over: Completeness) -> TargetStatus:
        """Return how a target stands; once it is over, a version that was begun before that counts no more."""
        found = status.get(target, NOTHING)
        started = found.committed.started_at if found.committed is not None else None
        if started is None or not over.is_over(*target):
            return found
        final = is_over(self._graph[target[0]].partitions, target[1], started)
        return found if final else TargetStatus(None, found.newest)

    def _input(
        self, read: Target, reader: Target, status: Mapping[Target, TargetStatus], over: Completeness
    ) -> InputFacts:
        optional = read[0] in self._reader.optional(reader[0])
        unfinished = self._unfinished(read, reader, over)
        return InputFacts(read, self._final(read, status, over), optional, unfinished, self._graph.describe(*read))

    def _until(self, target: Target, over: Completeness) -> str | None:
        if over.is_over(*target):
            return None
        until = self._graph.over_at(*target)
        return "not over" + (f" until {until:%Y-%m-%d %H:%M %Z}".rstrip() if until is not None else "")

    def _unfinished(self, read: Target, reader: Target, over: Completeness) -> str | None:
        """Say that an input is not over; a reader that is not over either takes what is there."""
        if self._graph[read[0]].allow_incomplete or not over.is_over(*reader):
            return None
        return self._until(read, over)

    def _inputs(
        self, name: str, key: PartitionKey, now: datetime, over: Completeness
    ) -> tuple[list[Target], str | None]:
        try:
            so_far = None if over.is_over(name, key) else over
            return self._reader.targets(name, key, now, so_far), None
        except Exception as error:  # noqa: BLE001 - a mapping may be a function of the user
            return [], f"its inputs cannot be determined: {type(error).__name__}: {error}"


def _steps_of(status: TargetStatus) -> list[int]:
    """Return the steps whose inputs matter: the one that made the version, and the one that made none since."""
    committed = [status.committed.data.step_id] if status.committed else []
    without_result: NewestStep | None = status.without_result
    return [*committed, without_result.step_id] if without_result else committed


def _read(read: dict[int, Reads], step_id: int | None) -> Reads:
    return {} if step_id is None else read.get(step_id, {})


def _newest(asset: Asset, now: datetime) -> str | None:
    """Return the newest complete partition of an asset that is partitioned by time."""
    if not isinstance(asset.partitions, TimePartitions):
        return None
    last = asset.partitions.last(now)
    return "" if last is None else encode_partition(last)


log = logging.getLogger("flowstone.automation")

_BACKOFF = RetryPolicy(backoff_seconds=5.0, factor=2.0, max_backoff_seconds=600.0, jitter=0.2)
_MICROSECOND = timedelta(microseconds=1)


class Evaluation:
    """The right to evaluate an automation, put to use.

    Args:
        evaluator: what to evaluate.
        taken: the right.
        store: where conclusions go.
        on_end: called when the thread has ended.
    """

    def __init__(
        self, evaluator: Evaluator, taken: TakenAutomation, store: AutomationStore, on_end: Callable[[], None]
    ) -> None:
        self._evaluator = evaluator
        self._taken = taken
        self._store = store
        self._on_end = on_end
        self._started = self._renewed = time.monotonic()
        self._latest: Conclusion | None = None
        self._stopping = threading.Event()
        self._given_up = threading.Event()
        self._ended = threading.Event()
        # daemon: what hangs in user code must not keep the process alive
        self._thread = threading.Thread(target=self._run, name=f"flowstone-{self.id.name[:40]}", daemon=True)

    @property
    def taken(self) -> TakenAutomation:
        """The right."""
        return self._taken

    @property
    def id(self) -> AutomationId:
        """What is evaluated."""
        return self._taken.record.id

    @property
    def alive(self) -> bool:
        """Whether it goes on, given up or not."""
        return not self._ended.is_set()

    @property
    def due_at(self) -> datetime | None:
        """When it said to evaluate next."""
        return self._latest.due_at if self._latest is not None else None

    @property
    def seconds_left(self) -> float:
        """How long it may go on without concluding anything."""
        return self._renewed + self._evaluator.timeout_seconds - time.monotonic()

    def start(self) -> None:
        """Start its thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let it conclude what it is at, and begin nothing more."""
        self._stopping.set()

    def join(self, seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def release(self) -> None:
        """Leave it to others: nothing that this thread concludes later counts."""
        self._given_up.set()
        self._store.release(self._taken)

    def give_up(self) -> None:
        """Record that it took too long; nothing that its thread concludes later counts."""
        self._given_up.set()
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - the one way to see it
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        limit = f"{self._evaluator.timeout_seconds:g} s"
        self._conclude_failure(f"The evaluation took longer than {limit} and was given up. It was here:\n{where}")

    def _run(self) -> None:
        try:
            self._evaluate()
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is recorded
            self._fail(error)
        finally:
            if telemetry.listening():
                seconds = {"duration_seconds": time.monotonic() - self._started}
                telemetry.emit("automation.stop", seconds, {"kind": str(self.id.kind), "name": self.id.name})
            self._ended.set()
            self._on_end()

    def _evaluate(self) -> None:
        for conclusion in self._evaluator.evaluate(self._taken):
            concluded = self._store.conclude(self._taken, conclusion)
            accepted = concluded.accepted
            if concluded.run_ids and telemetry.listening():
                for run, steps, *_ in (run for tick in conclusion.ticks for run in tick.runs):
                    if run.id in concluded.run_ids:
                        emit_placed(run, steps)
            self._latest, self._renewed = conclusion, time.monotonic()
            if not accepted:
                if not self._given_up.is_set():
                    log.info("%s: its right to evaluate ended meanwhile; nothing of this was recorded.", self)
                return
            if not conclusion.goes_on:
                return
            if self._stopping.is_set():
                self._store.release(self._taken)
                return
        raise FlowStoneError(f"The evaluation of {self} ended without a last conclusion (goes_on=False).")

    def _fail(self, error: BaseException) -> None:
        if self._given_up.is_set():
            return
        log.warning("%s failed: %s: %s", self, type(error).__name__, clean_text(str(error), limit=500))
        try:
            self._conclude_failure(failure(error, None).error)
        except Exception as refused:  # noqa: BLE001 - the lease runs out, and another worker tries again
            log.warning("The failure of %s could not be recorded: %s", self, refused)

    def _conclude_failure(self, error: str) -> None:
        """Record a failed tick; the cursor stays, and it is tried again after a pause."""
        record = self._taken.record
        elapsed = time.monotonic() - self._started
        at = self._taken.now + timedelta(seconds=elapsed)
        if not at.microsecond:
            at += _MICROSECOND  # never the instant of a schedule, which this tick would stand in the way of
        failures, due = record.failures, record.due_at
        if not self._taken.by_hand:
            failures += 1
            chance = random.random()  # noqa: S311 - spreads retries
            due = at + timedelta(seconds=_BACKOFF.delay_seconds(failures, chance=chance))
        tick = NewTick(at=at, state=TickState.FAILED, error=clean_text(error), took_seconds=elapsed)
        cursor = self._latest.cursor if self._latest is not None else record.cursor
        self._store.conclude(self._taken, Conclusion(ticks=[tick], cursor=cursor, due_at=due, failures=failures))

    def __str__(self) -> str:
        return f"{self.id.kind} {self.id.name!r}"
