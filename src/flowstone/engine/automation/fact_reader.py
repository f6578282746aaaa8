"""Reads what conditions are judged by: many partitions of an asset in two questions to the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from flowstone.core.asset import Asset
from flowstone.core.automation.facts import InputFacts, TargetFacts
from flowstone.core.automation.standing import NOTHING, NewestStep, Reads, TargetStatus
from flowstone.core.definition import is_over
from flowstone.core.graph import AssetGraph, Completeness
from flowstone.core.partition import encode_partition
from flowstone.core.step import Target
from flowstone.core.timeline import TimePartitions
from flowstone.engine.inputs import InputReader
from flowstone.protocols import TargetStatuses


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
        self, name: str, partitions: Sequence[str], *, now: datetime, since: datetime | None = None
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
                partition=key,
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

    def _inputs(self, name: str, key: str, now: datetime, over: Completeness) -> tuple[list[Target], str | None]:
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
