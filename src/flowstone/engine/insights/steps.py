"""One step as people see it: what went wrong first, then its attempts, what it read, made, and waits for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flowstone.core.clean import error_line, masked_document
from flowstone.core.graph import AssetGraph
from flowstone.core.logs import LogCount
from flowstone.core.output import JsonValue, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import AttemptRecord, CheckRecord, RunRecord, StepRecord
from flowstone.errors import RunNotFoundError
from flowstone.protocols import Store

MAX_INPUTS = 100
_MAX_ATTEMPTS = 100
_MAX_CHECKS = 100
_MAX_FRAME_LINES = 2_000
_FRAME = re.compile(r'\s*(?:[|+] ?)*\s*File "(?P<file>[^"\n]{1,1000})", line \d{1,9}')
_FOREIGN = re.compile(
    r"[\\/](?:site|dist)-packages[\\/]|[\\/]lib[\\/]python\d|^<(?:frozen|string)|"
    r"[\\/]flowstone[\\/](?:engine|executors|app|core|io|stores|cli|testing)[\\/]"
)


@dataclass(frozen=True, slots=True)
class ErrorText:
    """Lines of a recorded error that belong together.

    Args:
        kind: `own` for frames of the user's code, `other` for frames of libraries, `text` for everything else.
        text: the lines.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class StepError:
    """Why a step failed.

    Args:
        type: class of what was raised.
        line: the line that says the most: type and the beginning of the message.
        text: the whole error, in parts that show own frames apart from those of libraries.
        data: facts that `Fatal(..., data=...)` gave, as JSON; empty without.
    """

    type: str
    line: str
    text: tuple[ErrorText, ...]
    data: str = ""


@dataclass(frozen=True, slots=True)
class AttemptDetail:
    """One attempt of a step.

    Args:
        number: from 1.
        state: how it ended, or `running`.
        started_at: when it started.
        finished_at: when it ended; None while it runs.
        worker: who ran it.
        error: the line of its error that says the most.
        retry_at: when the next one is due.
        log_lines: how many lines it logged.
    """

    number: int
    state: str
    started_at: datetime | None
    finished_at: datetime | None
    worker: str | None = None
    error: str = ""
    retry_at: datetime | None = None
    log_lines: int = 0

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it runs."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0.0, (self.finished_at - self.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class InputDetail:
    """One exact version that a step read.

    Args:
        parameter: the parameter that it was passed to.
        asset: upstream asset.
        partition: its partition as people write it; empty without.
        partition_key: the same, encoded.
        step_id: the step that made the version.
    """

    parameter: str
    asset: str
    partition: str
    partition_key: PartitionKey
    step_id: int


@dataclass(frozen=True, slots=True)
class OutputDetail:
    """The stored value of a step.

    Args:
        step_id: the step that made it; another one for a step that was reused.
        io: IO manager.
        location: where it lies, in the words of the manager.
        serializer: how it was encoded.
        size_bytes: how large it is.
        content_hash: SHA-256 of its bytes.
        value_type: type of the value.
        metadata: facts that were recorded with it: name and value as text.
        invalidated_at: since when it is out of use.
    """

    step_id: int
    io: str
    location: str
    serializer: str | None
    size_bytes: int | None
    content_hash: str | None
    value_type: str
    metadata: tuple[tuple[str, str], ...] = ()
    invalidated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CheckDetail:
    """What a check found.

    Args:
        check: its name.
        state: `passed`, `failed`, or `warning` for a failure that is no error.
        blocking: whether a failure keeps the value from being published.
        description: what it said, or the line of its own error.
        attempt: which attempt it checked.
    """

    check: str
    state: str
    blocking: bool
    description: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ItemsDetail:
    """The items of a step that scattered.

    Args:
        run_id: their run.
        counts: how many are in each state.
        total: how many there are; None while they are being discovered.
        allowed: how many may fail; None when that is not known yet.
        is_open: whether more are being discovered.
    """

    run_id: str
    counts: tuple[tuple[str, int], ...]
    total: int | None
    allowed: int | None
    is_open: bool


