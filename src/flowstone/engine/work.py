"""What a worker node does with the jobs it took: resolve their inputs together, perform each in a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flowstone.core.context import CancellationToken
from flowstone.core.graph import AssetGraph
from flowstone.core.outcome import AttemptOutcome, Failed, Snoozed, Succeeded
from flowstone.core.queueing import FetchedJob, KnownAssets, can_run, other_keys
from flowstone.core.shape import Shapes
from flowstone.core.state import State
from flowstone.core.step import Claim, Completion, Target
from flowstone.core.text import clean_text
from flowstone.engine.failures import failure
from flowstone.engine.inline import DEFAULT_RETRY
from flowstone.engine.inputs import InputReader, ResolvedInputs, waits_for
from flowstone.engine.runner import StepRunner
from flowstone.errors import DatabaseError, StepChangedError, UnknownAssetError
from flowstone.protocols import TargetStatuses

_PAUSE_SECONDS = 5.0
_SOON_SECONDS = 1.0
_SOON_PART = 10


@dataclass(slots=True)
class PreparedJob:
    """A job with the exact versions that it will read, or why it cannot be run as it was placed."""

    fetched: FetchedJob
    inputs: ResolvedInputs | None
    problem: Exception | None = None


class NodeWork:
    """Prepares and performs jobs for a worker node.

    Args:
        graph: the assets that this worker knows.
        reader: resolves inputs.
        runner: performs attempts.
        snooze_seconds: how long a step waits before it polls for missing inputs again; for inputs that are under
            way that is shorter at first.
        statuses: knows which of them are in flight.
        shapes: what is declared of the assets here.
        others: returns what the other living workers know.
        on_begin: called for each attempt whose function is about to be called.
    """

    def __init__(
        self,
        graph: AssetGraph,
        *,
        reader: InputReader,
        runner: StepRunner,
        snooze_seconds: float,
        target_statuses: TargetStatuses,
        shapes: Shapes,
        others: Callable[[], Sequence[KnownAssets]],
        on_begin: Callable[[Claim], None] | None = None,
    ) -> None:
        self._on_begin = on_begin
        self._graph = graph
        self._reader = reader
        self._runner = runner
        self._snooze_seconds = snooze_seconds
        self._target_statuses = target_statuses
        self._shapes = shapes
        self._others = others

    def for_others(self, jobs: Sequence[FetchedJob]) -> list[tuple[FetchedJob, str]]:
        """Return the jobs that this worker leaves to others, with the reason.

        What cannot be run here as it was placed waits for a worker that can. When there is none, and the step has
        waited for as long as it may, a worker has to say so: it is not left then, and `perform` refuses it.
        """
        left = []
        others: Sequence[KnownAssets] | None = None
        for job in jobs:
            problem = self._shapes.problem(job)
            if problem is None:
                continue
            if job.age_seconds > job.deps_timeout_seconds:
                others = self._others() if others is None else others
                if not self._another_can(job, others):
                    continue
            left.append((job, f"left to a worker with the code that placed it: {_short(problem)}"))
        return left

    def known(self, asset: str) -> dict[str, Any] | None:
        """Return the shape of an asset, as others see it; None when it is not known here."""
        return self._shapes[asset].to_json() if asset in self._graph else None

    def _another_can(self, job: FetchedJob, others: Sequence[KnownAssets]) -> bool:
        asset, mine = job.claim.asset, self.known(job.claim.asset)
        if mine is None or job.shape not in (None, mine["digest"]):
            return can_run(others, asset, job.shape)
        return other_keys(others, asset, mine["partitions"])

    def prepare(self, jobs: Sequence[FetchedJob]) -> list[PreparedJob]:
        """Resolve the inputs of several jobs in one question to the catalog."""
        problems = {job.job_id: self._shapes.problem(job) for job in jobs}
        known = [job for job in jobs if problems[job.job_id] is None]
        inputs = dict(
            zip(
                (job.job_id for job in known),
                self._reader.resolve([job.claim for job in known]),
                strict=True,
            )
        )
        return [PreparedJob(job, inputs.get(job.job_id), problems[job.job_id]) for job in jobs]

    def perform(self, job: PreparedJob, token: CancellationToken) -> Completion:
        """Run one attempt; never raises."""
        try:
            return self._perform(job, token)
        except DatabaseError as error:
            pause = Snoozed(_PAUSE_SECONDS, clean_text(f"its worker could not ask the database: {error}"))
            return self._not_now(job.fetched, pause)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a failure of this step
            return self._not_now(job.fetched, failure(error, None))

    def _perform(self, job: PreparedJob, token: CancellationToken) -> Completion:
        claim = job.fetched.claim
        if job.inputs is None:
            assert job.problem is not None
            return self._not_now(job.fetched, failure(job.problem, None))
        if job.inputs.missing and job.inputs.skip is None:
            return self._not_now(job.fetched, self._not_ready(job.fetched, job.inputs))
        policy = self._graph[claim.asset].retry or DEFAULT_RETRY
        if self._on_begin is not None:
            self._on_begin(claim)
        completion = self._runner.perform(claim, job.inputs, token, policy=policy)
        _let_go(completion)
        return completion

    def _not_now(self, job: FetchedJob, outcome: AttemptOutcome) -> Completion:
        return Completion(job.claim, outcome, (), job.claim.started_at)

    def _not_ready(self, job: FetchedJob, inputs: ResolvedInputs) -> AttemptOutcome:
        if self._may_wait(job, self._snooze_seconds):
            doing = self._under_way(inputs.missing)
            pause = self._snooze_seconds
            if len(doing) == len(inputs.missing):
                # it is being made: check soon, and less often the longer that takes
                pause = min(pause, max(_SOON_SECONDS, job.age_seconds / _SOON_PART))
            return Snoozed(pause, waits_for(inputs.missing, doing), for_inputs=True)
        claim = job.claim
        return failure(
            self._graph.not_ready((claim.asset, claim.partition), inputs.missing, claim.started_at), None
        )

    def _under_way(self, targets: Sequence[Target]) -> dict[Target, State]:
        """Return the states of those targets of which a step is not over."""
        found = self._target_statuses.status(targets)
        newest = {target: one.newest for target, one in found.items() if one.newest is not None}
        return {target: step.state for target, step in newest.items() if not step.state.is_terminal}

    def _may_wait(self, job: FetchedJob, pause: float) -> bool:
        """Bounded by time, and by count in case a clock is set back."""
        maximum = 10 + 2 * job.deps_timeout_seconds / min(pause, _SOON_SECONDS)
        return job.age_seconds + pause <= job.deps_timeout_seconds and job.snoozes < maximum


def _short(problem: Exception) -> str:
    if isinstance(problem, StepChangedError):
        return f"here {problem.now}"
    return (
        f"the asset {problem.name!r} is not declared here"
        if isinstance(problem, UnknownAssetError)
        else str(problem)
    )


def _let_go(completion: Completion) -> None:
    """Let go of the value and the error of an attempt: nobody here waits for them, the commit needs neither."""
    outcome = completion.outcome
    if isinstance(outcome, Failed):
        outcome.take_exception()
    elif isinstance(outcome, Succeeded):
        completion.outcome = Succeeded(outcome.stored, None)
