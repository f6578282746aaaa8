"""Checks: what they found, failing ones first; one check with its history; checking a committed value again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowstone.app.targets import find_asset
from flowstone.core.definition import read_partition
from flowstone.core.paging import Page
from flowstone.engine.insights.decisions import CheckFinding, CheckSummary
from flowstone.web.fields import number
from flowstone.web.registry import ActionCall, Confirm, Done, PageRequest, Role, action, page, url


@dataclass(frozen=True, slots=True)
class ChecksQuery:
    """Which checks are shown.

    Args:
        asset: only of this asset.
        state: only those that fail, warn, pass, or never ran.
        next: where the page begins.
        limit: how many.
    """

    asset: str | None = None
    state: Literal["failed", "stale", "completed", "unstarted"] | None = None
    next: str | None = None
    limit: int = number(50, minimum=1, maximum=100)


@dataclass(frozen=True, slots=True)
class ChecksModel:
    """The checks of an app.

    Args:
        failing: failures that still stand, the newest first.
        page: the declared checks.
    """

    failing: Page[CheckFinding]
    page: Page[CheckSummary]


@page("/checks", template="checks.html", query=ChecksQuery, role=Role.VIEWER, title="Checks", rail="Assets")
def checks(request: PageRequest[ChecksQuery]) -> ChecksModel:
    """Return the declared checks with their last results, those that fail first."""
    query, insights = request.query, request.insights
    found = insights.checks(asset=query.asset, state=query.state, cursor=query.next, limit=query.limit)
    return ChecksModel(insights.checks_failing(limit=15), found)


@dataclass(frozen=True, slots=True)
class CheckQuery:
    """Which check is shown.

    Args:
        asset: whose check.
        name: of the check; all of the asset without it.
        failed: only failures.
        limit: how many results.
    """

    asset: str
    name: str | None = None
    failed: bool = False
    limit: int = number(50, minimum=1, maximum=200)


@dataclass(frozen=True, slots=True)
class CheckModel:
    """One check, or all of an asset, with the last results.

    Args:
        asset: whose.
        name: of the check.
        declared: what is declared, of this name.
        page: the results, newest first.
    """

    asset: str
    name: str | None
    declared: tuple[CheckSummary, ...]
    page: Page[CheckFinding]


@page("/check", template="check.html", query=CheckQuery, role=Role.VIEWER, title="Check", rail="Assets")
def check(request: PageRequest[CheckQuery]) -> CheckModel:
    """Return the last results of a check."""
    query, insights = request.query, request.insights
    found = insights.check_findings(query.asset, query.name, failed=query.failed, limit=query.limit)
    declared = insights.checks(asset=query.asset, limit=100).items
    mine = tuple(one for one in declared if query.name in (None, one.check))
    return CheckModel(query.asset, query.name, mine, found)


@dataclass(frozen=True, slots=True)
class CheckAgain:
    """What is checked again.

    Args:
        asset: whose committed value.
        partition: as people write it; nothing without partitions.
    """

    asset: str
    partition: str | None = None


def _again(call: ActionCall[CheckAgain]) -> Confirm:
    details = "The committed value is loaded in this process and all checks of the asset are run on it."
    return Confirm(f"Check {call.form.asset} again?", "Run the checks", (details,))


@action("/checks/run", title="Run checks", form=CheckAgain, role=Role.OPERATOR, confirm=_again)
def run(call: ActionCall[CheckAgain]) -> Done:
    """Run the checks of an asset on its committed value."""
    form = call.form
    definition = find_asset(call.flow.graph, form.asset).partitions
    partition = None if definition is None else read_partition(definition, form.partition or "")
    found = call.flow.checks.run(form.asset, partition=partition)
    failed = [one.check for one in found if not one.passed]
    outcome = f"{', '.join(failed[:5])} failed" if failed else "all passed"
    return Done(f"Ran {len(found):,} checks of {form.asset}: {outcome}.", url("check", asset=form.asset))
