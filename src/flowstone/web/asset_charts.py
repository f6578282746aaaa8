"""The charts of the page of an asset: how long its versions took, and the numbers that they recorded."""

from __future__ import annotations

from collections.abc import Sequence

from flowstone.core.insights.details import RecordedNumber
from flowstone.core.insights.versions import VersionLine
from flowstone.web.charts import Point
from flowstone.web.registry import url


def durations(versions: Sequence[VersionLine]) -> list[Point]:
    """Return a point for each version, the oldest first.

    Args:
        versions: newest first.
    """
    return [
        Point(
            at=one.committed_at,
            value=one.seconds,
            note=" ".join(
                part for part in (one.partition, f"code {one.code_version}" if one.code_version else "") if part
            ),
            href=url("partition", asset=one.asset, partition=one.partition or None, version=one.version),
        )
        for one in reversed(versions)
        if one.committed_at is not None
    ]


def recorded(asset: str, points: Sequence[RecordedNumber]) -> list[Point]:
    """Return a point for each number.

    Args:
        asset: the asset.
        points: the oldest first.
    """
    return [
        Point(
            at=one.at,
            value=one.value,
            note=one.partition,
            href=url("partition", asset=asset, partition=one.partition or None, version=one.version),
        )
        for one in points
    ]
