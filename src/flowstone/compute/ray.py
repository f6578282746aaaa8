"""Calls on a Ray cluster: one task for an attempt, which Ray is to run at most once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Literal

from flowstone.compute.cluster import ClusterCompute, one_line
from flowstone.core.declaring import is_text, named_values, shown
from flowstone.core.forks import renew_after_fork
from flowstone.errors import ComputeLostError, ConfigurationError, MissingExtraError
from flowstone.protocols import CancelCall, Code, ComputeCall, LoggedByCall, PerformCall, Values

log = logging.getLogger("flowstone.compute")

_INIT = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
_GRACE_SECONDS = 10.0
_TICK_SECONDS = 0.1
_SEND_SECONDS = 0.5
_WAIT_SECONDS = 0.2


class RayCompute(ClusterCompute):
    """Calls each function as a task of a Ray cluster.

    Options of an asset are those of `ray.remote` that say where and with what it runs: `num_cpus`, `num_gpus`,
    `memory`, `resources`, `accelerator_type`, `scheduling_strategy`, `runtime_env`, `label_selector`.

    A Ray that is connected already in this process is used, and left alone at the end.

    Args:
        address: as `ray.init` takes it: "auto", "10.0.0.1:6379", "ray://..."; None starts a Ray of this machine.
        init: further arguments of `ray.init`, such as `runtime_env` or `namespace`.
        code: see `flowstone.protocols.Code`; as are `values`.
        values: where values are loaded and stored.

    Raises:
        ConfigurationError: an argument cannot work.

    Example:
        >>> ray = RayCompute("auto")
        >>> ray.check({"num_gpus": 1})
        >>> ray.close()
    """

    kind = "Ray"
    options = (
        *("num_cpus", "num_gpus", "memory", "resources", "accelerator_type"),
        *("scheduling_strategy", "runtime_env", "label_selector"),
    )
    refused: ClassVar[Mapping[str, str]] = {
        "max_retries": "a submission is one attempt; FlowStone repeats it, @asset(retry=RetryPolicy(...))",
        "retry_exceptions": "FlowStone repeats, @asset(retry=RetryPolicy(retry_on=...))",
        "num_returns": "a call has one answer",
    }

    def __init__(
        self,
        address: str | None,
        *,
        init: Mapping[str, Any] | None = None,
        code: Code = "reference",
        values: Values = "remote",
    ) -> None:
        if address is not None and not is_text(address):
            raise ConfigurationError(f"RayCompute({shown(address)}): give an address such as 'auto', or None.")
        super().__init__(code, values)
        arguments = named_values(init or {})
        if arguments is None:
            raise ConfigurationError("RayCompute(init=...): give arguments of ray.init by name.")
        self._address = address
        self._init = arguments
        self._renew()
        renew_after_fork(self, RayCompute._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._own = False
        self._remote: Any = None
        self._answers = _Answers()

    @property
    def where(self) -> str:
        """The cluster, for people."""
        return f"the Ray cluster {self._address or 'of this machine'}"

    def _hand_over(self, call: ComputeCall) -> _Submitted:
        ray, task = self._connected()
        options = {"max_retries": 0, "retry_exceptions": False, "name": call.key} | dict(call.options)
        arguments = call.perform, call.cancel, call.logged, call.key, call.payload
        found = task.options(**options).remote(*arguments)
        submitted = _Submitted(self.where, ray, found, call)
        self._answers.add(submitted)
        return submitted

    def close(self) -> None:
        """Leave the cluster, unless this process was connected before."""
        with self._lock:
            own, self._own, self._remote = self._own, False, None
        if own:
            with suppress(Exception):
                import ray

                ray.shutdown()

    def diagnose(self) -> Iterator[tuple[Literal["ok", "warn", "fail"], str, str]]:
        """Yield whether the cluster answers, and with how many nodes."""
        try:
            nodes = sum(bool(node.get("Alive")) for node in self._connected()[0].nodes())
        except MissingExtraError as error:
            yield "fail", "ray is not installed", str(error)
        except Exception as error:  # noqa: BLE001 - that is the finding
            yield "fail", f"{self.where} does not answer: {one_line(error)}", "Start it, or correct its address."
        else:
            yield "ok", f"{self.where} answers, with {nodes} node{'s' * (nodes != 1)}", ""

    def _connected(self) -> tuple[Any, Any]:
        """Return Ray, and the task that runs calls."""
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray", "RayCompute") from None
        with self._lock:
            if not ray.is_initialized():
                ray.init(address=self._address, **(_INIT | self._init))
                self._own, self._remote = True, None
            if self._remote is None:
                client: Any = ray.util.client.ray
                # a client of Ray ("ray://") has no tasks that answer bit by bit
                self._remote = ray.remote(_run_whole if client.is_connected() else _run)
            return ray, self._remote


class _Submitted:
    """A task, until its answer is here."""

    def __init__(self, where: str, ray: Any, found: Any, call: ComputeCall) -> None:
        self.waits_on = found
        self.is_whole = isinstance(found, ray.ObjectRef)
        self._where = where
        self._ray = ray
        self._call = call
        self._answer: bytes | None = None
        self._error: Exception | None = None
        self.over = False

    def answer(self) -> bytes | None:
        """Return the answer of a task that is over.

        Raises:
            ComputeLostError: Ray has none.
        """
        if self._error is not None:
            raise ComputeLostError(self._call.asset, self._where, one_line(self._error)) from self._error
        return self._answer

    def waits_for(self) -> None:
        """Nobody knows: Ray's state of tasks needs its dashboard."""

    def cancel(self, reason: str) -> None:
        """Have Ray interrupt the task, which sets the token of the call; a waiting one is taken back."""
        with suppress(Exception):
            self._ray.cancel(self.waits_on, force=False)

    def release(self) -> None:
        """End what still runs, and let go of the answer."""
        if not self.over:
            self.over = True
            with suppress(Exception):
                self._ray.cancel(self.waits_on, force=True)
        self.waits_on = None

    def take_next(self) -> None:
        """Take what is there: lines that were logged, or the answer."""
        try:
            found: object = self._ray.get(self.waits_on if self.is_whole else next(self.waits_on))
            if isinstance(found, tuple):
                self._call.arrived(found[0])
                return
            if not isinstance(found, bytes):
                raise TypeError(f"the task returned {type(found).__name__} instead of an answer")
            self._answer = found
        except Exception as error:  # noqa: BLE001 - of the task, or of Ray: there is no answer
            self._error = error
        self.over = True
        self._call.wake()


