"""What a worker node does with the jobs it took: resolve their inputs together, perform each in a thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flowstone.core.context import CancellationToken
from flowstone.core.graph import AssetGraph
from flowstone.core.outcome import AttemptOutcome, Failed, Snoozed, Succeeded
from flowstone.core.queueing import FetchedJob
from flowstone.core.state import State
from flowstone.core.step import Completion, Target
from flowstone.core.text import clean_text
from flowstone.engine.failures import failure
from flowstone.engine.inline import DEFAULT_RETRY
from flowstone.engine.inputs import InputReader, ResolvedInputs, waits_for
from flowstone.engine.runner import StepRunner
from flowstone.errors import DatabaseError, UnknownAssetError
from flowstone.protocols import Standings

_UNKNOWN_PAUSE_SECONDS = 5.0
_SOON_SECONDS = 1.0
_SOON_PART = 10


@dataclass(slots=True)
class PreparedJob:
    """A job with the exact versions that it will read; None when this worker does not know the asset."""

    fetched: FetchedJob
    inputs: ResolvedInputs | None


class NodeWork:
    """Prepares and performs jobs for a worker node.

    Args:
        graph: the assets that this worker knows.
        reader: resolves inputs.
        runner: performs attempts.
        snooze_seconds: how long a step waits before it looks for missing inputs again; for inputs that are under
            way that is shorter at first.
        standings: tells which of them are under way.
    """

    def __init__(
        self,
        graph: AssetGraph,
        *,
        reader: InputReader,
        runner: StepRunner,
        snooze_seconds: float,
        standings: Standings,
    ) -> None:
        self._graph = graph
        self._reader = reader
        self._runner = runner
        self._snooze_seconds = snooze_seconds
        self._standings = standings

    def prepare(self, jobs: Sequence[FetchedJob]) -> list[PreparedJob]:
        """Resolve the inputs of several jobs in one question to the catalog."""
        known = [job for job in jobs if job.claim.asset in self._graph]
        found = self._reader.resolve([job.claim for job in known])
        inputs = dict(zip((job.job_id for job in known), found, strict=True))
        return [PreparedJob(job, inputs.get(job.job_id)) for job in jobs]

    def perform(self, job: PreparedJob, token: CancellationToken) -> Completion:
        """Run one attempt; never raises."""
        try:
            return self._perform(job, token)
        except DatabaseError as error:
            pause = Snoozed(_UNKNOWN_PAUSE_SECONDS, clean_text(f"its worker could not ask the database: {error}"))
            return self._not_now(job.fetched, pause)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a failure of this step
            return self._not_now(job.fetched, failure(error, None))

    def _perform(self, job: PreparedJob, token: CancellationToken) -> Completion:
        claim = job.fetched.claim
        if job.inputs is None:
            return self._not_now(job.fetched, self._unknown(job.fetched))
        if job.inputs.missing and job.inputs.skip is None:
            return self._not_now(job.fetched, self._not_ready(job.fetched, job.inputs))
        policy = self._graph[claim.asset].retry or DEFAULT_RETRY
        return _recorded(self._runner.perform(claim, job.inputs, token, policy=policy))

    def _not_now(self, job: FetchedJob, outcome: AttemptOutcome) -> Completion:
        return Completion(job.claim, outcome, (), job.claim.started_at)

    def _unknown(self, job: FetchedJob) -> AttemptOutcome:
        """Leave an asset of a newer deployment to workers that know it, as long as there may be some."""
        if self._may_wait(job, _UNKNOWN_PAUSE_SECONDS):
            return Snoozed(_UNKNOWN_PAUSE_SECONDS, f"no worker knew the asset {job.claim.asset!r} so far")
        return failure(UnknownAssetError(job.claim.asset, self._graph.assets), None)

    def _not_ready(self, job: FetchedJob, inputs: ResolvedInputs) -> AttemptOutcome:
        if self._may_wait(job, self._snooze_seconds):
            doing = self._under_way(inputs.missing)
            pause = self._snooze_seconds
            if len(doing) == len(inputs.missing):
                # somebody is at it: look soon, and less often the longer that takes
                pause = min(pause, max(_SOON_SECONDS, job.age_seconds / _SOON_PART))
            return Snoozed(pause, waits_for(inputs.missing, doing), for_inputs=True)
        claim = job.claim
        return failure(
            self._graph.not_ready((claim.asset, claim.partition), inputs.missing, claim.started_at), None
        )

    def _under_way(self, targets: Sequence[Target]) -> dict[Target, State]:
        """Return the states of those targets of which a step is not over."""
        found = self._standings.standing(targets)
        newest = {target: one.newest for target, one in found.items() if one.newest is not None}
        return {target: step.state for target, step in newest.items() if not step.state.is_terminal}

    def _may_wait(self, job: FetchedJob, pause: float) -> bool:
        """Bounded by time, and by count in case a clock is set back."""
        most = 10 + 2 * job.deps_timeout_seconds / min(pause, _SOON_SECONDS)
        return job.age_seconds + pause <= job.deps_timeout_seconds and job.snoozes < most


def _recorded(completion: Completion) -> Completion:
    """Return what is committed, without the value and the error: nobody here waits for them."""
    outcome = completion.outcome
    if isinstance(outcome, Failed):
        outcome.take_exception()
    elif isinstance(outcome, Succeeded):
        return replace(completion, outcome=Succeeded(outcome.stored, None))
    return completion
