"""Charts of the pages about queues: what ended in each minute, and how long steps had waited."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, tzinfo
from functools import partial

from flowstone.engine.insights.fleet import Minute, WaitingMinute
from flowstone.web.charts import Column, Point, Series, bars, plot
from flowstone.web.shown import duration
from flowstone.web.svg import Html, joined


def throughput(minutes: Sequence[Minute], *, title: str = "Steps per minute", zone: tzinfo = UTC) -> Html:
    """Draw what ended in each minute, and below the line what failed.

    Example:
        >>> from datetime import datetime
        >>> chart = throughput([Minute(datetime(2024, 1, 1, tzinfo=UTC), ended=5, failed=2)])
        >>> "3 went well, 2 failed" in str(chart)
        True
    """
    series = [Series("went well"), Series("failed", "bad", below=True)]
    columns = [Column(one.at, (one.ended - one.failed, one.failed)) for one in minutes]
    return bars(series, columns, title=title, zone=zone)


def waiting(waits: Sequence[WaitingMinute], *, zone: tzinfo = UTC) -> Html:
    """Draw how long steps had waited for a worker, by the minute in which they ended: p50 and p95."""
    half = [Point(one.at, one.p50, note=f"{one.number:,} steps") for one in waits]
    nearly_all = [Point(one.at, one.p95, note=f"{one.number:,} steps") for one in waits]
    draw = partial(plot, name="Waited", write=duration, zone=zone, from_zero=True)
    return joined(
        draw(half, title="Half of the steps waited at most"), draw(nearly_all, title="19 of 20 waited at most")
    )
