"""`flow.logs`: what steps logged, by attempt and by run, in pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from flowstone.app.asynchronous import AsyncFlowStone, awaitable
from flowstone.app.build import Parts
from flowstone.app.runs import AnyRun, AnyStep
from flowstone.app.targets import run_id_of, step_id_of, whole_number
from flowstone.core.declaring import view
from flowstone.core.job import Job
from flowstone.core.logs import LogBatch, LogCount, LogLine, LogPosition, WrittenBatch
from flowstone.core.output import JsonValue
from flowstone.core.state import State
from flowstone.core.step import StepRecord
from flowstone.errors import OptionsError, RunNotFoundError

_LIMIT = 500
_MAX_LIMIT = 5_000
_EVERY = 10_000


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines that one attempt logged, one after the other.

    Args:
        step_id: the step.
        attempt: number of the attempt; 0 when the step had none yet.
        lines: the lines; each says how many right before it were not kept.
        total: how many lines the attempt has logged until now.
        kept: how many of them can be read.
        previous: where the page before this one ends, for `before=`; None when this is the first one.
        next: where the page behind this one begins, for `after=`, also when nothing is there yet.
        more: whether there are lines behind this page by now.
        over: whether the attempt is over, and logs nothing more.
        attempts: how much each attempt of the step has logged.
    """

    step_id: int
    attempt: int
    lines: tuple[LogLine, ...]
    total: int
    kept: int
    previous: str | None
    next: str
    more: bool
    over: bool
    attempts: tuple[LogCount, ...] = ()

    def to_json(self) -> dict[str, JsonValue]:
        """Return the page as plain data."""
        return {
            "step_id": str(self.step_id),
            "attempt": self.attempt,
            "lines": [line_to_json(line) for line in self.lines],
            "total": self.total,
            "kept": self.kept,
            "previous": self.previous,
            "next": self.next,
            "more": self.more,
            "over": self.over,
        }


@dataclass(frozen=True, slots=True)
class RunLogLine:
    """A line that a step of a run logged.

    Args:
        step_id: the step.
        asset: its asset.
        partition: its partition as people write it; empty without one.
        attempt: number of the attempt.
        line: the line.
    """

    step_id: int
    asset: str
    partition: str
    attempt: int
    line: LogLine

    @property
    def label(self) -> str:
        """Asset and partition, as people write them."""
        return f"{self.asset} [{self.partition}]" if self.partition else self.asset

    def to_json(self) -> dict[str, JsonValue]:
        """Return the line as plain data."""
        about: dict[str, JsonValue] = {
            "step_id": str(self.step_id),
            "asset": self.asset,
            "partition": self.partition or None,
            "attempt": self.attempt,
        }
        return about | line_to_json(self.line)


@dataclass(frozen=True, slots=True)
class RunLogPage:
    """Lines that the steps of a run logged, in the order in which they were written.

    Args:
        run_id: the run.
        lines: the lines.
        next: where the page behind this one begins, for `after=`; None when nothing was ever written.
        more: whether there is more behind this page by now.
        over: whether the run is over.
    """

    run_id: str
    lines: tuple[RunLogLine, ...]
    next: str | None
    more: bool
    over: bool


