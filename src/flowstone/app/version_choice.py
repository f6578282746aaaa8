"""Which version is meant: by its number, by a time, or by a run; and what is shown of one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flowstone.app.build import Parts
from flowstone.app.lineage import Version
from flowstone.app.results import RunHandle, RunResult
from flowstone.app.targets import recorded_target, run_id_of, step_id_of
from flowstone.core.asset import Asset
from flowstone.core.declaring import shown
from flowstone.core.job import Job
from flowstone.core.materialization import Materialization
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.partitions import Partition, PartitionKey
from flowstone.core.step import RunRecord, StepRecord, Target
from flowstone.core.version import ChangeKind, OutputChange
from flowstone.core.zones import utc_text
from flowstone.errors import OptionsError, RunNotFoundError, ValueErasedError, VersionNotFoundError, command


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """One version of an asset's partition.

    Args:
        step_id: the step that made it: its number.
        asset: asset name.
        partition: value of its partition; None without partitions.
        label: its partition as people write it.
        run_id: run of that step.
        kind: kind of that run.
        requested_by: who asked for it, if they said so.
        state: `current`, `earlier`, `invalidated` or `erased`.
        created_at: when it was asked for.
        started_at, finished_at: of the attempt that made it.
        since: since when it is in use; None when it is not.
        code_version: declared version of the code that made it.
        stored: where its value lies, with hash and size; None once that was erased.
        is_stored: whether the value is there; None when its IO manager cannot say without loading it.
        restored: the newest time that a person put it in use again; None for never.
        invalidated_at: when it was taken out of use; None when that is not so.
        erased_at: when it was erased.
        changed_by: who invalidated or erased it, if they said so.
    """

    step_id: int
    asset: str
    partition: Partition
    label: str
    run_id: str
    kind: str | None
    requested_by: str | None
    state: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    since: datetime | None
    code_version: str | None
    stored: StoredOutput | None
    is_stored: bool | None
    restored: OutputChange | None = None
    invalidated_at: datetime | None = None
    erased_at: datetime | None = None
    changed_by: str | None = None

    @property
    def is_current(self) -> bool:
        """Whether it is what `load` returns."""
        return self.state == "current"

    @property
    def data_version(self) -> str | None:
        """Hash of the stored bytes; None when nothing was encoded."""
        return self.stored.content_hash if self.stored else None

    def __str__(self) -> str:
        return f"{self.asset}{f' [{self.label}]' if self.label else ''} @ {self.step_id}"

    def to_json(self) -> dict[str, JsonValue]:
        """Return it as plain data; ids are text."""
        stored = self.stored
        return {
            "step_id": str(self.step_id),
            "asset": self.asset,
            "partition": self.label or None,
            "run_id": self.run_id,
            "kind": self.kind,
            "requested_by": self.requested_by,
            "state": self.state,
            "created_at": _iso(self.created_at),
            "started_at": _iso(self.started_at),
            "finished_at": _iso(self.finished_at),
            "since": _iso(self.since),
            "code_version": self.code_version,
            "data_version": self.data_version,
            "size_bytes": stored.size_bytes if stored else None,
            "io": stored.io if stored else None,
            "location": stored.location if stored else None,
            "value_type": stored.value_type if stored else None,
            "metadata": stored.metadata if stored else {},
            "is_stored": self.is_stored,
            "restored_at": _iso(self.restored.at) if self.restored else None,
            "restored_by": self.restored.actor if self.restored else None,
            "invalidated_at": _iso(self.invalidated_at),
            "erased_at": _iso(self.erased_at),
            "changed_by": self.changed_by,
        }


type AnyVersion = int | str | Materialization | StepRecord | Version | VersionInfo | Job
"""What stands for a version: its number, or what another verb returned."""

type AnyRun = str | RunRecord | RunResult | RunHandle | Job


class Choice:
    """Finds the version that `load` is asked for.

    Args:
        parts: of the app.
    """

    def __init__(self, parts: Parts) -> None:
        self._graph = parts.graph
        self._store = parts.store

    def choose(
        self,
        asset: Asset,
        partition: Partition,
        *,
        version: AnyVersion | None,
        as_of: datetime | None,
        run: AnyRun | None,
    ) -> StoredOutput:
        """Return what is stored for a version, one of a time, or one of a run.

        Raises:
            OptionsError: more than one of the three, or something that stands for none.
            VersionNotFoundError: there is no such version; says why.
            ValueErasedError: it was erased.
        """
        given = [
            f"{name}="
            for name, value in (("version", version), ("as_of", as_of), ("run", run))
            if value is not None
        ]
        if len(given) > 1:
            raise OptionsError(f"{' and '.join(given)} both say which version is meant: give one of them.")
        catalog = self._store.catalog
        if version is not None:
            step_id = version_id(version)
            target = None if partition is None else recorded_target(asset, partition, catalog)
            return self.by_number(asset, target, step_id)
        target = recorded_target(asset, partition, catalog)
        if as_of is not None:
            return self._by_time(target, as_of)
        assert run is not None
        return self._by_run(target, run_id_of(run))

    def by_number(self, asset: Asset, target: Target | None, step_id: int) -> StoredOutput:
        """Return what is stored for a version of an asset, or of one partition of it."""
        record = self._store.catalog.step(step_id)
        key = (
            target[1] if target is not None else (record.partition_key if record is not None else PartitionKey(""))
        )
        what = f"Version {step_id}"
        if record is None:
            raise self._not_found(
                (asset.name, key), what, "nothing is recorded of it: it never was, or was pruned"
            )
        if (record.asset, record.partition_key) != (asset.name, key):
            other = self._graph.describe(record.asset, record.partition_key)
            raise self._not_found((asset.name, key), what, f"it is one of {other}")
        return self._stored(record, what)

    def at(self, target: Target, as_of: datetime) -> int:
        """Return the version that was in use at a time.

        Raises:
            VersionNotFoundError: there was none, or that is not known any more.
            ValueErasedError: it had been erased.
        """
        given: object = as_of
        if not isinstance(given, datetime):
            raise OptionsError(f"as_of={shown(given)}: give a datetime with a time zone.")
        if as_of.utcoffset() is None:
            raise OptionsError(
                f"as_of={as_of!r} has no time zone, so it may mean several times. Say which: "
                "as_of.astimezone() for the one of this machine, or datetime(..., tzinfo=UTC)."
            )
        found = self._store.versions.at([target], as_of)[target]
        what = f"The version of {utc_text(as_of)}"
        if found.is_unknown:
            raise self._not_found(
                target, what, "versions of that time were pruned, so which one was in use is not known any more"
            )
        if found.step_id is not None:
            return found.step_id
        change = found.change
        if change is None:
            raise self._not_found(target, what, "nothing had been committed by then")
        if change.kind is ChangeKind.ERASED:
            raise ValueErasedError(*target, at=change.at, by=change.actor, label=self._graph.label)
        raise self._not_found(
            target, what, f"none was in use then: the last one was invalidated at {utc_text(change.at)}{change.by}"
        )

    def refuse_erased(self, target: Target) -> None:
        """Say of a target without a version in use that it was erased, if that is so.

        Raises:
            ValueErasedError: says when, and who did it.
        """
        changes = [one for one in self._store.versions.changes([target]) if one.kind is not ChangeKind.PRUNED]
        if changes and changes[-1].kind is ChangeKind.ERASED:
            raise ValueErasedError(*target, at=changes[-1].at, by=changes[-1].actor, label=self._graph.label)

    def _by_time(self, target: Target, as_of: datetime) -> StoredOutput:
        step_id = self.at(target, as_of)
        record = self._store.catalog.step(step_id)
        what = f"The version of {utc_text(as_of)}"
        if record is None:
            raise self._not_found(target, what, f"it was version {step_id}, which was pruned")
        return self._stored(record, what)

    def _by_run(self, target: Target, run_id: str) -> StoredOutput:
        found = self._store.versions.of_run(target, run_id)
        what = f"The version of run {run_id}"
        if found is None:
            if self._store.catalog.run(run_id) is None:
                raise RunNotFoundError("run", run_id)
            raise self._not_found(target, what, "that run has no step for it")
        record = self._store.catalog.step(found.version or found.step_id)
        if record is None:
            raise self._not_found(target, what, f"it reused version {found.version}, which was pruned")
        if found.version is None and record.erased_at is None:
            raise self._not_found(target, what, f"its step {found.step_id} is {found.state.value}")
        return self._stored(record, what)

    def _stored(self, record: StepRecord, what: str) -> StoredOutput:
        target = record.asset, record.partition_key
        if record.erased_at is not None:
            by = self._erased_by(target, record.erased_at)
            raise ValueErasedError(*target, at=record.erased_at, by=by, version=record.id, label=self._graph.label)
        if record.output_step is None or record.stored is None:
            raise self._not_found(target, what, f"its step is {record.state.value}, it committed no value")
        return record.stored

    def _erased_by(self, target: Target, at: datetime) -> str | None:
        changes = self._store.versions.changes([target])
        return next((one.actor for one in changes if one.kind is ChangeKind.ERASED and one.at >= at), None)

    def _not_found(self, target: Target, what: str, why: str) -> VersionNotFoundError:
        label = self._graph.label(*target) if target[1] else None
        return VersionNotFoundError(*target, what, why, label=label)


def version_id(given: AnyVersion) -> int:
    """Return the number of a version.

    Raises:
        OptionsError: what was given stands for none.

    Example:
        >>> version_id(7), version_id("7")
        (7, 7)
    """
    found: object = given
    if isinstance(given, Materialization | Version | VersionInfo):
        found = given.step_id
    elif isinstance(given, StepRecord):
        found = given.output_step or given.id
    if not isinstance(found, int | str | Job) or isinstance(found, bool):
        raise OptionsError(
            f"version={shown(found)} stands for no version: give its number, or a Materialization, a "
            "VersionInfo, the record of a step or a job."
        )
    step_id = step_id_of(found)
    if step_id is None:
        raise OptionsError(
            f"version={found!r} is no number of a version: `{command('versions ls')} ASSET` lists them."
        )
    return step_id


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
