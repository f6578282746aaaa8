"""Calls on a Ray cluster: one task for an attempt, which Ray is to run at most once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar, Literal

from flowstone.compute.cluster import ClusterCompute, one_line
from flowstone.core.declaring import is_text, shown
from flowstone.core.forks import renew_after_fork
from flowstone.errors import ComputeLostError, ConfigurationError, MissingExtraError
from flowstone.protocols import Code, ComputeCall, Values

log = logging.getLogger("flowstone.compute")

_INIT = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
_GRACE_SECONDS = 10.0
_TICK_SECONDS = 0.1


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
        self._address = address
        self._init = dict(init or {})
        self._renew()
        renew_after_fork(self, RayCompute._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._own = False
        self._remote: Any = None

    @property
    def where(self) -> str:
        """The cluster, for people."""
        return f"the Ray cluster {self._address or 'of this machine'}"

    def _hand_over(self, call: ComputeCall) -> _Submitted:
        ray = self._connected()
        options = {"max_retries": 0, "retry_exceptions": False, "name": call.key} | dict(call.options)
        reference = self._remote.options(**options).remote(call.perform, call.cancel, call.key, call.payload)
        reference.future().add_done_callback(lambda _: call.wake())
        return _Submitted(self.where, ray, reference, call)

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
            nodes = sum(bool(node.get("Alive")) for node in self._connected().nodes())
        except MissingExtraError as error:
            yield "fail", "ray is not installed", str(error)
        except Exception as error:  # noqa: BLE001 - that is the finding
            yield "fail", f"{self.where} does not answer: {one_line(error)}", "Start it, or correct its address."
        else:
            yield "ok", f"{self.where} answers, with {nodes} node{'s' * (nodes != 1)}", ""

    def _connected(self) -> Any:
        try:
            import ray
        except ImportError:
            raise MissingExtraError("ray", "ray", "RayCompute") from None
        with self._lock:
            if not ray.is_initialized():
                ray.init(address=self._address, **(_INIT | self._init))
                self._own, self._remote = True, None
            if self._remote is None:
                self._remote = ray.remote(_run)
            return ray


class _Submitted:
    """A task, until its answer is here."""

    def __init__(self, where: str, ray: Any, reference: Any, call: ComputeCall) -> None:
        self._where = where
        self._ray = ray
        self._reference = reference
        self._call = call

    def answer(self) -> bytes | None:
        """Return the answer of a task that is over.

        Raises:
            ComputeLostError: Ray has none.
        """
        try:
            if not self._ray.wait([self._reference], timeout=0)[0]:
                return None
            answer: object = self._ray.get(self._reference, timeout=60)
        except Exception as error:
            raise ComputeLostError(self._call.asset, self._where, one_line(error)) from error
        if not isinstance(answer, bytes):
            why = f"the task returned {type(answer).__name__} instead of an answer"
            raise ComputeLostError(self._call.asset, self._where, why)
        return answer

    def waits_for(self) -> None:
        """Nobody knows: Ray's state of tasks needs its dashboard."""

    def cancel(self, reason: str) -> None:
        """Have Ray interrupt the task, which sets the token of the call; a waiting one is taken back."""
        with suppress(Exception):
            self._ray.cancel(self._reference, force=False)

    def release(self) -> None:
        """End what still runs, and let go of the answer."""
        with suppress(Exception):
            if not self._ray.wait([self._reference], timeout=0)[0]:
                self._ray.cancel(self._reference, force=True)
        self._reference = None


def _run(perform: Callable[[bytes], bytes], cancel: Callable[[str, str], bool], key: str, payload: bytes) -> bytes:
    """Run a call in a Ray worker: Ray interrupts the main thread, beside which the function hears its token."""
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
    while thread.is_alive() and time.monotonic() < leave_at:
        try:
            thread.join(_TICK_SECONDS)
        except KeyboardInterrupt:
            leave_at = time.monotonic() + _GRACE_SECONDS
            cancel(key, "cancelled")
    if failure:
        raise failure[0]
    if not answer:
        raise KeyboardInterrupt
    return answer[0]
