"""The work of the demo: what changed is computed again, what did not is reused, then comes the report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from flowstone.app import FlowStone
from flowstone.app.placement import new_run_id
from flowstone.app.results import Progress, RunResult
from flowstone.cli.children import Workers
from flowstone.cli.demo_example import NAME, Example, example_directory
from flowstone.cli.demo_record import Record
from flowstone.cli.output import Output
from flowstone.cli.partitions import label
from flowstone.cli.progress import Report, reporting
from flowstone.core.capability import Capability
from flowstone.core.state import State
from flowstone.core.step import StepRecord
from flowstone.core.text import error_line
from flowstone.errors import ExecutorUnavailableError, FlowStoneError

_GRACE_SECONDS = 5.0
_ALL_STEPS = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """What is to be done.

    Args:
        example: the module of the example.
        directory: where everything lies.
        fingerprints: the months to analyse and a hash of the commits of each.
        code: hash of the example's code.
        executor: name of the executor.
        workers: number of worker processes of a durable executor.
        force: compute everything again.
        known: whether there was a database before.
    """

    example: Example
    directory: Path
    fingerprints: Mapping[date, str]
    code: str
    executor: str
    workers: int
    force: bool
    known: bool


@dataclass(slots=True)
class AssetCount:
    """How many partitions of one asset ended how; `seconds` is the time of their attempts added up."""

    asset: str
    total: int = 0
    computed: int = 0
    reused: int = 0
    failed: int = 0
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The end of it all."""

    directory: Path
    executor: str
    workers: int = 0
    seconds: float = 0.0
    assets: list[AssetCount] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ok: bool = False
    report: Path | None = None

    @property
    def computed(self) -> int:
        """Number of steps that computed something."""
        return sum(one.computed for one in self.assets)

    @property
    def reused(self) -> int:
        """Number of steps that were served by what was committed."""
        return sum(one.reused for one in self.assets)

    @property
    def failed(self) -> int:
        """Number of steps that ended without a value."""
        return sum(one.failed for one in self.assets)


def run_demo(demo: Demo, out: Output) -> Outcome:
    """Do the work.

    Raises:
        ExecutorUnavailableError: the workers do not stay alive.
        FlowStoneError: anything else that keeps the work from being placed.
    """
    remembered = demo.directory / "record.json"
    record = _record(demo, Record.read(remembered))
    record.write(remembered)
    with demo.example.from_environment() as flow:
        work = _Work(demo, flow, record, out)
        outcome = work.run()
    if outcome.ok:
        record.done().write(remembered)
    return outcome


def _record(demo: Demo, before: Record | None) -> Record:
    if before is None:
        # a database without a memory of what it was made from: nothing in it can be trusted
        months = [month.isoformat() for month in demo.fingerprints] if demo.known else []
        before = Record(stale=months)
    return before.advanced(demo.fingerprints, demo.code)


class _Work:
    """One demo under way: the runs it consists of, and the workers that it needs for them."""

    def __init__(self, demo: Demo, flow: FlowStone, record: Record, out: Output) -> None:
        self._demo = demo
        self._flow = flow
        self._out = out
        self._months = sorted(demo.fingerprints)
        now = {month.isoformat(): month for month in self._months}
        self._stale = [now[month] for month in record.stale if month in now]
        self._overall_stale = record.overall_stale or demo.force
        self._workers: Workers | None = None

    def run(self) -> Outcome:
        """Run what has to run; workers are started only if something has to."""
        durable = Capability.DURABLE in self._flow.parts.executors.get(self._demo.executor).capabilities
        needed = self._overall_stale or self._plans_something()
        outcome = Outcome(directory=self._demo.directory, executor=self._demo.executor)
        started = time.perf_counter()
        with self._worker_processes(outcome) if durable and needed else nullcontext():
            results = [*self._months_runs()]
            if all(result.ok for result in results):
                results.append(self._overall())
            outcome.seconds = time.perf_counter() - started
        outcome.ok = all(result.ok for result in results)
        self._count(outcome, results)
        if outcome.ok:
            outcome.report = self._report()
        return outcome

    def _plans_something(self) -> bool:
        example = self._demo.example
        return (
            bool(self._stale)
            or self._flow.plan(example.MONTHLY, partitions=self._months).runs > 0
            or self._flow.plan(example.OVERALL).runs > 0
        )

    def _worker_processes(self, outcome: Outcome) -> AbstractContextManager[object]:
        outcome.workers = self._demo.workers
        log = self._demo.directory / "worker.log"
        self._out.note(f"{self._demo.workers} worker processes write to {log}.")
        self._workers = Workers(
            ["worker", "--app", f"{NAME}.flow:from_environment", "--app-dir", str(example_directory())],
            environment={},
            count=self._demo.workers,
            grace_seconds=_GRACE_SECONDS,
            log=log,
        )
        return self._workers

    def _months_runs(self) -> Iterable[RunResult]:
        if self._demo.force or len(self._stale) == len(self._months):
            forced = self._demo.force or bool(self._stale)
            yield self._backfill(self._demo.example.MONTHLY, self._months, "months", force=forced)
            return
        if self._stale:
            yield self._backfill(self._demo.example.MONTHLY, self._stale, "changed months", force=True)
        rest = [month for month in self._months if month not in set(self._stale)]
        yield self._backfill(self._demo.example.MONTHLY, rest, "months", force=False)

    def _overall(self) -> RunResult:
        return self._backfill(self._demo.example.OVERALL, None, "report", force=self._overall_stale)

    def _backfill(self, selection: str, months: list[date] | None, title: str, *, force: bool) -> RunResult:
        run_id = new_run_id()
        try:
            with reporting(self._out, title) as report:
                return self._flow.backfill(
                    selection,
                    partitions=months,
                    on_progress=self._watching(report),
                    executor=self._demo.executor,
                    executor_opts={},
                    force=force,
                    run_id=run_id,
                )
        except BaseException:
            # nobody will be there to run what is left; the next call places it again
            with suppress(FlowStoneError):
                self._flow.runs.cancel(run_id)
            raise

    def _watching(self, report: Report) -> Report:
        """Return a report that also notices when there is nobody left to do the work."""

        def show(progress: Progress) -> None:
            report(progress)
            ended = self._workers.ended() if self._workers is not None else []
            if ended and len(ended) == self._demo.workers and progress.done < progress.total:
                raise ExecutorUnavailableError(
                    self._demo.executor,
                    f"all worker processes ended, with code {ended[0]}",
                    f"See {self._demo.directory / 'worker.log'}.",
                )

        return show

    def _count(self, outcome: Outcome, results: list[RunResult]) -> None:
        counts = {asset.name: AssetCount(asset.name) for asset in self._flow.graph}
        for result in results:
            for step in self._flow.runs.steps(result.run_id, limit=_ALL_STEPS):
                _add(counts[step.asset], step)
            for (name, key), text in result.errors.items():
                outcome.errors.append(f"{name} {label(key)}".strip() + f": {error_line(text)}")
        outcome.assets = [count for count in counts.values() if count.total]

    def _report(self) -> Path:
        """Write the committed report under a name that stays."""
        path = self._demo.directory / "report.html"
        temporary = path.with_suffix(".new")
        temporary.write_text(self._flow.load("report"), encoding="utf-8")
        temporary.replace(path)
        return path


def _add(count: AssetCount, step: StepRecord) -> None:
    count.total += 1
    if step.state is State.COMPLETED:
        count.computed += 1
        if step.started_at and step.finished_at:
            count.seconds += (step.finished_at - step.started_at).total_seconds()
    elif step.state is State.REUSED:
        count.reused += 1
    else:
        count.failed += 1
