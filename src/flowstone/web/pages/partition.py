"""One partition and its versions: what is in use, what it is made of, which were before; restore and preview."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone.app.targets import read_recorded, recorded_asset
from flowstone.core.insights.versions import TargetDetail, VersionDetail, VersionLine
from flowstone.core.paging import Page
from flowstone.core.partitions import Partition
from flowstone.engine.insights.preview import ValuePreview
from flowstone.errors import VersionNotFoundError, command
from flowstone.web.fields import number
from flowstone.web.problems import Problem
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url


@dataclass(frozen=True, slots=True)
class PartitionQuery:
    """Which partition, and which version of it.

    Args:
        asset: the asset.
        partition: as people write it; empty for an asset without partitions.
        version: the version that is shown; the one in use by default.
        next: the cursor of a page of versions.
    """

    asset: str
    partition: str = ""
    version: int | None = number(None)
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionModel:
    """The page.

    Args:
        target: how the partition stands, and why.
        version: the version that is shown; None when there is none.
        versions: all versions, newest first.
        previews: whether values are shown to operators here.
        restore: the equal command; empty when the shown version is in use.
    """

    target: TargetDetail
    version: VersionDetail | None
    versions: Page[VersionLine]
    previews: bool
    restore: str = ""


@page(
    "/partition",
    template="partition.html",
    title="Partition",
    query=PartitionQuery,
    role=Role.VIEWER,
    rail="Assets",
)
def partition(request: PageRequest[PartitionQuery]) -> PartitionModel:
    """Return how a partition stands, a version of it, and the others."""
    query, insights = request.query, request.insights
    key = _partition(request, query.asset, query.partition)
    target = insights.target(query.asset, key)
    versions = insights.versions(query.asset, key, limit=20, after=query.next)
    chosen = query.version if query.version is not None else target.version
    if chosen is None and versions.items:
        chosen = versions.items[0].version
    version = insights.version(chosen) if chosen is not None else None
    if version is not None and (version.line.asset, version.line.partition) != (target.asset, target.partition):
        raise Problem(404, f"Version {chosen} is none of this partition.", "Choose one of the list.")
    restore = ""
    if version is not None and version.line.state in ("earlier", "invalidated"):
        restore = command(
            "versions restore", target.asset, str(version.line.version), partition=target.partition or None
        )
    return PartitionModel(
        target=target,
        version=version,
        versions=versions,
        previews=request.flow.settings.previews,
        restore=restore,
    )


def _partition(request: PageRequest[PartitionQuery], asset: str, text: str) -> Partition:
    catalog = request.flow.parts.store.catalog
    found = recorded_asset(request.flow.graph, catalog, asset)
    return read_recorded(found, text, catalog) if text or found.partitions is not None else None


@dataclass(frozen=True, slots=True)
class PreviewQuery:
    """Which value.

    Args:
        version: its number.
    """

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewModel:
    """A value, as far as it may be shown.

    Args:
        line: the version.
        value: the value.
    """

    line: VersionLine
    value: ValuePreview


@page(
    "/partition/preview",
    template="preview.html",
    title="Value",
    query=PreviewQuery,
    role=Role.OPERATOR,
    rail="Assets",
)
def preview(request: PageRequest[PreviewQuery]) -> PreviewModel:
    """Return a bounded text of a value, where previews are switched on."""
    if not request.flow.settings.previews:
        raise Problem(
            403,
            "Values are not shown here.",
            "Whoever runs this app can set previews = true in its settings; flow.load(..., version=...) loads it.",
        )
    line = request.insights.version(request.query.version).line
    return PreviewModel(line=line, value=request.insights.preview(request.query.version))


@dataclass(frozen=True, slots=True)
class RestoreForm:
    """Which version is to be in use.

    Args:
        version: its number.
        expect: the version that was in use when the person decided; 0 for none.
        reason: why, for the audit log.
        force: also while a step of the target is not over.
    """

    version: int
    expect: int | None = number(None)
    reason: str = ""
    force: bool = False


def _line(call: ActionCall[RestoreForm]) -> VersionLine:
    try:
        return call.flow.insights.version(call.form.version).line
    except VersionNotFoundError as error:
        raise Problem(404, str(error), "Open the partition again.") from error


def _name(line: VersionLine) -> str:
    return f"{line.asset} [{line.partition}]" if line.partition else line.asset


def _confirm_restore(call: ActionCall[RestoreForm]) -> Confirm:
    line = _line(call)
    now = call.flow.insights.target(line.asset, _read(call, line)).version
    instead = f"in place of version {now}" if now is not None else "where nothing is in use now"
    return Confirm(
        f"Put version {line.version} of {_name(line)} in use again?",
        button="Restore",
        details=(
            f"It is in use {instead}. Nothing is computed, and nothing is deleted.",
            "What was made from the version before becomes stale, and conditions compute it again.",
        ),
        form=RestoreForm(line.version, expect=now or 0, force=call.form.force),
        asks=(("reason", "Reason, for the audit log", False),),
    )


def _read(call: ActionCall[RestoreForm], line: VersionLine) -> Partition:
    catalog = call.flow.parts.store.catalog
    found = recorded_asset(call.flow.graph, catalog, line.asset)
    return read_recorded(found, line.partition, catalog) if line.partition else None


@action(
    "/partition/restore", title="Restore a version", form=RestoreForm, role=Role.OPERATOR, confirm=_confirm_restore
)
def restore(call: ActionCall[RestoreForm]) -> Done:
    """Put an earlier version in use again, unless it changed since the person decided."""
    line, form = _line(call), call.form
    done = call.flow.versions.restore(
        line.asset,
        _read(call, line),
        form.version,
        reason=form.reason or None,
        expect=form.expect or None,
        force=form.force,
    )
    message = f"{done}." if done.changed else f"{_name(line)}: version {line.version} is in use already."
    if done.stale:
        message += f" {len(done.stale):,} versions made from the one before are stale now."
    return Done(message, url("partition", asset=line.asset, partition=line.partition or None))


@dataclass(frozen=True, slots=True)
class UndoForm:
    """Which run is undone.

    Args:
        run: its id.
        reason: why, for the audit log.
    """

    run: str
    reason: str = ""


def _confirm_undo(call: ActionCall[UndoForm]) -> Confirm:
    planned = call.flow.versions.undo(call.form.run, dry_run=True)
    details = [f"{planned.restored:,} earlier versions are in use again."]
    if planned.out_of_use:
        details.append(
            f"{planned.out_of_use:,} targets had nothing in use before: nothing is in use for them then."
        )
    if planned.left:
        details.append(f"{planned.left:,} versions of the run have been replaced already, and stay as they are.")
    details.append("All of it, or nothing. Nothing is deleted.")
    return Confirm(
        f"Undo what run {planned.run_id} published?",
        "Undo",
        details=tuple(details),
        asks=(("reason", "Reason, for the audit log", False),),
        danger=True,
    )


@action("/run/undo", title="Undo what a run published", form=UndoForm, role=Role.OPERATOR, confirm=_confirm_undo)
def undo(call: ActionCall[UndoForm]) -> Done:
    """Put in use again what was in use before a run."""
    done = call.flow.versions.undo(call.form.run, reason=call.form.reason or None)
    message = f"{done.restored:,} earlier versions are in use again"
    message += f", {done.out_of_use:,} targets have nothing in use." if done.out_of_use else "."
    return Done(message, url("run", id=done.run_id))