@dataclass(frozen=True, slots=True)
class StepRun:
    """The run of a step.

    Args:
        id: its id.
        kind: the verb that asked for it.
        selection: what was asked for.
        state: how it stands.
        requested_by: who asked; None when nobody said so.
        tags: for finding it.
        config: config of this asset in it as JSON, secrets masked; empty without.
        metadata: facts about it: name and value as text.
        step_of_items: the step that scattered it, for a run of items.
    """

    id: str
    kind: str
    selection: str
    state: str
    requested_by: str | None
    tags: tuple[str, ...]
    config: str
    metadata: tuple[tuple[str, str], ...]
    step_of_items: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDetail:
    """A step with everything that is recorded of it.

    Args:
        id: the step.
        asset: its asset.
        partition: its partition as people write it; empty without.
        partition_key: the same, encoded.
        state: how it stands.
        attempt: the newest attempt.
        max_attempts: how many there may be.
        queue: its queue.
        executor: how it runs.
        priority: 0 (first) to 9.
        worker: who runs it, or ran it last.
        created_at: when it was placed.
        scheduled_at: when it is due, when that was said.
        started_at: when its newest attempt started.
        finished_at: when it ended.
        forced: whether it was to be computed although it is committed.
        code_version: declared version of the code.
        reason: why it is in its state.
        item: what it works on, for an item of a scatter; empty otherwise.
        is_over: whether nothing more will happen.
        is_current: whether what it made is what `load` returns now.
        declared: whether the app has the asset.
        error: why it failed; None without an error.
        waits_for: what it waits for, the most important first.
        attempts: its attempts, the newest first; at most 100.
        inputs: what it read; at most 100.
        more_inputs: how many more it read.
        output: what it made; None when it made nothing.
        checks: what checks found; at most 100.
        items: what it scattered; None when it did not.
        run: its run.
    """

    id: int
    asset: str
    partition: str
    partition_key: PartitionKey
    state: str
    attempt: int
    max_attempts: int
    queue: str
    executor: str
    priority: int
    worker: str | None
    created_at: datetime
    scheduled_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    forced: bool
    code_version: str | None
    reason: str
    item: str
    is_over: bool
    is_current: bool
    declared: bool
    error: StepError | None
    waits_for: tuple[str, ...]
    attempts: tuple[AttemptDetail, ...]
    inputs: tuple[InputDetail, ...]
    more_inputs: int
    output: OutputDetail | None
    checks: tuple[CheckDetail, ...]
    items: ItemsDetail | None
    run: StepRun

    @property
    def name(self) -> str:
        """Asset and partition, as people write them."""
        return f"{self.asset} [{self.partition}]" if self.partition else self.asset


def step_detail(
    store: Store, graph: AssetGraph, step_id: int, *, waits_for: Sequence[str] = (), reason: str = ""
) -> StepDetail:
    """Return a step with everything that is recorded of it.

    Args:
        store: where it is recorded.
        graph: the declared assets.
        step_id: the step.
        waits_for: what it waits for.
        reason: why it is in its state, for people.

    Raises:
        RunNotFoundError: there is no such step.
    """
    record = store.catalog.step(step_id)
    if record is None:
        raise RunNotFoundError("step", str(step_id))
    run = store.catalog.run(record.run_id)
    logged = {one.attempt: one for one in store.logs.counts([step_id])}
    read = store.catalog.inputs([step_id]).get(step_id, ())
    item = store.scatters.items([step_id]).get(step_id, "") if run is not None and run.parent else ""
    return StepDetail(
        id=record.id,
        asset=record.asset,
        partition=graph.label(record.asset, record.partition_key) if record.partition_key else "",
        partition_key=record.partition_key,
        state=record.state.value,
        attempt=record.attempt,
        max_attempts=record.max_attempts,
        queue=record.queue,
        executor=record.executor,
        priority=record.priority,
        worker=record.worker,
        created_at=record.created_at,
        scheduled_at=record.scheduled_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        forced=record.forced,
        code_version=record.code_version,
        reason=reason or record.reason or "",
        item=item,
        is_over=record.state.is_terminal,
        is_current=store.catalog.current([(record.asset, record.partition_key)]).get(
            (record.asset, record.partition_key)
        )
        == (record.output_step or record.id),
        declared=record.asset in graph,
        error=_error(record),
        waits_for=tuple(waits_for),
        attempts=_attempts(record, store.catalog.attempts(step_id), logged),
        inputs=tuple(
            InputDetail(
                one.parameter,
                one.asset,
                graph.label(one.asset, one.partition_key) if one.partition_key else "",
                one.partition_key,
                one.step_id,
            )
            for one in read[:MAX_INPUTS]
        ),
        more_inputs=max(0, len(read) - MAX_INPUTS),
        output=None if record.stored is None else _output(record, record.stored),
        checks=tuple(_check(one) for one in store.checks.of_steps([step_id]).get(step_id, ())[:_MAX_CHECKS]),
        items=_items(store, step_id),
        run=_run(store, record, run),
    )


