"""What an executor may declare that it offers."""

from __future__ import annotations

from enum import StrEnum


class Capability(StrEnum):
    """One thing beyond running a job now.

    Example:
        >>> "cancel" in frozenset({Capability.CANCEL})
        True
    """

    STATUS = "status"
    """Has knowledge of its own about a job: `status(job)`."""
    CANCEL = "cancel"
    """Can reach running work: `cancel(job)`."""
    SCHEDULED_AT = "scheduled_at"
    """Can place work for a later time."""
    CONCURRENT = "concurrent"
    """Runs several jobs at once by itself."""
    SEQUENTIAL = "sequential"
    """Never runs more than one job at a time, whatever is asked for."""
    DURABLE = "durable"
    """Placed work survives this process; committing transactions place what they release."""
    NON_PERSISTENT = "non_persistent"
    """Placed work is lost with this process."""
