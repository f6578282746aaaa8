"""What worker nodes get from the durable queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

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
        shape: digest of the shape that its asset had where it was placed; None when that was not recorded.
        keys: digest of the partitions that it had there; see `flowstone.core.shape.Shapes.keys_digest`.
    """

    job_id: int
    claim: Claim
    snoozes: int
    age_seconds: float
    deps_timeout_seconds: float
    shape: str | None = None
    keys: str | None = None


type KnownAssets = Mapping[str, Mapping[str, Any]]
"""The shapes of the assets that a worker knows, as JSON, by name."""


class LeftToOthers:
    """What a worker has drawn and cannot run as it was placed: it draws that no more, so that others get it.

    Whole assets that it does not know; of assets that it declares otherwise, what one run placed; single steps.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._assets: dict[str, float] = {}
        self._runs: dict[str, tuple[str, str, float]] = {}
        self._steps: dict[int, tuple[str, str, float]] = {}

    def __bool__(self) -> bool:
        return bool(self._assets or self._runs or self._steps)

    def add(self, job: FetchedJob, mine: Mapping[str, Any] | None, *, now: float) -> None:
        """Leave a step, and what cannot be run for the same reason.

        Args:
            job: the step.
            mine: the shape of its asset here; None when it is not known here.
            now: seconds of a clock that only goes on.
        """
        claim = job.claim
        until = now + max(0.0, job.deps_timeout_seconds - job.age_seconds)
        with self._lock:
            if mine is None:
                self._assets.setdefault(claim.asset, until)
            elif job.shape is not None and job.shape != mine["digest"]:
                self._runs.setdefault(f"{claim.run_id} {claim.asset}", (claim.asset, job.shape, until))
            else:
                self._steps[claim.step_id] = claim.asset, mine["partitions"], until

    def forget(self, others: Sequence[KnownAssets], *, now: float) -> None:
        """Draw again what has waited for as long as it may, and what no other worker can run either.

        A worker has to say so in the end.
        """
        with self._lock:
            self._assets = {
                name: until for name, until in self._assets.items() if now < until or can_run(others, name, None)
            }
            self._runs = {
                run: kept for run, kept in self._runs.items() if now < kept[2] or can_run(others, *kept[:2])
            }
            self._steps = {
                step: kept for step, kept in self._steps.items() if now < kept[2] or other_keys(others, *kept[:2])
            }

    def parameters(self) -> dict[str, object]:
        """Return what a statement leaves out."""
        with self._lock:
            return {
                "left": bool(self),
                "left_assets": list(self._assets),
                "left_runs": list(self._runs),
                "left_steps": list(self._steps),
            }


def can_run(others: Sequence[KnownAssets], asset: str, shape: str | None) -> bool:
    """Whether one of these workers knows an asset, in the shape in which a step of it was placed."""
    return any(asset in one and shape in (None, one[asset]["digest"]) for one in others)


def other_keys(others: Sequence[KnownAssets], asset: str, partitions: str) -> bool:
    """Whether one of these workers knows an asset with other keys than these."""
    return any(asset in one and one[asset]["partitions"] != partitions for one in others)