def _error(record: StepRecord) -> StepError | None:
    if record.error is None:
        return None
    data = json.dumps(masked_document(record.error_data), indent=2, default=str) if record.error_data else ""
    kind = (record.error_type or "").removeprefix("builtins.")
    return StepError(kind, error_line(record.error), marked_frames(record.error), data)


def marked_frames(text: str) -> tuple[ErrorText, ...]:
    r"""Return a traceback in parts: frames of the user's code, frames of libraries, and the rest.

    Example:
        >>> trace = 'Traceback:\n  File "/app/a.py", line 3, in a\n    b()\nValueError: no'
        >>> [(one.kind, one.text) for one in marked_frames(trace)]
        [('text', 'Traceback:'), ('own', '  File "/app/a.py", line 3, in a\n    b()'), ('text', 'ValueError: no')]
    """
    parts: list[tuple[str, list[str]]] = []
    indent, kind = 0, "text"
    lines = text.rstrip("\n").split("\n")
    for number, line in enumerate(lines):
        frame = _FRAME.match(line) if number < _MAX_FRAME_LINES else None
        if frame is not None:
            indent = len(line) - len(line.lstrip(" |+"))
            kind = "other" if _FOREIGN.search(frame["file"]) else "own"
        elif kind != "text" and len(line) - len(line.lstrip(" |+")) <= indent:
            kind = "text"
        if parts and parts[-1][0] == kind:
            parts[-1][1].append(line)
        else:
            parts.append((kind, [line]))
    return tuple(ErrorText(kind, "\n".join(part)) for kind, part in parts)


def _attempts(
    record: StepRecord, ended: Sequence[AttemptRecord], logged: Mapping[int, LogCount]
) -> tuple[AttemptDetail, ...]:
    found = [
        AttemptDetail(
            number=one.attempt,
            state=one.state.value,
            started_at=one.started_at,
            finished_at=one.finished_at,
            worker=one.worker,
            error=error_line(one.error),
            retry_at=one.retry_at,
            log_lines=logged[one.attempt].lines if one.attempt in logged else 0,
        )
        for one in ended
    ]
    if record.state in (State.RUNNING, State.CANCELLING):
        lines = logged[record.attempt].lines if record.attempt in logged else 0
        started, worker = record.started_at, record.worker
        found.append(AttemptDetail(record.attempt, record.state.value, started, None, worker, log_lines=lines))
    return tuple(found[: -_MAX_ATTEMPTS - 1 : -1])


def _output(record: StepRecord, stored: StoredOutput) -> OutputDetail:
    return OutputDetail(
        step_id=record.output_step or record.id,
        io=stored.io,
        location=stored.location,
        serializer=stored.serializer,
        size_bytes=stored.size_bytes,
        content_hash=stored.content_hash,
        value_type=stored.value_type,
        metadata=_texts(stored.metadata),
        invalidated_at=record.invalidated_at,
    )


def _texts(facts: Mapping[str, JsonValue]) -> tuple[tuple[str, str], ...]:
    masked = masked_document(dict(facts))
    assert isinstance(masked, dict)
    return tuple(
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in masked.items()
    )


def _check(one: CheckRecord) -> CheckDetail:
    state = "passed" if one.passed else ("failed" if one.severity.value == "error" else "warning")
    described = one.description or (error_line(one.error) if one.error else "")
    return CheckDetail(one.check, state, one.blocking, described, one.attempt)


def _items(store: Store, step_id: int) -> ItemsDetail | None:
    scattered = store.scatters.of_steps([step_id]).get(step_id)
    if scattered is None:
        return None
    counts = store.scatters.counts(scattered.run_id).by_state
    return ItemsDetail(
        run_id=scattered.run_id,
        counts=tuple((state.value, counts[state]) for state in State if counts.get(state)),
        total=scattered.total,
        allowed=scattered.allowed,
        is_open=scattered.is_open,
    )


def _run(store: Store, record: StepRecord, run: RunRecord | None) -> StepRun:
    if run is None:
        return StepRun(record.run_id, "", "", "", None, (), "", ())
    config = run.details.config.get(record.asset)
    scattered = store.scatters.of_run(run.id) if run.parent else None
    return StepRun(
        id=run.id,
        kind=run.kind,
        selection=run.selection,
        state=run.state.value,
        requested_by=run.requested_by,
        tags=run.details.tags,
        config=json.dumps(masked_document(config), indent=2) if config else "",
        metadata=_texts(run.details.metadata),
        step_of_items=None if scattered is None else scattered.step_id,
    )
