"""Actions on all runs that match a filter: what is about to happen, and what was done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from flowstone.core.run_filter import RunFilter

_TOLERANCE = 0.1


class BulkAction(StrEnum):
    """What is done to all runs that match.

    Example:
        >>> BulkAction("retry").of(RunFilter(kind=("backfill",))).not_state
        ('running', 'completed')
    """

    CANCEL = "cancel"
    RETRY = "retry"
    PRIORITY = "priority"

    def of(self, requested: RunFilter) -> RunFilter:
        """Return the filter without runs to which this cannot be done."""
        excluded = {
            BulkAction.CANCEL: ("completed", "failed", "cancelled"),
            BulkAction.RETRY: ("running", "completed"),
            BulkAction.PRIORITY: ("completed", "failed", "cancelled"),
        }[self]
        return replace(requested, not_state=tuple(dict.fromkeys((*requested.not_state, *excluded))))


@dataclass(frozen=True, slots=True)
class BulkPreview:
    """What an action would be done to.

    Args:
        action: `cancel`, `retry` or `priority`.
        filter: the filter as it is meant: with times instead of ages, without runs to which this cannot be done.
        number: how many runs match at this moment: give it back as `expected`.
    """

    action: str
    filter: str
    number: int


@dataclass(frozen=True, slots=True)
class BulkDone:
    """What an action was done to.

    Args:
        action: `cancel`, `retry` or `priority`.
        filter: the filter.
        number: how many runs, or steps.
        runs: ids of new runs, for a retry.
        skipped: of how many it could not be done, such as runs that ended meanwhile, and why of the first ones.
    """

    action: str
    filter: str
    number: int
    runs: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


def has_moved(expected: int, found: int) -> bool:
    """Return whether a number is so far from the one that a person agreed to that they are asked again.

    Example:
        >>> has_moved(100, 109), has_moved(100, 111), has_moved(3, 4), has_moved(0, 0)
        (False, True, True, False)
    """
    return abs(found - expected) > expected * _TOLERANCE
