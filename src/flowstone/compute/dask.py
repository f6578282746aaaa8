"""Calls on a Dask cluster: one task for an attempt, which Dask is to run at most once.

The client, its futures and its connection are used through what `distributed` documents; what the scheduler
repeats by itself when its workers die (`allowed-failures`) is its own setting, which `diagnose` reads.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from flowstone.compute.cluster import ClusterCompute, one_line
from flowstone.core.declaring import duration, is_text, number, shown
from flowstone.core.forks import keep_of_parent, renew_after_fork
from flowstone.errors import ComputeLostError, ConfigurationError, MissingExtraError
from flowstone.protocols import CancelCall, Code, ComputeCall, LoggedByCall, PerformCall, Values

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger("flowstone.compute")

_CONNECT_SECONDS = 10.0
_ASK_SECONDS = 10.0
_FETCH_SECONDS = 60.0
_WATCH_SECONDS = 1.0
_SEND_SECONDS = 2.0
_MAX_FAILURES = 3
_MAX_BATCHES = 100
_RECONNECT_SECONDS = 1.0
_AT_WORK = ("executing", "long-running")
_WAITS = {
    "no-worker": "the Dask cluster has no worker that fits (workers, resources), or none at all",
    "queued": "all Dask workers are busy",
}
_OVER = ("closing", "closed", "failed")
_WARNING = (
    "The Dask scheduler repeats a task on another worker when one dies (allowed-failures is %d, so up to %d "
    "runs of a function in one attempt). Set distributed.scheduler.allowed-failures to 0 where it is started, and "
    "let FlowStone repeat: it knows what was committed."
)


class DaskCompute(ClusterCompute):
    """Calls each function as a task of a Dask cluster.

    The worker that holds the step submits it, waits, and commits; the future is released as soon as its answer is
    here. Options of an asset: `workers`, `allow_other_workers`, `resources` and `priority`, as `Client.submit`
    takes them.

    Args:
        address: of the scheduler, such as `tcp://scheduler:8786`; or a function that returns a connected `Client`,
            for clusters that need more than an address (TLS, a gateway). What it returns is closed with the app.
        connect_seconds: how long a scheduler may take to answer before the attempt fails, to be repeated.
        code: "reference": functions are imported there by name, and refused when they are others than here.
            "cloudpickle": they travel by value.
        values: "remote": inputs are loaded and the value is stored there, when the IO manager is shared and can be
            pickled. "local": this worker does both.

    Raises:
        ConfigurationError: an argument cannot work.

    Example:
        >>> dask = DaskCompute("tcp://127.0.0.1:8786")
        >>> dask.check({"resources": {"GPU": 1}, "priority": 5})
        >>> dask.close()
    """

    kind = "Dask"
    options = ("workers", "allow_other_workers", "resources", "priority")
    refused: ClassVar[Mapping[str, str]] = {
        "retries": "a submission is one attempt; FlowStone repeats it, @asset(retry=RetryPolicy(...))",
        "pure": "each call has a key of its own, and runs",
        "key": "each call has a key of its own",
        "fifo_timeout": "use priority",
    }

    def __init__(
        self,
        address: str | Callable[[], Client],
        *,
        connect_seconds: float = _CONNECT_SECONDS,
        code: Code = "reference",
        values: Values = "remote",
    ) -> None:
        if isinstance(address, type) or not (callable(address) or is_text(address)):
            raise ConfigurationError(
                f"DaskCompute({shown(address)}): give the address of the scheduler, such as "
                "'tcp://scheduler:8786', or a function that returns a connected Client."
            )
        super().__init__(code, values)
        seconds = duration(connect_seconds)
        if not seconds:
            raise ConfigurationError(f"DaskCompute(connect_seconds={shown(connect_seconds)}): give more than 0.")
        self._address = address
        self._connect_seconds = seconds
        self._client: Client | None = None
        self._renew()
        renew_after_fork(self, DaskCompute._renew)

    def _renew(self) -> None:
        # the connection and the loop of a forked process are its parent's
        keep_of_parent(self._client)
        self._client = None
        self._lines: _LogLines
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """The cluster, for people."""
        return f"the Dask scheduler {self._address}" if isinstance(self._address, str) else "a Dask scheduler"

    def _hand_over(self, call: ComputeCall) -> _Submitted:
        client, lines = self._connected()
        lines.add(call)
        try:
            future = client.submit(
                _run,
                call.perform,
                call.cancel,
                call.logged,
                lines.name,
                call.key,
                call.payload,
                key=call.key,
                pure=False,
                retries=0,
                **dict(call.options),
            )
            future.add_done_callback(lambda _: call.wake())
        except BaseException:
            lines.remove(call)
            raise
        return _Submitted(self.where, client, lines, future, call)

    def _problem(self, name: str, value: object) -> str | None:
        match name:
            case "workers":
                listed = value if isinstance(value, list | tuple) else [value]
                fits = bool(listed) and all(is_text(one) for one in listed)
                return None if fits else "give a worker's name or address, or a list of them"
            case "allow_other_workers":
                return None if isinstance(value, bool) else "give True or False"
            case "priority":
                return None if isinstance(value, int) and not isinstance(value, bool) else "give a whole number"
            case _:
                fits = isinstance(value, Mapping) and all(
                    isinstance(one, str) and (number(much) or 0) > 0 for one, much in value.items()
                )
                return None if fits else 'give amounts by name, such as {"GPU": 1}'

    def close(self) -> None:
        """Close the connection; it can be used again."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.close(timeout=_ASK_SECONDS)

    def diagnose(self) -> Iterator[tuple[Literal["ok", "warn", "fail"], str, str]]:
        """Yield whether the scheduler answers, has workers, and repeats tasks by itself."""
        try:
            client, _ = self._connected()
            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            allowed = client.run_on_scheduler(_allowed_failures())
        except MissingExtraError as error:
            yield "fail", "distributed is not installed", str(error)
            return
        except Exception as error:  # noqa: BLE001 - that is the finding
            yield "fail", f"{self.where} does not answer: {one_line(error)}", "Start it, or correct its address."
            return
        if workers:
            yield "ok", f"{self.where} answers, with {workers} worker{'s' * (workers > 1)}", ""
        else:
            yield "warn", f"{self.where} answers, and has no worker", "Start `dask worker`; calls wait until then."
        if allowed:
            yield "warn", f"allowed-failures of {self.where} is {allowed}", _WARNING % (allowed, allowed + 1)
        else:
            yield "ok", f"{self.where} repeats nothing by itself", ""

    def _connected(self) -> tuple[Client, _LogLines]:
        """Return a client whose connection works, a new one when the last one was lost."""
        try:
            from distributed import Client
        except ImportError:
            raise MissingExtraError("distributed", "dask", "DaskCompute") from None
        with self._lock:
            client = self._client
            if client is not None and client.status == "running":
                return client, self._lines
            if client is not None:
                self._client = None
                with suppress(Exception):
                    client.close(timeout=0.5)
            if callable(self._address):
                client = self._address()
            else:
                client = Client(
                    self._address,
                    timeout=self._connect_seconds,
                    set_as_default=False,
                    asynchronous=False,
                    name="flowstone",
                )
            self._client = client
            with suppress(Exception):  # a scheduler that does not say it is used all the same
                if allowed := client.run_on_scheduler(_allowed_failures()):
                    log.warning(_WARNING, allowed, allowed + 1)
            self._lines = _LogLines(client)
            return client, self._lines


