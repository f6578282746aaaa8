"""What an executor may declare that it offers."""

from __future__ import annotations

from enum import StrEnum


class Capability(StrEnum):
    """One thing beyond running a job now.

    An executor declares all that it does; asking for something that it does not declare is a `CapabilityError`.

    Example:
        >>> "cancel" in frozenset({Capability.CANCEL})
        True
    """

    STATUS = "status"
    """Has knowledge of its own about a job that is not over: `status(job)`, which `flow.runs.status` asks."""
    CANCEL = "cancel"
    """Can reach running work: `cancel(job)`."""
    RETRY = "retry"
    """Follows retry policies: by itself when durable, else with the option `retry=True`."""
    SCHEDULED_AT = "scheduled_at"
    """Can place work for a later time."""
    PRIORITY = "priority"
    """Starts urgent work first: `priority`."""
    QUEUE = "queue"
    """Has named queues: the option `queue` chooses one."""
    MAX_ATTEMPTS = "max_attempts"
    """Takes the number of attempts for one call: the option `max_attempts`."""
    UNIQUE = "unique"
    """Answers a repeated request with the job that it placed before: the option `unique`."""
    TIMEOUT = "timeout_seconds"
    """Takes a limit of the running time for one call: the option `timeout_seconds`."""
    CONCURRENT = "concurrent"
    """Runs several jobs at once by itself."""
    SEQUENTIAL = "sequential"
    """Never runs more than one job at a time, whatever is asked for."""
    DURABLE = "durable"
    """Placed work survives this process; committing transactions place what they release."""
    NON_PERSISTENT = "non_persistent"
    """Placed work is lost with this process."""
