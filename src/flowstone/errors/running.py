"""Errors of steps and of waiting for them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowstone.errors.root import FlowStoneError, command, join_names, selected


class DependencyNotReadyError(FlowStoneError, RuntimeError):
    """Inputs of an asset have no committed materialization yet.

    Args:
        asset: the asset that cannot run.
        partition: its encoded partition.
        missing: the inputs, as pairs of asset and encoded partition.
        allow_incomplete: whether it is not over, so that only asking for that builds it.
        label: writes an encoded partition of an asset as people type it: that of the asset graph.
    """

    def __init__(
        self,
        asset: str,
        partition: str,
        missing: Sequence[tuple[str, str]],
        *,
        allow_incomplete: bool = False,
        label: Callable[[str, str], str] = lambda asset, key: key,
    ) -> None:
        self.asset = asset
        self.partition = partition
        self.missing = tuple(missing)
        text = label(asset, partition) if partition else None
        target = f"{asset!r}" + (f" [{text}]" if text is not None else "")
        listed = join_names(f"{name} [{label(name, key)}]" if key else name for name, key in missing)
        remedy = command(
            "materialize", selected(asset, upstream=True), partition=text, allow_incomplete=allow_incomplete
        )
        super().__init__(
            f"{target} cannot run yet: no committed materialization of {listed}. Build what is missing with "
            f"flow.materialize_all({asset!r}, ...) or `{remedy}`."
        )


class NotMaterializedError(DependencyNotReadyError):
    """Nothing is committed for an asset's partition, so there is no value to load.

    Args:
        asset: the asset.
        partition: its encoded partition.
        last: what came of the newest step for it.
        allow_incomplete: whether it is not over, so that only asking for that builds it.
        label: writes an encoded partition of an asset as people type it: that of the asset graph.
    """

    def __init__(
        self,
        asset: str,
        partition: str,
        *,
        last: str = "",
        allow_incomplete: bool = False,
        label: Callable[[str, str], str] = lambda asset, key: key,
    ) -> None:
        super().__init__(asset, partition, [(asset, partition)], allow_incomplete=allow_incomplete, label=label)
        text = label(asset, partition) if partition else None
        target = f"{asset!r}" + (f" [{text}]" if text is not None else "")
        remedy = command(
            "materialize", selected(asset, upstream=True), partition=text, allow_incomplete=allow_incomplete
        )
        happened = f" ({last})" if last else ""
        self.args = (
            f"Nothing is committed for {target}{happened}, so there is no value to load. Make it with "
            f"flow.materialize_all({asset!r}, ...) or `{remedy}`.",
        )


class StepFailedError(FlowStoneError, RuntimeError):
    """A step ended without a materialization and its original exception is not in this process.

    Raised by executors whose work runs elsewhere.

    Attributes:
        asset: asset name.
        partition: encoded partition.
        state: state of the step, such as `failed` or `upstream_failed`.
        error: recorded text with the traceback, or why the step never started.
        error_type: qualified name of the class of what was raised, such as `shop.api.ApiError`, if any.
        attempts: how many attempts were made.
        data: what `Fatal(..., data=...)` said.
    """

    def __init__(
        self,
        asset: str,
        partition: str,
        state: str,
        error: str | None,
        *,
        error_type: str | None = None,
        attempts: int = 0,
        data: Mapping[str, Any] | None = None,
        label: str | None = None,
    ) -> None:
        self.asset = asset
        self.partition = partition
        self.state = state
        self.error = error
        self.error_type = error_type
        self.attempts = attempts
        self.data = data
        target = f"{asset!r}" + (f" [{partition if label is None else label}]" if partition else "")
        super().__init__(f"{target} ended as {state}." + (f"\n{error}" if error else ""))

    def caused_by(self, kind: type[BaseException]) -> bool:
        """Whether the step raised this class or a subclass of it that is known here: the twin of `except kind`.

        Example:
            >>> error = StepFailedError("a", "", "failed", "...", error_type="builtins.FileNotFoundError")
            >>> error.caused_by(OSError)
            True
        """
        waiting, seen = [kind], {kind}
        while waiting:
            one = waiting.pop()
            if f"{one.__module__}.{one.__qualname__}" == self.error_type:
                return True
            below = [found for found in type.__subclasses__(one) if found not in seen]
            seen.update(below)
            waiting += below
        return False


class RetryPolicyError(FlowStoneError, ValueError):
    """The function given as `RetryPolicy(backoff=...)` did not say how long to wait."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"RetryPolicy(backoff=...) {what}, so there is no further attempt. Return a timedelta or seconds, "
            "from 0 to a year."
        )


