"""The assets: raw tables by month, a summary of each month, what all months say together, one HTML report.

    commits ──────┬─> month_summary ───────────────────────────┐
    file_changes ─┘                                            ├─> report
    commits ──────> authors, weekly_activity, working_hours ───┤
    file_changes ─> hotspots, coupled_files ───────────────────┘

A worker process rebuilds the same app with `from_environment`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pyarrow as pa

from flowstone import Asset, AssetContext, FlowStone, RetryPolicy, Settings, StaticPartitions, asset
from flowstone.io import FilesystemIO, JsonSerializer, ParquetSerializer, TextSerializer
from git_history import analysis, tables
from git_history.analysis import MonthSummary
from git_history.errors import RepositoryError
from git_history.report import Findings, render
from git_history.repository import Repository

type ByMonth = Mapping[date, pa.Table]

REPOSITORY_VARIABLE = "FLOWSTONE_DEMO_REPO"
STORAGE_VARIABLE = "FLOWSTONE_DEMO_DATA"
SINCE_VARIABLE = "FLOWSTONE_DEMO_SINCE"

PATIENT = RetryPolicy(max_attempts=3, backoff_seconds=2, fatal_on=(RepositoryError,))


def _month(context: AssetContext) -> date:
    assert isinstance(context.partition, date)
    return context.partition


def monthly_assets(months: StaticPartitions) -> list[Asset]:
    """Declare the assets that exist once for each month; which months there are, only the repository knows.

    Args:
        months: first days of the months that have commits.
    """

    @asset(partitions=months, io="parquet", requires=["repository"], group="raw", retry=PATIENT)
    def commits(context: AssetContext) -> pa.Table:
        """The commits of a month, parents before children."""
        return tables.commits_table(context.resources["repository"], _month(context))

    @asset(partitions=months, io="parquet", requires=["repository"], group="raw", retry=PATIENT)
    def file_changes(context: AssetContext) -> pa.Table:
        """The files that the commits of a month changed."""
        return tables.file_changes_table(context.resources["repository"], _month(context))

    @asset(partitions=months, io="json", group="months")
    def month_summary(commits: pa.Table, file_changes: pa.Table) -> MonthSummary:
        """Commits, people, files and lines of a month in numbers."""
        return analysis.month_summary(commits, file_changes)

    return [commits, file_changes, month_summary]


@asset(io="parquet", group="history")
def authors(commits: ByMonth) -> pa.Table:
    """Everybody who wrote a commit, most active first."""
    return analysis.authors(tables.in_order(commits))


@asset(io="parquet", group="history")
def weekly_activity(commits: ByMonth) -> pa.Table:
    """Commits and people by week."""
    return analysis.weekly_activity(tables.in_order(commits))


@asset(io="parquet", group="history")
def working_hours(commits: ByMonth) -> pa.Table:
    """Commits by weekday and hour, on the authors' clocks."""
    return analysis.working_hours(tables.in_order(commits))


@asset(io="parquet", group="history")
def hotspots(file_changes: ByMonth) -> pa.Table:
    """How often each file was changed, through its renames."""
    return analysis.hotspots(tables.in_order(file_changes))


@asset(io="parquet", group="history")
def coupled_files(file_changes: ByMonth) -> pa.Table:
    """Pairs of files that change in the same commits."""
    return analysis.coupled_files(tables.in_order(file_changes))


@asset(io="text", requires=["repository", "page"], group="report")
def report(
    context: AssetContext,
    month_summary: Mapping[date, MonthSummary],
    authors: pa.Table,
    hotspots: pa.Table,
    coupled_files: pa.Table,
    weekly_activity: pa.Table,
    working_hours: pa.Table,
) -> str:
    """The HTML page that shows it all; where it is served, the dashboard links to it."""
    if page := context.resources["page"]:
        context.metadata["page"] = page
    findings = Findings(month_summary, authors, hotspots, coupled_files, weekly_activity, working_hours)
    return render(context.resources["repository"].name, findings)


HISTORY = [authors, weekly_activity, working_hours, hotspots, coupled_files, report]


MONTHLY = "group:raw or group:months"
"""What exists once for each month, as a selection."""
OVERALL = "group:history or group:report"
"""What is made from all months, as a selection."""


def build(
    repo_path: str | Path,
    storage_dir: str | Path,
    since: date | None = None,
    *,
    page: str = "",
    settings: Settings | None = None,
) -> FlowStone:
    """Assemble the app for one repository.

    Runs are recorded where `FLOWSTONE_DATABASE_URL` says, in memory without it.

    Args:
        repo_path: a clone of the repository to analyse, with its whole history.
        storage_dir: where the tables and the report are stored.
        since: leave out months before this day; default: none.
        page: address at which the report is served, if it is; recorded with it.
        settings: instead of those of the environment.

    Raises:
        RepositoryError: the path is no repository that can be analysed, or it has no commit since then.
    """
    months = months_since(Repository.open(repo_path), since)
    values = Path(storage_dir) / "values"
    return FlowStone(
        [*monthly_assets(StaticPartitions(months)), *HISTORY],
        io={
            "parquet": FilesystemIO(values, serializer=ParquetSerializer(), name="parquet"),
            "json": FilesystemIO(values, serializer=JsonSerializer(), name="json"),
            "text": FilesystemIO(values, serializer=TextSerializer(), name="text"),
        },
        resources={"repository": lambda: Repository.open(repo_path), "page": page},
        settings=settings,
    )


def months_since(repository: Repository, since: date | None) -> list[date]:
    """Return the months to analyse.

    Raises:
        RepositoryError: there is none.
    """
    months = [month for month in repository.months() if since is None or month >= since.replace(day=1)]
    if not months:
        raise RepositoryError(f"{str(repository.path)!r} has no commits since {since}: choose an earlier date.")
    return months


def from_environment() -> FlowStone:
    """Assemble the app that the environment describes; worker processes load this.

    Raises:
        RepositoryError: a variable is missing, or the repository cannot be analysed.
    """
    for variable in (REPOSITORY_VARIABLE, STORAGE_VARIABLE):
        if not os.environ.get(variable):
            raise RepositoryError(f"The environment variable {variable} is not set: give it a path.")
    since = os.environ.get(SINCE_VARIABLE)
    return build(
        os.environ[REPOSITORY_VARIABLE],
        os.environ[STORAGE_VARIABLE],
        since=date.fromisoformat(since) if since else None,
    )
