"""Versions as pages show them: a page of lines, what one was made from and who read it, how a partition stands."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from flowstone.core.clean import error_line
from flowstone.core.graph import AssetGraph
from flowstone.core.insights.versions import (
    CheckLine,
    LinkedVersion,
    TargetDetail,
    UnpublishedVersion,
    VersionDetail,
    VersionLine,
    shown_metadata,
)
from flowstone.core.output import StoredOutput
from flowstone.core.paging import Page, clamp_limit, decode_cursor, page_of
from flowstone.core.partitions import NO_PARTITION
from flowstone.core.step import CheckRecord, StepRecord, Target
from flowstone.core.version import ChangeKind, OutputChange, VersionRecord
from flowstone.engine.automation.evaluation import FactReader
from flowstone.errors import FlowStoneError, VersionNotFoundError
from flowstone.protocols import Store

type FindValues = Callable[[Sequence[StoredOutput | None]], Sequence[bool | None]]
"""Returns whether values are there; None where that is not known."""

_MAX_COUNTED = 10_000
_MAX_LINKED = 100
_SHOWN_ERROR = 300


class VersionPages:
    """Answers what pages ask about versions.

    Args:
        graph: the assets.
        store: the store.
        facts: what conditions judge by.
        find: whether values are there.
        managers: names of the IO managers of the app.
    """

    def __init__(
        self,
        graph: AssetGraph,
        store: Store,
        facts: FactReader,
        find: FindValues,
        managers: Collection[str] = (),
    ) -> None:
        self._graph = graph
        self._store = store
        self._facts = facts
        self._find = find
        self._managers = managers

    def versions(self, target: Target, *, limit: int = 50, after: str | None = None) -> Page[VersionLine]:
        """Return the versions of a target, newest first."""
        size, place = clamp_limit(limit), decode_cursor(after, int)
        versions = self._store.versions
        records = versions.page(target, before=place[0] if place else None, limit=size + 1)
        total = versions.count(target, limit=_MAX_COUNTED + 1)
        page = page_of(
            records,
            size,
            lambda record: (record.step_id,),
            total=min(total, _MAX_COUNTED),
            total_is_at_least=total > _MAX_COUNTED,
        )
        return Page(self.lines(page.items), page.next, page.total, page.total_is_at_least)

    def lines(self, records: Sequence[VersionRecord], *, find: bool = True) -> tuple[VersionLine, ...]:
        """Return versions as lines.

        Args:
            records: the versions.
            find: whether to ask if their values are there.
        """
        targets = list(dict.fromkeys((one.asset, one.partition_key) for one in records))
        changes = self._store.versions.changes(targets) if targets else []
        there = self._find([one.stored for one in records]) if find else [None] * len(records)
        return tuple(
            self._line(record, changes, is_stored) for record, is_stored in zip(records, there, strict=True)
        )

    def version(self, number: int) -> VersionDetail:
        """Return what a version is made of.

        Raises:
            VersionNotFoundError: there is no such version, or no more.
        """
        record = self.record(number)
        stored = record.stored if record.erased_at is None else None
        readers = self._store.catalog.readers([number]).get(number, ())
        logs = self._store.logs.counts([number])
        return VersionDetail(
            line=self.lines([record])[0],
            attempt=record.attempt,
            io=stored.io if stored else None,
            location=stored.location if stored else None,
            serializer=stored.serializer if stored else None,
            value_type=stored.value_type if stored else None,
            metadata=shown_metadata(stored.metadata) if stored else (),
            reads=self._reads(number),
            readers=self._readers(readers),
            more_readers=len(readers) > _MAX_LINKED,
            checks=tuple(map(self.check, self._store.checks.of_steps([number])[number])),
            attempts=len(self._store.catalog.attempts(number)),
            logs=sum(one.lines for one in logs),
        )

    def record(self, number: int) -> VersionRecord:
        """Return a version as it is recorded.

        Raises:
            VersionNotFoundError: there is no such version, or no more.
        """
        found = self._store.versions.get([number])
        if found:
            return found[0]
        step = self._store.catalog.step(number)
        why = "nothing is recorded of it: it never was, or was pruned"
        if step is not None:
            why = f"its step is {step.state.value}, it committed no version"
        asset, key = (step.asset, step.partition_key) if step is not None else ("", NO_PARTITION)
        raise VersionNotFoundError(asset, key, f"Version {number}", why, label=self._label((asset, key)))

    def target(self, target: Target) -> TargetDetail:
        """Return how one partition of an asset stands, and why."""
        status = self._store.target_statuses.status([target]).get(target)
        committed = status.committed if status is not None else None
        newest = status.newest if status is not None else None
        state, why = self._state(target)
        label = self._label(target)
        return TargetDetail(
            asset=target[0],
            partition=label,
            partition_key=target[1],
            state=state,
            says=_SAYS[state],
            why=tuple(why),
            version=committed.data.step_id if committed else None,
            step_id=newest.step_id if newest else None,
            step_state=newest.state.value if newest else None,
            run_id=newest.run_id if newest else None,
            declared=target[0] in self._graph,
            unpublished=next(iter(self.unpublished([target], limit=1)), None),
        )

    def unpublished(
        self, targets: Sequence[Target] | None = None, *, limit: int = 50
    ) -> tuple[UnpublishedVersion, ...]:
        """Return what is committed and not yet visible to readers outside, of some targets or of all."""
        return tuple(
            UnpublishedVersion(
                asset=one.asset,
                partition=self._label((one.asset, one.partition_key)),
                io=one.stored.io,
                location=one.stored.location,
                in_use=one.in_use,
                since=one.noted_at,
                declared=one.stored.io in self._managers,
            )
            for one in self._store.publications.pending(targets, limit=limit)
        )

    def check(self, record: CheckRecord) -> CheckLine:
        """Return the result of a check as a line."""
        return CheckLine(
            check=record.check,
            partition=self._label((record.asset, record.partition_key)),
            passed=record.passed,
            severity=record.severity.value,
            blocking=record.blocking,
            description=record.description,
            error=error_line(record.error)[:_SHOWN_ERROR] if record.error else "",
            version=record.step_id,
            started_at=record.started_at,
            seconds=max(0.0, record.took_seconds),
            metadata=shown_metadata(record.metadata),
        )

    # --- pieces -------------------------------------------------------------------------------------------

    def _label(self, target: Target) -> str:
        return self._graph.label(*target) if target[1] else ""

    def _line(self, record: VersionRecord, changes: Sequence[OutputChange], is_stored: bool | None) -> VersionLine:
        own = [one for one in changes if (one.asset, one.partition_key) == (record.asset, record.partition_key)]
        erased = record.erased_at is not None
        state, change = "earlier", _newest(own, ChangeKind.RESTORED, step_id=record.step_id)
        if erased:
            state, change = "erased", _newest(own, ChangeKind.ERASED)
        elif record.since is not None:
            state = "restored" if change is not None and change.at == record.since else "current"
        elif record.invalidated_at is not None:
            state, change = "invalidated", _newest(own, ChangeKind.INVALIDATED, before=record.step_id)
        took = None
        if record.started_at is not None and record.finished_at is not None:
            took = max(0.0, (record.finished_at - record.started_at).total_seconds())
        stored = record.stored if not erased else None
        return VersionLine(
            version=record.step_id,
            asset=record.asset,
            partition=self._label((record.asset, record.partition_key)),
            state=state,
            run_id=record.run_id,
            kind=record.kind,
            requested_by=record.requested_by,
            committed_at=record.finished_at,
            since=record.since,
            seconds=took,
            code_version=record.code_version,
            data_version=stored.content_hash if stored else None,
            size_bytes=stored.size_bytes if stored else None,
            is_stored=False if erased else is_stored,
            changed_at=change.at if change else record.erased_at or record.invalidated_at,
            changed_by=change.actor if change else None,
            reason=change.reason if change else None,
        )

    def _reads(self, number: int) -> tuple[LinkedVersion, ...]:
        inputs = self._store.catalog.inputs([number]).get(number, ())
        parameters: dict[int, list[str]] = {}
        targets: dict[int, Target] = {}
        for one in inputs[:_MAX_LINKED]:
            parameters.setdefault(one.step_id, []).append(one.parameter)
            targets[one.step_id] = (one.asset, one.partition_key)
        current = self._store.catalog.current(list(dict.fromkeys(targets.values())))
        records = {one.step_id: one for one in self._store.versions.get(list(targets))}
        return tuple(
            LinkedVersion(
                version=step_id,
                asset=target[0],
                partition=self._label(target),
                is_current=current.get(target) == step_id,
                parameters=tuple(parameters[step_id]),
                in_use=now if (now := current.get(target)) != step_id else None,
                data_version=_hash(records.get(step_id)),
            )
            for step_id, target in targets.items()
        )

    def _readers(self, readers: Sequence[int]) -> tuple[LinkedVersion, ...]:
        records = self._store.versions.get(list(readers)[-_MAX_LINKED:])
        found = [
            LinkedVersion(
                version=one.step_id,
                asset=one.asset,
                partition=self._label((one.asset, one.partition_key)),
                is_current=one.is_current,
                data_version=_hash(one),
            )
            for one in records
        ]
        return tuple(sorted(found, key=lambda one: (not one.is_current, -one.version)))

    def _state(self, target: Target) -> tuple[str, list[str]]:
        """Return the state of a target, and why it is in it."""
        newest = self._store.catalog.history(*target, limit=1)
        last: StepRecord | None = newest[0] if newest else None
        current = self._store.catalog.current([target]).get(target)
        if last is not None and not last.state.is_terminal:
            return "active", [last.reason] if last.reason else []
        failed = last is not None and last.state.value in ("failed", "upstream_failed")
        why = []
        if last is not None and failed and (current is None or current < last.id):
            why = [error_line(last.error or last.reason or "")[:_SHOWN_ERROR]]
        stale = self._stale(target) if current is not None else []
        if why:
            return "failed", [*why, *stale]
        if current is not None:
            return ("stale" if stale else "current"), stale
        changes = [one for one in self._store.versions.changes([target]) if one.kind is not ChangeKind.PRUNED]
        if changes and changes[-1].kind is ChangeKind.ERASED:
            return "erased", [f"it was erased{changes[-1].by}"]
        if changes and changes[-1].kind is ChangeKind.INVALIDATED:
            return "missing", [f"its last version was invalidated{changes[-1].by}"]
        return "missing", [f"its newest step is {last.state.value}"] if last is not None else []

    def _stale(self, target: Target) -> list[str]:
        if target[0] not in self._graph:
            return []
        try:
            (facts,) = self._facts.facts(target[0], [target[1]], now=datetime.now(UTC))
        except FlowStoneError as error:
            return [f"what it reads cannot be determined: {error_line(str(error))}"[:_SHOWN_ERROR]]
        return facts.staleness


_SAYS = {
    "current": "A version is in use, made from the inputs and the code of now.",
    "stale": "A version is in use, and would come out differently now.",
    "missing": "Nothing is in use.",
    "failed": "The newest attempt failed.",
    "active": "It is being computed, or waits for that.",
    "erased": "It was erased: nothing is in use, and nothing brings it back.",
}


def _newest(
    changes: Sequence[OutputChange], kind: ChangeKind, *, step_id: int | None = None, before: int | None = None
) -> OutputChange | None:
    found = (
        one
        for one in reversed(changes)
        if one.kind is kind and step_id in (None, one.step_id) and before in (None, one.before)
    )
    return next(found, None)


def _hash(record: VersionRecord | None) -> str | None:
    return record.stored.content_hash if record is not None and record.stored is not None else None
