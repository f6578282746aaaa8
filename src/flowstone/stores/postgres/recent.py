"""What this process committed a moment ago: mostly the inputs of the steps that it starts next.

A step of a backfill often starts where its inputs were computed. What they are need not be read again then: a
version never changes, and a run reads its own results whatever else is in use. Only whether a version was erased
meanwhile is still a question to the database (`catalog/kept`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from flowstone.core.outcome import Succeeded
from flowstone.core.partitions import PartitionKey
from flowstone.core.step import AttemptResult, CommittedOutput

_MAX_VERSIONS = 4000
_MAX_BYTES = 8 * 2**20

type OwnTarget = tuple[str, str, PartitionKey]
"""A run, and a target in it."""


class RecentVersions:
    """The versions that this process committed last, by run and target; each method may be called from any thread.

    Args:
        max_versions: how many are kept.
        max_bytes: how many bytes of small values are kept with them.

    Example:
        >>> recent = RecentVersions()
        >>> recent.find(("run", "orders", "d:2024-01-01")) is None
        True
    """

    def __init__(self, *, max_versions: int = _MAX_VERSIONS, max_bytes: int = _MAX_BYTES) -> None:
        self._max_versions = max_versions
        self._max_bytes = max_bytes
        self._versions: dict[OwnTarget, CommittedOutput] = {}
        self._bytes = 0
        self._guard = threading.Lock()

    def add(self, committed: Iterable[AttemptResult]) -> None:
        """Keep what attempts committed; the oldest ones go when there are too many.

        Args:
            committed: attempts whose success is committed.
        """
        with self._guard:
            for one in committed:
                # metadata are read back as JSON has them; of those that have none there is nothing to convert
                if isinstance(one.outcome, Succeeded) and not (stored := one.outcome.stored).metadata:
                    attempt = one.attempt
                    target = attempt.run_id, attempt.asset, attempt.partition_key
                    self._forget(target)
                    self._versions[target] = CommittedOutput(attempt.step_id, stored, attempt.started_at, own=True)
                    self._bytes += len(stored.payload or b"")
            while len(self._versions) > self._max_versions or self._bytes > self._max_bytes:
                self._forget(next(iter(self._versions)))

    def find(self, target: OwnTarget) -> CommittedOutput | None:
        """Return the version that a run committed of a target, if it is kept."""
        return self._versions.get(target)

    def _forget(self, target: OwnTarget) -> None:
        gone = self._versions.pop(target, None)
        if gone is not None:
            self._bytes -= len(gone.stored.payload or b"")
