"""What asset checks ask of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from flowstone.core.check_record import CheckRecord


class CheckStore(Protocol):
    """Keeps the results of checks.

    Those of an attempt come with its `Completion` and are recorded in the transaction that ends it, if that
    attempt is still the newest one of its step.
    """

    def record(self, records: Sequence[CheckRecord]) -> int:
        """Record what checks of committed versions found; return how many of the steps were still known."""

    def results(
        self,
        asset: str,
        *,
        partition: str | None = None,
        check: str | None = None,
        failed: bool = False,
        limit: int = 100,
    ) -> list[CheckRecord]:
        """Return the results of an asset's checks, newest first.

        Args:
            asset: whose.
            partition: only of this encoded partition.
            check: only of the check of this name.
            failed: only those that did not pass.
            limit: how many at most.
        """

    def latest(
        self,
        asset: str | None = None,
        *,
        partition: str | None = None,
        failed: bool = False,
        limit: int = 1000,
    ) -> list[CheckRecord]:
        """Return the newest result of each check of each partition, ordered by asset, partition and check.

        Args:
            asset: whose; None for all.
            partition: only of this encoded partition.
            failed: only checks whose newest result is a failure.
            limit: how many at most.
        """

    def of_steps(self, step_ids: Sequence[int]) -> dict[int, tuple[CheckRecord, ...]]:
        """Return the newest result of each check of each step, in the order in which they first ran."""
