"""The Oban worker class that our jobs name."""

from __future__ import annotations


class StepWorker:
    """Stands in the `worker` column of our jobs.

    Our own nodes never call it: they take the job and start the step's attempt in one transaction. A node of
    plain Oban that was pointed at one of our queues comes here, and hands the job back untouched.
    """

    async def process(self, job: object) -> object:
        """Put the job back for a FlowStone worker."""
        from oban import Snooze

        return Snooze(seconds=60)
