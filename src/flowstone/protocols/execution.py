"""What runs around a step, and where: hooks, resources, executors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from flowstone.core.capability import Capability
from flowstone.core.context import AssetContext
from flowstone.core.graph import AssetGraph
from flowstone.core.job import Job
from flowstone.core.limits import LimitLike
from flowstone.core.materialization import Materialization
from flowstone.core.outcome import AttemptOutcome
from flowstone.core.state import State
from flowstone.protocols.stores import Store
from flowstone.protocols.values import IOManager

type StepCall = Callable[[AssetContext], AttemptOutcome]
"""What is left of a step: the hooks further in, loading, the function, its checks, storing."""


@runtime_checkable
class Hook(Protocol):
    """Middleware around every step.

    `call` does what it likes before and after `step(context)`, which runs the rest: inner hooks, loading the
    inputs, the function, storing. It returns the outcome, or another one.
    """

    def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
        """Run the rest of the step."""


type ResourceFactory = Callable[[], object | AbstractContextManager[object]]
"""Makes a resource on first use; a context manager is entered then and left on shutdown."""


class ObservedApp(Protocol):
    """What an observer sees of the app that it was given to."""

    @property
    def graph(self) -> AssetGraph:
        """The assets."""

    @property
    def store(self) -> Store:
        """Where everything is recorded."""

    @property
    def managers(self) -> Mapping[str, IOManager]:
        """The IO managers by name."""


@runtime_checkable
class Observer(Protocol):
    """Sends elsewhere what happens to the work of an app: traces, lineage.

    It hears of that from `flowstone.telemetry`, attaches there when it starts, and must not keep the thread that
    calls it waiting.
    """

    def start(self, app: ObservedApp) -> None:
        """Begin; called once the app is put together."""

    def stop(self) -> None:
        """End, and send what waits as far as that does not take long; called when the app is closed."""


class RunJob(Protocol):
    """What the app hands an executor: it runs one job to its end, here and now."""

    def __call__(
        self, job: Job, *, timeout_seconds: float | None = None, stoppable: bool = False
    ) -> Materialization:
        """Run a job and return its result, or raise its error.

        Args:
            job: the job.
            timeout_seconds: limit for assets that declare none.
            stoppable: whether a function that runs out of time must really be stopped (takes a process).
        """


@runtime_checkable
class Executor(Protocol):
    """Decides where and when a job runs; what running means is handed to it as `run`.

    The app calls `bind(run)` once before anything else. The rest is optional, each a protocol of its own:
    `ChecksOptions`, `ReportsStatus`, `CancelsJobs`, `LimitsStarts`, `RunsConcurrently`. `capabilities` declares
    which of the methods hold; see `flowstone.core.capability`.
    """

    @property
    def name(self) -> str:
        """Name recorded with every job that it holds."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What this executor offers beyond `execute` and `schedule`."""

    def bind(self, run: RunJob) -> None:
        """Receive the callable that runs a job."""

    def execute(self, job: Job, **options: Any) -> Materialization:
        """Run a job and wait for its end; raise the asset's error."""

    def schedule(self, job: Job, **options: Any) -> Job:
        """Place a job and return at once, without waiting for it to run (see each executor)."""


@runtime_checkable
class ChecksOptions(Protocol):
    """An executor that can look at per-call options before anything is placed."""

    def check(self, options: Mapping[str, Any]) -> None:
        """Refuse options with which `execute` or `schedule` could not work.

        Raises:
            OptionsError: naming the option.
        """


@runtime_checkable
class ReportsStatus(Protocol):
    """An executor that knows more about a job than is recorded, and declares the capability `status`.

    Asked by `flow.runs.status` and `flow.job_status` about jobs that are not over: one that places work elsewhere
    may know that it waits there, or runs. Whether a job is over is what our own tables say, and nobody else.
    """

    def status(self, job: Job) -> State | str | None:
        """Return a state, or a sentence for people about what the job is doing; None when nothing is known."""


@runtime_checkable
class CancelsJobs(Protocol):
    """An executor that can reach running work and declares the capability `cancel`."""

    def cancel(self, job: Job) -> None:
        """Signal a running job to stop; the cancel itself is recorded already."""


@runtime_checkable
class LimitsStarts(Protocol):
    """A durable executor that puts fleet-wide limits on every step that is placed through it."""

    @property
    def limits(self) -> Mapping[str, LimitLike]:
        """Limits by name, as `@asset(concurrency=...)` takes them."""


@runtime_checkable
class RunsConcurrently(Protocol):
    """An executor with the capability `concurrent` that says how many steps at once; without this, 32."""

    @property
    def max_concurrency(self) -> int:
        """How many steps of a run are handed over at once, unless the call says otherwise."""
