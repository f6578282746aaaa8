"""What is logged while a step's function runs: captured, kept within bounds, and written beside the commits.

`AttemptLog` is what one attempt logs; `LogCapture` writes it, from a thread of its own, so that a slow or failed
write delays nothing; the functions below find the attempt that a log record or a printed text belongs to. A
context variable says so: coroutines, `asyncio.to_thread` and threads that run in a copy of the context belong to
the attempt, neighbours do not. `context.logger` knows its attempt in any thread (decision 24 in docs/adr).
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TextIO, cast

from flowstone import telemetry
from flowstone.core import forks
from flowstone.core.clean import plain_text
from flowstone.core.frozen import maker
from flowstone.core.logs import MAX_ENTRY, Entry, LogBatch, LogBuffer, LogNumbers, Trim
from flowstone.core.step import Attempt
from flowstone.errors import DatabaseUnavailableError
from flowstone.protocols import LogStore

_BATCH_SECONDS = 0.5
_IDLE_SECONDS = 5.0
_FLUSH_SECONDS = 0.005
_CLOSE_SECONDS = 2.0
_MAX_PAUSE_SECONDS = 30.0
_MAX_CHARACTERS = 32 * 1024 * 1024
"""How much one process holds that is not written; of what cannot be written, as much again."""
_MAX_BATCHES = 1_000
_MAX_REFUSED = 3

log = logging.getLogger("flowstone.logs")


class KeepsOutput(Protocol):
    """Keeps what the function of an attempt logs and prints."""

    def record(self, record: logging.LogRecord) -> None:
        """Keep a log record."""

    def printed(self, stream: str, text: str) -> None:
        """Keep what was printed."""


_passed_by: ContextVar[bool] = ContextVar("flowstone_log_passed_by", default=False)


def keeper() -> KeepsOutput | None:
    """Return what keeps the output of the attempt whose function runs here, if anything does."""
    step = telemetry.running_step.get()
    if step is None or _passed_by.get():
        return None
    kept: KeepsOutput | None = step.log
    return kept


@contextmanager
def not_kept() -> Iterator[None]:
    """Keep nothing of what is logged and printed meanwhile."""
    token = _passed_by.set(True)
    try:
        yield
    finally:
        _passed_by.reset(token)


@dataclass(slots=True, eq=False)
class AttemptLog:
    """What one attempt logs; nothing here ever raises into the code that logs.

    Args:
        capture: writes it.
        attempt: the attempt.
        used: whether it logged anything.
        over: whether it logs nothing more: what a thread that was left behind says is not kept.
        partial: printed lines without their end, by stream.
        buffer: what is not written yet.
        numbers: numbers the lines.
    """

    capture: LogCapture
    attempt: Attempt
    used: bool = False
    over: bool = False
    partial: dict[str, str] | None = None
    buffer: LogBuffer | None = None
    numbers: LogNumbers | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """What log records of the attempt carry."""
        return fields_of(self.attempt)

    @property
    def log(self) -> AttemptLog:
        """Itself: what keeps the output of the step that runs is this."""
        return self

    def record(self, record: logging.LogRecord) -> None:
        """Keep a log record, with its traceback."""
        if self.over:
            return
        with not_kept():  # what is logged while a message is put together would come here again
            try:
                self._add(record.created, record.levelname, _text_of(record))
            except Exception:  # noqa: BLE001 - logging never breaks what it logs
                return

    def printed(self, stream: str, text: str) -> None:
        """Keep what was printed; a line without its end is kept with the rest of it, or when the attempt is over.

        Args:
            stream: `stdout` or `stderr`.
            text: any part of it.
        """
        if self.over or not text:
            return
        try:
            with self.capture.lock:
                self.used = True
                if self.partial is None:
                    self.partial = {}
                whole, newline, rest = (self.partial.pop(stream, "") + text).rpartition("\n")
                if "\r" in rest[:-1]:
                    rest = rest[rest.rindex("\r", 0, -1) :]  # overwritten before anyone could read it
                if len(rest) > MAX_ENTRY:
                    rest = Entry.of(0.0, stream, rest).text.replace("\n", " ")
                if rest:
                    self.partial[stream] = rest
            if newline:
                self._add(time.time(), stream, whole)
        except Exception:  # noqa: BLE001 - as above
            return

    def logger(self, plain: logging.Logger) -> logging.Logger:
        """Return a logger whose records belong to this attempt in whatever thread they are made."""
        return StepLogger(plain, self)

    def end(self) -> None:
        """Have the rest written: lines without an end, and what came last."""
        for stream, rest in list((self.partial or {}).items()):
            self._add(time.time(), stream, rest)
        if self.buffer is not None:
            self.capture.ended()

    def _add(self, at: float, source: str, text: str) -> None:
        if forks.copies == self.capture.process:  # a forked copy of this process has no thread that writes
            self.used = True
            self.capture.add(self, Entry.of(at, source, text))

    def take(self) -> tuple[list[LogBatch], Trim | None]:
        """Return what is to be written, and what is no longer kept."""
        with self.capture.lock:
            assert self.buffer is not None
            taken = self.buffer.take()
        if self.numbers is None:
            one = self.attempt
            self.numbers = LogNumbers(one.step_id, one.attempt, one.token, one.run_id)
        return self.numbers.batches(*taken)


make_log = maker(AttemptLog)
"""Makes what an attempt logs, of the same arguments: every attempt has one."""


def fields_of(attempt: Attempt) -> dict[str, Any]:
    """Return what log records and events say of an attempt."""
    return {
        "asset": attempt.asset,
        "partition": attempt.partition_key,
        "run_id": attempt.run_id,
        "attempt": attempt.attempt,
        "step_id": str(attempt.step_id),
    }


class LogCapture:
    """Writes what attempts of this process log, in batches.

    Args:
        store: where it is kept.
        at_once: whether writing costs nothing: it is done when an attempt is over, and nothing runs beside.
    """

    def __init__(self, store: LogStore, *, at_once: bool = False) -> None:
        capture_records()
        self._store = store
        self._at_once = at_once
        self._renew()
        forks.renew_after_fork(self, LogCapture._renew)
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)

    def _renew(self) -> None:
        # reentrant: an object that the collector finalizes in the middle of all this may log
        self.lock = threading.RLock()
        self.process = forks.copies
        self._writing = threading.Lock()
        self._waiting: dict[AttemptLog, None] = {}
        self._characters = 0
        self._unwritten: list[tuple[list[LogBatch], list[Trim]]] = []
        self._pause = 0.0
        self._refusals = self._passes = 0
        self._thread: threading.Thread | None = None
        self._work = threading.Event()
        self._hurry = threading.Event()

    def add(self, attempt: AttemptLog, entry: Entry) -> None:
        """Keep an entry of an attempt until it is written."""
        with self.lock:
            buffer = attempt.buffer
            if buffer is None:
                buffer = attempt.buffer = LogBuffer()
            before = buffer.characters
            if self._characters > _MAX_CHARACTERS:
                buffer.clear_tail()
            buffer.add(entry)
            self._characters += buffer.characters - before
            if attempt not in self._waiting:
                self._waiting[attempt] = None
                if not self._at_once:
                    self._wake()

    def ended(self) -> None:
        """Have what is left of an attempt that is over written soon."""
        if self._at_once:
            self._write()

    def flush(self, *, timeout_seconds: float = _CLOSE_SECONDS) -> bool:
        """Write what was logged until now; return whether that was possible in time."""
        if self._at_once:
            return self._write()
        with self.lock:
            if not (self._waiting or self._unwritten or self._writing.locked()):
                return True
            # what is being written just now may have begun before the last line came
            enough = self._passes + 1 + self._writing.locked()
        until = time.monotonic() + timeout_seconds
        while self._passes < enough:
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._hurry.set()  # ends the wait for more to write together
            self._wake()
            time.sleep(min(left, _FLUSH_SECONDS))
        return not self._unwritten

    def close(self) -> None:
        """Write what is left, for a moment; it can be used again."""
        atexit.unregister(self._at_exit)
        self.flush()

    def _wake(self) -> None:
        """Have the thread write; the caller may hold the lock."""
        with self.lock:
            self._work.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="flowstone-logs", daemon=True)
                with suppress(RuntimeError):  # the interpreter ends, or there are no threads left
                    self._thread.start()
                    return
                self._thread = None

    def _serve(self) -> None:
        while True:
            if not self._work.wait(_IDLE_SECONDS):
                with self.lock:
                    if not self._work.is_set() and not self._unwritten:
                        self._thread = None  # an app that nobody uses is kept alive by nothing
                        return
            self._hurry.wait(self._pause or _BATCH_SECONDS)
            self._hurry.clear()
            self._work.clear()
            try:
                self._write()
                self._passes += 1
            except BaseException as error:  # noqa: BLE001 - the thread lives on; its lines are lost
                log.warning("What steps logged cannot be written: %s", plain_text(error))
            if self._unwritten:
                self._work.set()

    def _write(self) -> bool:
        with self._writing:
            with self.lock:
                waiting, self._waiting = self._waiting, {}
                self._characters = 0
            batches: list[LogBatch] = []
            trims: list[Trim] = []
            for attempt in waiting:
                made, trim = attempt.take()
                batches += made
                trims += [trim] if trim is not None else []
            for at in range(0, len(batches), _MAX_BATCHES):
                self._unwritten.append((batches[at : at + _MAX_BATCHES], []))
            if trims:
                self._unwritten.append(([], trims))
            return self._append()

    def _append(self) -> bool:
        while self._unwritten:
            batches, trims = self._unwritten[0]
            try:
                self._store.append(batches, trims)
            except DatabaseUnavailableError as error:
                self._keep(error)
                return False
            except Exception as error:  # noqa: BLE001 - one batch may be to blame, or all
                if not self._each_alone(batches) and self._refusals < _MAX_REFUSED:
                    self._refusals += 1
                    self._keep(error)
                    return False
                log.warning("Some lines that steps logged were refused, and are lost: %s", plain_text(error))
            self._unwritten.pop(0)
            self._refusals = 0
        if self._pause:
            log.info("What steps log is written again.")
        self._pause = 0.0
        return True

    def _each_alone(self, batches: Sequence[LogBatch]) -> bool:
        """Write what can be written of batches that were refused together; return whether that is anything."""
        written = 0
        for number, batch in enumerate(batches):
            try:
                self._store.append([batch], [])
                written += 1
            except Exception:  # noqa: BLE001 - reported for all of them
                if number >= _MAX_REFUSED and not written:
                    return False
        return written > 0 or not batches

    def _keep(self, error: Exception) -> None:
        """Keep what cannot be written for later, the newest of it when it is too much."""
        if not self._pause:
            log.warning("What steps log is kept until it can be written: %s", plain_text(error))
        self._pause = min(_MAX_PAUSE_SECONDS, max(_BATCH_SECONDS, 2 * self._pause))
        size = 0
        for at in range(len(self._unwritten) - 1, -1, -1):
            size += sum([len(batch.body) for batch in self._unwritten[at][0]])
            if size > _MAX_CHARACTERS:
                del self._unwritten[: at + 1]
                return


def _close(capture: weakref.ref[LogCapture]) -> None:
    found = capture()
    if found is not None:
        found.close()


class StepLogger(logging.Logger):
    """The logger of an asset for one attempt: its records belong to the attempt, whatever thread they are made in.

    Records of INFO and above are kept also where logging is not configured; what handlers get of them is what the
    logger of the same name gives them. Handlers, filters and the level are those of that logger.

    Args:
        plain: the logger of the same name.
        attempt: keeps the records.
    """

    def __init__(self, plain: logging.Logger, attempt: KeepsOutput) -> None:
        super().__init__(plain.name)
        self._plain = plain
        self._kept = attempt
        self.parent, self.propagate = plain.parent, plain.propagate
        self.handlers, self.filters = plain.handlers, plain.filters

    def getEffectiveLevel(self) -> int:  # noqa: N802 - of the standard library
        """Return the level set for the asset's logger, else INFO, or less where less is handled."""
        return self._plain.level or min(logging.INFO, self._plain.getEffectiveLevel())

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - of the standard library
        """Return whether records of a level are kept."""
        return self.manager.disable < level and level >= self.getEffectiveLevel()

    def makeRecord(self, *args: Any, **options: Any) -> logging.LogRecord:  # noqa: N802 - of the standard library
        """Return a record, which is kept when it is handled."""
        with not_kept():
            return self._plain.makeRecord(*args, **options)

    def handle(self, record: logging.LogRecord) -> None:
        """Keep a record, and hand it to the handlers that would get it anyway."""
        self._kept.record(record)
        if self._plain.isEnabledFor(record.levelno):
            with not_kept():  # the handlers may print
                self._plain.handle(record)

    def setLevel(self, level: int | str) -> None:  # noqa: N802 - of the standard library
        """Set the level of the asset's logger."""
        self._plain.setLevel(level)

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - of the standard library
        """Add a handler to the asset's logger."""
        self._plain.addHandler(hdlr)

    def removeHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - of the standard library
        """Remove a handler from the asset's logger."""
        self._plain.removeHandler(hdlr)

    def getChild(self, suffix: str) -> logging.Logger:  # type: ignore[override]  # noqa: N802 - of the standard library
        """Return the logger of a name below the asset's; its records belong to the attempt where that runs."""
        return self._plain.getChild(suffix)

    def __reduce__(self) -> tuple[Callable[[str], logging.Logger], tuple[str]]:
        return logging.getLogger, (self.name,)