class _Answers:
    """One thread that waits for all tasks, and takes what they send."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Submitted] = []
        self._serves = False

    def add(self, submitted: _Submitted) -> None:
        """Wait for a task until it is over or released."""
        with self._lock:
            self._waiting.append(submitted)
            if not self._serves:
                self._serves = True
                threading.Thread(target=self._serve, name="flowstone-ray", daemon=True).start()

    def _serve(self) -> None:
        import ray

        while True:
            with self._lock:
                self._waiting = [one for one in self._waiting if not one.over]
                tasks = [(one.waits_on, one) for one in self._waiting]
                by_task = {task: one for task, one in tasks if task is not None}
                if not by_task:
                    self._serves = False
                    return
            try:
                ready, _ = ray.wait(list(by_task), timeout=_WAIT_SECONDS)
            except Exception as error:  # noqa: BLE001 - this process has left the cluster: each of them says so
                log.debug("Waiting for Ray: %s", one_line(error))
                ready = list(by_task)
            for one in ready:
                if not by_task[one].over:
                    by_task[one].take_next()


def _run(
    perform: PerformCall, cancel: CancelCall, logged: LoggedByCall, key: str, payload: bytes
) -> Iterator[tuple[bytes] | bytes]:
    """Run a call in a Ray worker; yield what it logs meanwhile, each time as a tuple, and its answer.

    Ray interrupts the main thread, beside which the function hears its token.
    """
    answer: list[bytes] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(perform(payload))
        except BaseException as error:  # noqa: BLE001 - raised below
            failure.append(error)

    thread = threading.Thread(target=run, name=key, daemon=True)
    thread.start()
    leave_at = float("inf")
    send_at, sent = time.monotonic() + _SEND_SECONDS, 0
    while thread.is_alive() and time.monotonic() < leave_at:
        try:
            thread.join(_TICK_SECONDS)
            if time.monotonic() >= send_at:
                while (batch := logged(key, sent)) is not None:
                    sent = batch[0]
                    yield (batch[1],)
                send_at = time.monotonic() + _SEND_SECONDS
        except KeyboardInterrupt:
            leave_at = time.monotonic() + _GRACE_SECONDS
            cancel(key, "cancelled")
    if failure:
        raise failure[0]
    if not answer:
        raise KeyboardInterrupt
    yield answer[0]


def _run_whole(perform: PerformCall, cancel: CancelCall, logged: LoggedByCall, key: str, payload: bytes) -> bytes:
    """Run a call whose lines all come with its answer."""
    *_, answer = _run(perform, cancel, lambda key, after: None, key, payload)
    assert isinstance(answer, bytes)
    return answer