class MaterializationTimeoutError(FlowStoneError, TimeoutError):
    """An asset ran longer than its timeout."""

    def __init__(self, asset: str, seconds: float) -> None:
        self.asset = asset
        self.seconds = seconds
        super().__init__(
            f"Asset {asset!r} did not finish within its timeout of {seconds:g} s. "
            "Raise @asset(timeout=...) or make the work smaller."
        )


class WaitTimeoutError(FlowStoneError, TimeoutError):
    """Waiting ended; the work itself goes on."""

    def __init__(self, what: str, seconds: float, handle: str) -> None:
        self.handle = handle
        super().__init__(
            f"{what} was not over within {seconds:g} s; it goes on running. Ask again with "
            f"`{command('status', handle)}`, stop it with `{command('cancel', handle)}`."
        )


class StaleAttemptError(FlowStoneError, RuntimeError):
    """An attempt tried to publish after it had been replaced by another one (fencing)."""

    def __init__(self, asset: str, attempt: int) -> None:
        self.asset = asset
        self.attempt = attempt
        super().__init__(f"Attempt {attempt} of {asset!r} was superseded; its result was not published.")


class StepCancelledError(FlowStoneError, RuntimeError):
    """The work was cancelled before it was over."""

    def __init__(self, asset: str, reason: str | None = None) -> None:
        self.asset = asset
        self.reason = reason
        super().__init__(f"{asset!r} was cancelled{f': {reason}' if reason else ''}.")


class WorkerCrashedError(FlowStoneError, RuntimeError):
    """The process in which an asset ran died before the asset was done.

    Args:
        asset: name of the asset.
        exit_code: as `subprocess` reports it: negative for the number of a signal.
        stderr: the last that the process wrote to standard error.
    """

    def __init__(self, asset: str, exit_code: int, stderr: str = "") -> None:
        self.asset = asset
        self.exit_code = exit_code
        self.stderr = stderr
        self.signal_name = _signal_name(-exit_code) if exit_code < 0 else None
        how = f"killed by {self.signal_name}" if self.signal_name else f"exit code {exit_code}"
        meaning = _SIGNAL_MEANING.get(self.signal_name or "", "")
        if not self.signal_name:
            meaning = "code called os._exit, or a library ended the process"
        usually = f", which usually means: {meaning}" if meaning else ""
        tail = f"\nThe last lines of its stderr:\n{stderr.rstrip()}" if stderr.strip() else ""
        super().__init__(f"The process of asset {asset!r} died ({how}){usually}.{tail}")


_SIGNAL_MEANING = {
    "SIGKILL": "out of memory (the kernel ended it), or a person sent kill -9",
    "SIGSEGV": "a bug in C code of a library (stack overflow by deep recursion included)",
    "SIGABRT": "a C library gave up, for example for want of memory",
    "SIGBUS": "a memory-mapped file became shorter, or the disk is full",
    "SIGILL": "a library was built for another processor",
    "SIGFPE": "a division by zero in C code of a library",
    "SIGTERM": "a person or a supervisor stopped it",
    "SIGXCPU": "its limit of processor time was reached",
}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class IsolatedFailureError(FlowStoneError, RuntimeError):
    """An asset raised, in a process of its own, an exception that could not be brought from there.

    Args:
        asset: name of the asset.
        type_name: qualified class of the exception.
        text: its message.
    """

    def __init__(self, asset: str, type_name: str, text: str) -> None:
        self.asset = asset
        self.type_name = type_name
        self.text = text
        super().__init__(f"{type_name}: {text} (raised by {asset!r} in its own process; it cannot be pickled)")


class StepChangedError(FlowStoneError, RuntimeError):
    """A step was placed by code that declares its asset otherwise than the code that is at work now.

    Args:
        asset: name of the asset.
        partition: its encoded partition.
        now: what is declared now.
    """

    def __init__(self, asset: str, partition: str, now: str) -> None:
        self.asset = asset
        self.partition = partition
        self.now = now
        where = f"{asset!r} [{partition}]" if partition else repr(asset)
        super().__init__(
            f"The step of {where} was placed by code that declares this asset otherwise, and no living worker "
            f"runs that code: {now}. Nothing was run. Place it again with the code of today."
        )