_FORMATTER = logging.Formatter()


def _text_of(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception as error:  # noqa: BLE001 - whatever its arguments do when they are asked for their text
        text = f"{plain_text(record.msg)} (its arguments cannot be put in: {type(error).__name__})"
    if record.exc_info and record.exc_info[0] is not None:
        try:
            text += "\n" + _FORMATTER.formatException(record.exc_info)
        except Exception as error:  # noqa: BLE001 - an exception whose text raises
            text += f"\n{record.exc_info[0].__qualname__} (its traceback raised {type(error).__name__})"
    elif record.exc_text:
        text += f"\n{record.exc_text}"
    if record.stack_info:
        text += f"\n{record.stack_info}"
    return text


_make_record: Callable[..., logging.LogRecord] | None = None
_capturing = threading.Lock()


def capture_records() -> None:
    """Have every record that is made in a step kept; handlers and levels stay as they are.

    A handler of the root logger would do that too, and would silence warnings where logging is not configured,
    have `logging.basicConfig` do nothing, and miss loggers that do not propagate.
    """
    global _make_record  # noqa: PLW0603 - of the process, as logging is
    with _capturing:
        if _make_record is None:
            _make_record = logging.getLogRecordFactory()
            logging.setLogRecordFactory(_captured_record)


def _captured_record(*args: Any, **options: Any) -> logging.LogRecord:
    assert _make_record is not None
    record = _make_record(*args, **options)
    attempt = keeper()
    # without a name it is about to be filled by logging.makeLogRecord
    if attempt is not None and args and args[0] is not None:
        attempt.record(record)
    return record


class _Tee:
    """A standard stream that also keeps what steps print; everything else is done by the stream."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        attempt = keeper()
        if attempt is not None:
            attempt.printed(self._name, text)
        return written

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def keep_prints() -> None:
    """Keep what steps print to the streams of this process from now on, for as long as it lives.

    For a process that exists to run steps of others: a worker of a cluster. Done again, it changes nothing.
    """
    with _capturing:
        _tee_streams()


def _tee_streams() -> list[tuple[str, TextIO, TextIO]]:
    replaced = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)
        if stream is not None and not isinstance(stream, _Tee):
            tee = cast("TextIO", _Tee(stream, name))
            setattr(sys, name, tee)
            replaced.append((name, stream, tee))
    return replaced


@contextmanager
def prints_kept() -> Iterator[None]:
    """Keep what steps print to `sys.stdout` and `sys.stderr` of this process, which belongs to FlowStone.

    The command line does this, for its workers too. A process of the user's keeps its streams as they are: whoever
    runs an app inside it may have replaced them (a notebook, a test, a server).
    """
    replaced = _tee_streams()
    try:
        yield
    finally:
        for name, stream, tee in replaced:
            if getattr(sys, name) is tee:
                setattr(sys, name, stream)