@view("flow.logs")
class LogsView:
    """What steps logged: `context.logger`, standard logging, and what functions in processes of their own print.

    Of each attempt the first 100 lines are kept and the last 1,900, for `log_days` (a setting).

    Example:
        >>> from flowstone import FlowStone, asset
        >>> @asset
        ... def numbers(context):
        ...     context.logger.info("three of them")
        ...     return [1, 2, 3]
        >>> flow = FlowStone([numbers])
        >>> job = flow.schedule("numbers")
        >>> [(line.source, line.text) for line in flow.logs.of(job).lines]
        [('INFO', 'three of them')]
    """

    def __init__(self, parts: Parts, *, flush_seconds: float = 1.0) -> None:
        self._parts = parts
        self._flush_seconds = flush_seconds

    def of(
        self,
        step: AnyStep,
        attempt: int | None = None,
        *,
        after: str | None = None,
        before: str | None = None,
        newest: bool = False,
        limit: int = _LIMIT,
    ) -> LogPage:
        """Return lines that an attempt of a step has logged.

        Args:
            step: the step: a job, or its id.
            attempt: number of the attempt; the newest one that has begun by default.
            after: only lines behind this place, the `next` of a page.
            before: only the last lines before this place, the `previous` of a page.
            newest: whether the last lines are returned, not the first ones.
            limit: how many lines at most; not more than 5,000.

        Raises:
            RunNotFoundError: there is no such step.
            OptionsError: a place is none of a page, or both are given.
        """
        if after is not None and before is not None:
            raise OptionsError("Give after= or before=, not both: a page lies behind a place or before it.")
        record = self._step(step)
        limit = min(_MAX_LIMIT, whole_number("limit", limit))
        counts = tuple(self._read_counts(record.id))
        number = self._newest(record, counts) if attempt is None else whole_number("attempt", attempt)
        start = read_place("after", after) if after else (0, 0)
        end = read_place("before", before) if before else None
        newest = newest or end is not None
        batches = self._parts.store.logs.read(record.id, number, after=start, limit=_EVERY)
        every = [line for line in with_gaps(batches, start) if end is None or (line.token, line.number) < end]
        lines = every[-limit:] if newest else every[:limit]
        of_attempt = [one for one in counts if one.attempt == number]
        first = (lines[0].token, lines[0].number) if lines else start
        last = (lines[-1].token, lines[-1].number) if lines else start
        has_earlier = len(every) > len(lines) if newest else after is not None and bool(lines)
        return LogPage(
            step_id=record.id,
            attempt=number,
            lines=tuple(lines),
            total=of_attempt[0].lines if of_attempt else 0,
            kept=of_attempt[0].kept if of_attempt else 0,
            previous=_place(first) if has_earlier else None,
            next=_place(last),
            more=end is not None or (not newest and len(every) > len(lines)),
            over=number < record.attempt or record.state not in (State.RUNNING, State.CANCELLING),
            attempts=counts,
        )

    def of_run(
        self, run: AnyRun, *, after: str | None = None, newest: bool = False, limit: int = 5 * _LIMIT
    ) -> RunLogPage:
        """Return lines that the steps of a run have logged, in the order in which they were written.

        Args:
            run: the run: an id, or what a verb returned about it.
            after: only what is behind this place, the `next` of a page.
            newest: whether the last lines are returned, not the first ones.
            limit: about how many lines at most, not more than 5,000: what was written together stays together.

        Raises:
            RunNotFoundError: there is no such run.
            OptionsError: `after` is no place of a page.
        """
        identifier = run_id_of(run)
        record = self._parts.store.catalog.run(identifier)
        if record is None:
            raise RunNotFoundError("run", identifier)
        self._flush()
        limit = min(_MAX_LIMIT, whole_number("limit", limit))
        start = None if after is None else read_position(after)
        read = self._parts.store.logs.of_run(identifier, after=start, newest=newest, limit=limit)
        found = _first_lines(read[::-1] if newest else read, limit)
        found = found[::-1] if newest else found
        lines = [
            RunLogLine(one.batch.step_id, one.asset, self._label(one.asset, one.partition_key), attempt, line)
            for one in found
            for attempt in (one.batch.attempt,)
            for line in one.batch.read()
        ]
        lines.sort(key=lambda one: one.line.at)
        last = found[-1].position if found else start
        return RunLogPage(
            run_id=identifier,
            lines=tuple(lines),
            next=None if last is None else _position(last),
            more=not newest and (len(found) < len(read) or len(read) == limit),
            over=record.state.is_terminal,
        )

    def counts(self, step: AnyStep) -> list[LogCount]:
        """Return how much each attempt of a step has logged.

        Raises:
            RunNotFoundError: there is no such step.
        """
        return self._read_counts(self._step(step).id)

    def _read_counts(self, step_id: int) -> list[LogCount]:
        self._flush()
        return self._parts.store.logs.counts([step_id])

    def _step(self, step: AnyStep) -> StepRecord:
        step_id = step_id_of(step)
        record = None if step_id is None else self._parts.store.catalog.step(step_id)
        if record is None:
            raise RunNotFoundError("step", str(step.id if isinstance(step, Job) else step))
        return record

    def _newest(self, record: StepRecord, counts: Iterable[LogCount]) -> int:
        return max([record.attempt, *[one.attempt for one in counts]])

    def _label(self, asset: str, partition_key: str) -> str:
        return self._parts.graph.label(asset, partition_key) if partition_key else ""

    def _flush(self) -> None:
        """Have what this process captured written, so that whoever reads sees it."""
        if self._parts.logs is not None:
            self._parts.logs.flush(timeout_seconds=self._flush_seconds)


def _first_lines(batches: Sequence[WrittenBatch], limit: int) -> Sequence[WrittenBatch]:
    """Return the first batches with so many lines; at least one."""
    lines = 0
    for number, one in enumerate(batches):
        lines += one.batch.lines
        if lines > limit and number:
            return batches[:number]
    return batches


class AsyncLogsView(AsyncFlowStone):
    """`flow.aio.logs`: the verbs of `flow.logs`, awaitable."""

    of = awaitable(LogsView.of)
    of_run = awaitable(LogsView.of_run)
    counts = awaitable(LogsView.counts)


def with_gaps(batches: Iterable[LogBatch], start: tuple[int, int] = (0, 0)) -> Iterator[LogLine]:
    """Yield the lines of batches behind a place, each with the number of lines before it that were not kept."""
    token, last = start
    for batch in batches:
        if batch.token != token:
            token, last = batch.token, 0
        for line in batch.read():
            if line.number > last:
                gap = line.number - last - 1
                yield replace(line, left_out=gap) if gap else line
                last = line.number


def line_to_json(line: LogLine) -> dict[str, JsonValue]:
    """Return a line as plain data."""
    found: dict[str, JsonValue] = {
        "number": line.number,
        "at": line.at.isoformat(),
        "source": line.source,
        "text": line.text,
    }
    return found | ({"left_out": line.left_out} if line.left_out else {})


def read_place(option: str, text: str) -> tuple[int, int]:
    """Read a place in what an attempt logged.

    Raises:
        OptionsError: the text is none.

    Example:
        >>> read_place("after", "12.400")
        (12, 400)
    """
    token, _, number = str(text).partition(".")
    if not all(part.isascii() and part.isdecimal() and len(part) < 19 for part in (token, number)):
        raise OptionsError(f"{option}={text!r}: give the `next` or the `previous` of a page of log lines.")
    return int(token), min(int(number), 2**31 - 1)


def _place(place: tuple[int, int]) -> str:
    return f"{place[0]}.{place[1]}"


def read_position(text: str) -> LogPosition:
    """Read a place in what a run logged.

    Raises:
        OptionsError: the text is none.
    """
    parts = str(text).split("~")
    try:
        moment = datetime.fromisoformat(parts[0])
        step_id, attempt, token, line = (int(part) for part in parts[1:])
        position = LogPosition(moment, step_id, attempt, token, line)
    except ValueError:
        position = None
    if position is None or position.written_at.tzinfo is None or not all(0 <= one < 2**31 for one in position[4:]):
        raise OptionsError(f"after={text!r}: give the `next` of a page of log lines of a run.")
    return position


def _position(position: LogPosition) -> str:
    return "~".join([position.written_at.isoformat(), *map(str, position[1:])])
