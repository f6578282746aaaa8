"""`flow.retention`: forgetting what nothing needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from flowstone.app.wiring import Parts, control_of
from flowstone.core.output import StoredOutput
from flowstone.errors import OptionsError

_OLDEST = timedelta(days=365 * 1000)
"""More than any run is old, and still a time that PostgreSQL can subtract."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted.

    Args:
        steps: number of steps, with their attempts, lineage and values.
        runs: number of runs of which nothing was left.
    """

    steps: int
    runs: int


class RetentionView:
    """Deletes old history; what `load` returns and what it was made from is always kept."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def prune(self, *, older_than: timedelta | None = None) -> Pruned:
        """Delete steps of runs that ended long ago, with their stored values.

        Kept are current versions, everything they were made from, and what reused steps stand on.

        Args:
            older_than: age of the end of a run; the setting `retention_days` by default.

        Raises:
            OptionsError: `older_than` is negative.
            ExecutorUnavailableError: this app has no database.
        """
        age = timedelta(days=self._parts.settings.retention_days) if older_than is None else older_than
        if age < timedelta(0):
            raise OptionsError(f"older_than={older_than!r}: give a positive time.")
        control = control_of(self._parts)
        seconds = min(age, _OLDEST).total_seconds()
        return Pruned(*control.prune(older_than_seconds=seconds, discard=self._discard))

    def _discard(self, outputs: Sequence[StoredOutput]) -> None:
        for stored in outputs:
            manager = self._parts.managers.get(stored.io)
            if manager is not None:
                # a value that cannot be deleted now is an orphan for the manager's own sweep
                with suppress(OSError):
                    manager.discard(stored)