class _LogLines:
    """What tasks of one connection log while they run: a queue on the scheduler, which this process empties.

    Nothing else that Dask offers is bounded and gone once it was read: the scheduler keeps events for good, and
    each function that is run on workers in order to know is a line in their logs.

    Args:
        client: the connection.
    """

    def __init__(self, client: Client) -> None:
        self.name = f"flowstone-{secrets.token_hex(8)}"
        self._calls: dict[str, ComputeCall] = {}
        client.loop.add_callback(self._read, client)

    def add(self, call: ComputeCall) -> None:
        """Pass on what a call logs from now on."""
        self._calls[call.key] = call

    def remove(self, call: ComputeCall) -> None:
        """Nobody waits for the call any more."""
        self._calls.pop(call.key, None)

    async def _read(self, client: Client) -> None:
        from distributed import Queue

        while client.status not in _OVER:
            try:
                queue = await Queue(self.name, client=client, maxsize=_MAX_BATCHES)
                while True:
                    key, entries = await queue.get(asynchronous=True)
                    if call := self._calls.get(key):
                        call.arrived(entries)
            except Exception as error:  # noqa: BLE001 - answers have the lines too
                log.debug("Lines that Dask tasks log do not arrive just now: %s", one_line(error))
                if client.status in _OVER:
                    return
                await asyncio.sleep(_RECONNECT_SECONDS)  # another scheduler, where this one was


