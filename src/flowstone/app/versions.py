"""`flow.versions`: what versions there are, and an earlier one in use again.

Reading comes first (`VersionsView.list`, `get`, `at`), then `restore` and `undo`. Which version is meant, also by
`flow.load`, is found in `flowstone.app.version_choice`; what `erase` does lies in `flowstone.app.erasing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.app.erasing import Erased, Eraser
from flowstone.app.lineage import LineageView, Version
from flowstone.app.targets import AssetLike, flag, recorded_asset, recorded_target, run_id_of, several
from flowstone.app.version_choice import AnyRun, AnyVersion, Choice, VersionInfo, version_id
from flowstone.core.asset import Asset
from flowstone.core.declaring import is_storable, shown, view
from flowstone.core.paging import Page, clamp_limit, decode_cursor, page_of
from flowstone.core.partitions import Partition, PartitionKey, decode_partition
from flowstone.core.selection import Selection
from flowstone.core.state import State
from flowstone.core.step import Target
from flowstone.core.version import ChangeKind, Repointed, RestoreVersion, VersionRecord
from flowstone.engine.values import find_values
from flowstone.errors import (
    OptionsError,
    RestoreRefusedError,
    RunNotFoundError,
    VersionNotFoundError,
    command,
)

_PAGE = 1000
_MAX_COUNTED = 10_000
_MAX_STALE = 1000
_MAX_SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """What `restore` did.

    Args:
        asset: asset name.
        label: its partition as people write it.
        version: the version in use.
        before: the one that was; None for none.
        changed: False when that version was in use already: nothing was done.
        stale: versions in use that were made from the one before, as far as a thousand of them.
    """

    asset: str
    label: str
    version: int
    before: int | None
    changed: bool
    stale: tuple[Version, ...] = ()

    def __str__(self) -> str:
        target = f"{self.asset}{f' [{self.label}]' if self.label else ''}"
        if not self.changed:
            return f"{target}: version {self.version} is in use already, nothing was done"
        instead = f"in place of version {self.before}" if self.before is not None else "where none was"
        return f"{target}: version {self.version} is in use again, {instead}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoneRun:
    """What `undo` did, or would do.

    Args:
        run_id: the run.
        restored: number of targets whose earlier version is in use again.
        out_of_use: number of targets for which nothing had been in use before, and nothing is now.
        left: number of its versions that are not in use any more anyway, and were left as they are.
        targets: the first hundred targets, as people read them.
        dry_run: whether nothing was changed.
    """

    run_id: str
    restored: int
    out_of_use: int
    left: int
    targets: tuple[str, ...] = ()
    dry_run: bool = False


@view("flow.versions")
class VersionsView:
    """What was committed for a partition over time, and which of it is in use.

    Example:
        >>> from flowstone import FlowStone, asset
        >>> rates = iter([1, 2])
        >>> @asset
        ... def rate():
        ...     return next(rates)
        >>> flow = FlowStone.for_testing([rate])
        >>> good, bad = flow.materialize("rate"), flow.materialize("rate", force=True)
        >>> print(flow.versions.restore("rate", version=good, reason="the feed was wrong"))
        rate: version 1 is in use again, in place of version 2
        >>> flow.load("rate"), flow.load("rate", version=bad)
        (1, 2)
    """

    def __init__(self, parts: Parts, lineage: LineageView) -> None:
        self._parts = parts
        self._lineage = lineage
        self._choice = Choice(parts)
        self._eraser = Eraser(parts, lineage)

    def list(
        self, asset: AssetLike, partition: Partition = None, *, limit: int = 50, after: str | None = None
    ) -> Page[VersionInfo]:
        """Return the versions of an asset's partition, newest first.

        Args:
            asset: the asset or its name, also of one that is declared no more.
            partition: which partition, also one of earlier.
            limit: how many at most, 1 to 500.
            after: `next` of the page before.
        """
        target = self._target(asset, partition)
        size = clamp_limit(limit)
        place = decode_cursor(after, int)
        versions = self._parts.store.versions
        records = versions.page(target, before=None if place is None else place[0], limit=size + 1)
        total = versions.count(target, limit=_MAX_COUNTED + 1)
        page = page_of(
            records,
            size,
            lambda record: (record.step_id,),
            total=min(total, _MAX_COUNTED),
            total_is_at_least=total > _MAX_COUNTED,
        )
        return Page(tuple(self._infos(page.items)), page.next, page.total, page.total_is_at_least)

    def get(self, version: AnyVersion) -> VersionInfo:
        """Return a version by its number, or what stands for it; a step that reused one stands for that one.

        Raises:
            VersionNotFoundError: there is no such version, or no more.
        """
        record = self._record(version_id(version))
        return self._infos([record])[0]

    def at(self, asset: AssetLike, partition: Partition = None, *, as_of: datetime) -> VersionInfo:
        """Return the version that was in use at a time, also after restores and invalidations.

        Args:
            asset: the asset or its name.
            partition: which partition.
            as_of: the time, with a time zone.

        Raises:
            VersionNotFoundError: none was in use then, or versions of that time were pruned.
            ValueErasedError: it had been erased by then.
        """
        target = self._target(asset, partition)
        step_id = self._choice.at(target, as_of)
        return self._infos([self._record(step_id, target)])[0]

    def restore(
        self,
        asset: AssetLike,
        partition: Partition = None,
        version: AnyVersion | None = None,
        *,
        reason: str | None = None,
        by: str | None = None,
        expect: AnyVersion | None = None,
        force: bool = False,
    ) -> RestoreResult:
        """Put an earlier version in use again: what is loaded and read from now on is that one.

        Nothing is computed and nothing is deleted. What was made from the version before becomes stale, and says
        why; conditions act on that. For the restored target itself, only what changes later counts: a condition
        does not compute at once what a person has just replaced.

        Args:
            asset: the asset or its name.
            partition: which partition; that of the version when it is left out.
            version: its number, or what another verb returned.
            reason: why, for the audit log and for whoever asks.
            by: who; the user of the operating system by default.
            expect: refuse unless this version is in use now.
            force: restore although a step of the target is not over; what that commits later wins.

        Raises:
            VersionNotFoundError: there is no such version, or it is one of another target.
            ValueErasedError: it was erased.
            RestoreRefusedError: its value is not stored any more, or another version is in use than was expected.
            TargetActiveError: a step of the target is not over.
        """
        if version is None:
            raise OptionsError(
                "restore() needs version=: the number of a version, as flow.versions.list(...) has it."
            )
        who, why, forced = _text("by", by), _text("reason", reason), flag("force", force)
        found = self._recorded(asset)
        record = self._record(version_id(version))
        own = record.asset, record.partition_key
        target = own if partition is None and record.asset == found.name else self._target(found, partition)
        if target != own:
            self._choice.by_number(found, target, record.step_id)  # which says what it is one of
        self._refuse_missing([record])
        pointed = RestoreVersion(target, record.step_id, None if expect is None else version_id(expect))
        (done,) = self._parts.store.versions.restore([pointed], by=who, reason=why, force=forced)
        stale = self._lineage.made_from([done.before], limit=_MAX_STALE) if done.changed and done.before else ()
        return RestoreResult(
            asset=target[0],
            label=self._label(target),
            version=record.step_id,
            before=done.before,
            changed=done.changed,
            stale=tuple(one for one in stale if one.current),
        )

    def undo(
        self,
        run: AnyRun,
        *,
        reason: str | None = None,
        by: str | None = None,
        force: bool = False,
        dry_run: bool = False,
    ) -> UndoneRun:
        """Undo what a run published: put in use again what was in use before it, in one transaction.

        Where nothing was in use before, nothing is afterwards. Versions of the run that are not in use any more
        are left as they are.

        Args:
            run: the run, which must be over.
            reason: see `restore`.
            by: see `restore`.
            force: see `restore`.
            dry_run: only say what would be done.

        Raises:
            RunNotFoundError: there is no such run.
            OptionsError: the run is not over.
            RestoreRefusedError: an earlier version was pruned, or its value is not stored any more; nothing is
                changed then.
            TargetActiveError: a step of a target is not over.
        """
        run_id = run_id_of(run)
        record = self._parts.store.catalog.run(run_id)
        if record is None:
            raise RunNotFoundError("run", run_id)
        if not record.state.is_terminal:
            raise OptionsError(
                f"The run {run_id!r} is not over: what it publishes later would stay. Wait for its end, or cancel "
                f"it first: `{command('cancel', run_id)}`."
            )
        who, why, forced = _text("by", by), _text("reason", reason), flag("force", force)
        earlier = self._earlier(run_id)
        done = [Repointed(one.target, one.expect, one.step_id) for one in earlier]
        if not flag("dry_run", dry_run) and earlier:
            done = self._parts.store.versions.restore(earlier, by=who, reason=why, force=forced, run_id=run_id)
        restored = sum(one.step_id is not None for one in done)
        return UndoneRun(
            run_id=run_id,
            restored=restored,
            out_of_use=len(done) - restored,
            left=max(0, record.counts.get(State.COMPLETED, 0) - len(done)),
            targets=tuple(self._parts.graph.describe(*one.target) for one in done[:_MAX_SHOWN]),
            dry_run=dry_run,
        )

    def erase(
        self,
        selection: Selection,
        *,
        partition: Partition = None,
        partitions: Iterable[Partition] | None = None,
        reason: str | None = None,
        by: str | None = None,
        dry_run: bool = False,
    ) -> Erased:
        """Erase a partition for good: its values wherever they are, and all that was written about it.

        Values in every IO manager, results of checks, errors, metadata, captured logs, requests for approval and
        items go. That there was a step, when, and that it was erased by whom, stays; so does the partition's key.
        What was made from it is listed, not deleted. A call that was interrupted is gone on with by the next one.

        Args:
            selection: asset, name or selection expression; also the name of an asset that is declared no more.
            partition: which partition, also a removed key; None for assets without partitions. Of several
                dimensions some may be left out, as in `{"customer": "acme"}`: all that is recorded of it goes.
            partitions: several partitions instead of one.
            reason: why, for the audit log; do not quote there what is to be forgotten.
            by: who; the user of the operating system by default.
            dry_run: only say what would be erased.

        Raises:
            TargetActiveError: a step of it is not over.
            UnknownPartitionError: no selected asset has, or had, such a partition.
        """
        if partitions is not None and partition is not None:
            raise OptionsError("partition= and partitions=: give one of them.")
        chosen = [partition] if partitions is None else [*several(partitions)]
        return self._eraser.erase(
            selection,
            partitions=chosen,
            reason=_text("reason", reason),
            by=_text("by", by),
            dry_run=flag("dry_run", dry_run),
        )

    # --- pieces -------------------------------------------------------------------------------------------

    def _recorded(self, asset: AssetLike) -> Asset:
        return recorded_asset(self._parts.graph, self._parts.store.catalog, asset)

    def _target(self, asset: AssetLike, partition: Partition) -> Target:
        return recorded_target(self._recorded(asset), partition, self._parts.store.catalog)

    def _label(self, target: Target) -> str:
        return self._parts.graph.label(*target) if target[1] else ""

    def _record(self, step_id: int, target: Target | None = None) -> VersionRecord:
        """Return a version, also that of a step which reused it."""
        store = self._parts.store
        found = store.versions.get([step_id])
        if not found:
            step = store.catalog.step(step_id)
            if step is not None and step.output_step not in (None, step_id):
                found = store.versions.get([step.output_step or step_id])
            if not found:
                asset, key = target or (
                    (step.asset, step.partition_key) if step is not None else ("", PartitionKey(""))
                )
                why = "nothing is recorded of it: it never was, or was pruned"
                if step is not None:
                    why = f"its step is {step.state.value}, it committed no version"
                label = self._label((asset, key)) if asset else None
                raise VersionNotFoundError(asset, key, f"Version {step_id}", why, label=label)
        return found[0]

    def _infos(self, records: Sequence[VersionRecord]) -> Sequence[VersionInfo]:
        targets = list(dict.fromkeys((one.asset, one.partition_key) for one in records))
        changes = self._parts.store.versions.changes(targets) if targets else []
        restored = {one.step_id: one for one in changes if one.kind is ChangeKind.RESTORED}
        ended = {(one.before, one.kind): one for one in changes if one.before is not None}
        there = find_values(self._parts.managers, [one.stored for one in records])
        found = []
        for record, is_stored in zip(records, there, strict=True):
            state, change = "earlier", None
            if record.erased_at is not None:
                state = "erased"
                change = next((one for one in reversed(changes) if one.kind is ChangeKind.ERASED), None)
            elif record.is_current:
                state = "current"
            elif record.invalidated_at is not None:
                state, change = "invalidated", ended.get((record.step_id, ChangeKind.INVALIDATED))
            found.append(
                VersionInfo(
                    step_id=record.step_id,
                    asset=record.asset,
                    partition=decode_partition(record.partition_key) if record.partition_key else None,
                    label=self._label((record.asset, record.partition_key)),
                    run_id=record.run_id,
                    kind=record.kind,
                    requested_by=record.requested_by,
                    state=state,
                    created_at=record.created_at,
                    started_at=record.started_at,
                    finished_at=record.finished_at,
                    since=record.since,
                    code_version=record.code_version,
                    stored=record.stored if record.erased_at is None else None,
                    is_stored=is_stored if record.erased_at is None else False,
                    restored=restored.get(record.step_id),
                    invalidated_at=record.invalidated_at,
                    erased_at=record.erased_at,
                    changed_by=change.actor if change is not None else None,
                )
            )
        return found

    def _earlier(self, run_id: str) -> Sequence[RestoreVersion]:
        """Return what is to be in use again when a run is undone.

        Raises:
            RestoreRefusedError: one of them is not there any more.
        """
        versions, found, after = self._parts.store.versions, [], 0
        while page := versions.published(run_id, after=after, limit=_PAGE):
            after = page[-1].step_id
            before = versions.before(page)
            earlier = [one.step_id for one in before.values() if one.step_id is not None]
            records = {one.step_id: one for one in versions.get(earlier)}
            for one in page:
                target = one.asset, one.partition_key
                was = before.get(target)
                if was is None:
                    continue  # another version was put in use meanwhile
                if was.is_unknown or (was.step_id is not None and was.step_id not in records):
                    raise self._refused(
                        target,
                        "the version before that of this run was pruned",
                        "Take what it published out of use instead: flow.invalidate(...).",
                    )
                found.append(RestoreVersion(target, was.step_id, expect=one.step_id))
            self._refuse_missing(list(records.values()))
        return found

    def _refuse_missing(self, records: Sequence[VersionRecord]) -> None:
        """Refuse to put versions in use whose values are not there any more.

        Raises:
            RestoreRefusedError: names the first one.
            ValueErasedError: it was erased.
        """
        for record in records:
            if record.erased_at is not None:
                self._choice.by_number(self._recorded(record.asset), None, record.step_id)
        there = find_values(self._parts.managers, [one.stored for one in records])
        for record, is_stored in zip(records, there, strict=True):
            if is_stored is False:
                io = record.stored.io if record.stored is not None else "none"
                raise self._refused(
                    (record.asset, record.partition_key),
                    f"the value of version {record.step_id} is not stored any more (IO manager {io!r})",
                    "Compute it again with flow.materialize(..., force=True), or restore another version.",
                )

    def _refused(self, target: Target, why: str, remedy: str) -> RestoreRefusedError:
        return RestoreRefusedError(*target, why, remedy, label=self._label(target) or None)


class AsyncVersionsView(AsyncFlowStone):
    """`flow.aio.versions`: the verbs of `flow.versions`, awaitable."""

    list = awaitable(VersionsView.list)
    get = awaitable(VersionsView.get)
    at = awaitable(VersionsView.at)
    restore = awaitable(VersionsView.restore)
    undo = awaitable(VersionsView.undo)
    erase = awaitable(VersionsView.erase)


def _text(name: str, given: str | None) -> str | None:
    """Return a note of a person.

    Raises:
        OptionsError: it is something else than text.
    """
    value: object = given
    if value is not None and not (isinstance(value, str) and is_storable(value)):
        raise OptionsError(f"{name}={shown(value)}: give a text.")
    return given or None
