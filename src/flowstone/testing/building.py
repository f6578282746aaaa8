"""A context for calling the function of an asset directly, without an app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from flowstone.app.targets import target_of
from flowstone.core.approval import Approval
from flowstone.core.asset import Asset
from flowstone.core.config_type import ConfigError, config_problem, config_schema
from flowstone.core.context import AssetContext, CancellationToken, Resources
from flowstone.core.declaring import shown
from flowstone.core.output import JsonValue
from flowstone.core.partitions import Partition, decode_partition
from flowstone.core.run_details import RunDetails, RunInfo
from flowstone.errors import OptionsError, ResourceError, did_you_mean


def build_context(
    asset: Asset[..., Any],
    *,
    partition: Partition = None,
    resources: Mapping[str, Any] | None = None,
    config: object = None,
    attempt: int = 1,
    approvals: Iterable[Approval] = (),
    tags: Iterable[str] = (),
    metadata: Mapping[str, JsonValue] | None = None,
    run_id: str = "test",
    step_id: int = 1,
    token: int = 1,
    started_at: datetime | None = None,
    cancellation: CancellationToken | None = None,
) -> AssetContext:
    """Return the context that an asset's function would receive, checked as a run would check it.

    Args:
        asset: the asset.
        partition: which partition; has to be one that the asset declares.
        resources: objects for what the asset requires, used as they are.
        config: a dict, or an object of the type that the asset declares; its defaults are filled in.
        attempt: number of the attempt.
        approvals: decisions at the gates of the step.
        tags: tags of the run.
        metadata: metadata of the run.
        run_id: id of the run.
        step_id: id of the step.
        token: fencing token.
        started_at: start of the attempt; the present by default.
        cancellation: cancel it to see how the function takes that.

    Raises:
        OptionsError: `asset` is no asset, or the config cannot be one of it.
        PartitionError: the asset has no such partition, or needs one.
        ResourceError: a resource is missing, or was not required.

    Example:
        >>> from datetime import date
        >>> from flowstone import DailyPartitions, asset
        >>> @asset(partitions=DailyPartitions("2024-01-01"), requires=["shop"])
        ... def sales(context):
        ...     return context.resources.shop[context.partition]
        >>> day = date(2024, 1, 2)
        >>> sales(build_context(sales, partition=day, resources={"shop": {day: 40}}))
        40
    """
    if not isinstance(asset, Asset):
        raise OptionsError(f"build_context({shown(asset)}): give an asset, as @asset makes them.")
    if type(attempt) is not int or attempt < 1:
        raise OptionsError(f"build_context(attempt={shown(attempt)}): give a whole number above 0.")
    _, key = target_of(asset, partition)
    run = RunInfo(
        id=run_id,
        details=RunDetails(tags=tuple(tags), metadata=dict(metadata or {}), config=_document(asset, config)),
    )
    return AssetContext(
        asset=asset,
        partition=decode_partition(key) if key else None,
        key=key,
        run_id=run_id,
        step_id=step_id,
        attempt=attempt,
        token=token,
        started_at=started_at or datetime.now(UTC),
        cancellation=cancellation or CancellationToken(),
        resources=_resources(asset, resources or {}),
        approvals=approvals,
        run=run,
        config=asset.config_in(run.details),
    )


def _document(asset: Asset, config: object) -> Mapping[str, Mapping[str, JsonValue]]:
    if asset.config is None:
        if config is not None:
            raise OptionsError(
                f"build_context(config=...): asset {asset.name!r} takes no config; declare @asset(config=...)."
            )
        return {}
    try:
        return {asset.owner: config_schema(asset.config).document({} if config is None else config)}
    except ConfigError as error:
        raise config_problem(asset.owner, error) from error


def _resources(asset: Asset, given: Mapping[str, Any]) -> Resources:
    for name in given:
        if name not in asset.requires:
            raise ResourceError(
                f"Asset {asset.name!r} requires no resource {name!r}.{did_you_mean(name, asset.requires)} "
                f"Leave it out, or add it: @asset(requires=[{name!r}])."
            )
    missing = [name for name in asset.requires if name not in given]
    if missing:
        raise ResourceError(
            f"Asset {asset.name!r} requires {', '.join(map(repr, missing))}: pass "
            f"build_context(..., resources={{{missing[0]!r}: ...}})."
        )
    return Resources(given, asset.name)