class _Submitted:
    """A task, until its answer is here."""

    def __init__(self, where: str, client: Client, lines: _LogLines, future: Future, call: ComputeCall) -> None:
        self._where = where
        self._client = client
        self._lines = lines
        self._future = future
        self._call = call
        self._fetch_seconds = _FETCH_SECONDS

    def answer(self) -> bytes | None:
        """Return the answer of a task that is over.

        Raises:
            ComputeLostError: Dask has none.
        """
        match self._future.status:
            case "finished":
                return self._fetched()
            case "pending":
                if self._client.status in ("closing", "closed"):
                    raise self._lost("the connection to it was closed")
                return None
            case "error":
                try:
                    error = self._future.exception(timeout=_ASK_SECONDS)
                except Exception as unreadable:  # noqa: BLE001 - of a class that is not here
                    error = unreadable
                raise self._lost(_reason(error))
            case status:  # cancelled, lost: of tasks that the scheduler no longer knows, or not for us
                raise self._lost(f"the task is {status}: the scheduler, or what it kept, is gone")

    def waits_for(self) -> str | None:
        """Return what the scheduler says of a task that has not been given to a worker.

        Raises:
            ComputeLostError: the scheduler does not know the task, although nothing was said of its end.
        """
        try:
            found = self._on_scheduler()
        except Exception:  # noqa: BLE001 - the connection's end is reported as such
            return None
        if found is None and self._future.status == "pending":
            raise self._lost("the scheduler does not know its task any more")
        return None if found is None else _WAITS.get(found[0])

    def cancel(self, reason: str) -> None:
        """Set the token of the call where it runs; a waiting task is taken back.

        Only the process that has it is talked to, and not for long: one that cannot listen just now, because a
        library holds its interpreter, holds up neither this step nor those of other processes.
        """
        call = self._call
        try:
            found = self._on_scheduler()
            if found is None or found[1] is None:
                self._client.cancel([self._future], force=True)
                return
            self._client.run(call.cancel, call.key, reason, workers=[found[1]], callback_timeout=_ASK_SECONDS)
        except Exception as error:  # noqa: BLE001 - without a connection there is nobody to reach
            log.warning("The cancel of %s does not reach %s: %s", call.asset, self._where, one_line(error))

    def release(self) -> None:
        """Have the scheduler forget the task: what a future holds is computed again when its worker dies.

        Where it still runs, `_watch` sees that nobody waits.
        """
        self._lines.remove(self._call)
        with suppress(Exception):
            if not self._future.done():
                self._client.cancel([self._future], force=True)
            self._future.release()

    def _on_scheduler(self) -> tuple[str, str | None] | None:
        """Return the state of the task, and the address of the process that has it; None when it is not known."""
        found: tuple[str, str | None] | None = self._client.run_on_scheduler(
            _task_on_scheduler(), self._call.key, callback_timeout=_ASK_SECONDS
        )
        return found

    def _fetched(self) -> bytes | None:
        try:
            answer: object = self._future.result(timeout=self._fetch_seconds)
        except TimeoutError:  # whoever has it is busy, or it is large: a cancel is heard in between
            self._fetch_seconds *= 2
            self._call.wake()
            return None
        except Exception as error:
            raise self._lost(f"its answer was lost before it was here: {one_line(error)}") from error
        if not isinstance(answer, bytes):
            raise self._lost(f"the task returned {type(answer).__name__} instead of an answer")
        return answer

    def _lost(self, why: str) -> ComputeLostError:
        return ComputeLostError(self._call.asset, self._where, why)


