"""What worker nodes get from the durable queue."""

from __future__ import annotations

from dataclasses import dataclass

from flowstone.core.step import Claim


@dataclass(slots=True)
class FetchedJob:
    """A job that was taken from the queue, with the attempt that it started.

    Args:
        job_id: row of the queue.
        claim: the attempt.
        snoozes: how often the step gave its attempt back.
        age_seconds: time since the step was placed.
        deps_timeout_seconds: how long the step may wait for inputs from outside its run.
    """

    job_id: int
    claim: Claim
    snoozes: int
    age_seconds: float
    deps_timeout_seconds: float