def _run(
    perform: PerformCall, cancel: CancelCall, logged: LoggedByCall, lines: str, key: str, payload: bytes
) -> bytes:
    """Run a call in a Dask worker, send what it logs, and cancel it when the scheduler has taken its task back.

    That happens when whoever waited for it is gone: Dask itself lets the function go on to its end.
    """
    over = threading.Event()
    watch = partial(_watch, cancel, logged, lines, key, over)
    threading.Thread(target=watch, name=f"flowstone-watch-{key}", daemon=True).start()
    try:
        return perform(payload)
    finally:
        over.set()


def _watch(cancel: CancelCall, logged: LoggedByCall, lines: str, key: str, over: threading.Event) -> None:
    from distributed.worker import Worker

    sent = failures = 0
    while not over.wait(_WATCH_SECONDS):
        try:
            # those of this process; `get_worker` knows that of the task's own thread only
            found = next((one for one in list(Worker._instances) if _is_at_work(one, key)), None)  # noqa: SLF001
        except Exception:  # noqa: BLE001 - another version of Dask: its functions run to their end, as ever
            return
        if found is None:
            cancel(key, "nobody waits any more")
            return
        while failures < _MAX_FAILURES and (batch := logged(key, sent)) is not None:
            try:
                _send(found, lines, key, batch[1])
            except Exception:  # noqa: BLE001 - the answer has the lines too
                failures += 1
                break
            sent, failures = batch[0], 0


def _send(worker: Any, lines: str, key: str, entries: bytes) -> None:
    """Put lines on their queue by the worker's own connection.

    `distributed.Queue` would need a client, and the first one in a worker becomes the default of the user's code.
    """
    from distributed.utils import sync

    put = worker.scheduler.queue_put
    sync(worker.loop, put, name=lines, data=[key, entries], timeout=_SEND_SECONDS, callback_timeout=_ASK_SECONDS)


def _is_at_work(worker: Any, key: str) -> bool:
    task = worker.state.tasks.get(key)
    return worker.status.name not in _OVER and task is not None and task.state in _AT_WORK


def _allowed_failures() -> Callable[..., int]:
    """Return a function that reads, there, how often the scheduler repeats a task whose worker died.

    It lies in a function, so that it travels by value: the scheduler may have another version of FlowStone.
    """

    def allowed_failures(dask_scheduler: Any = None) -> int:
        return int(getattr(dask_scheduler, "allowed_failures", 0))

    return allowed_failures


def _task_on_scheduler() -> Callable[..., tuple[str, str | None] | None]:
    """Return a function that reads there what state a task is in, and which worker has it."""

    def task_on_scheduler(key: str, dask_scheduler: Any = None) -> tuple[str, str | None] | None:
        task = dask_scheduler.tasks.get(key)
        if task is None:
            return None
        return str(task.state), None if task.processing_on is None else str(task.processing_on.address)

    return task_on_scheduler


def _reason(error: BaseException | None) -> str:
    if type(error).__name__ == "KilledWorker":
        return "its worker died while it ran the function (killed, out of memory, or lost)"
    return one_line(error)
