"""Faults at chosen points: a process killed in a step or in a conclusion, an attempt that fails."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowstone.app.targets import target_of
from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext
from flowstone.core.outcome import AttemptOutcome
from flowstone.core.partitions import Partition
from flowstone.errors import OptionsError
from flowstone.protocols import Hook, StepCall

BEFORE_RUN = "before_run"
"""The attempt has started, the function was not called yet."""
AFTER_STORE = "after_store"
"""The value is stored, the attempt is not committed yet."""

BEFORE_CONCLUDE = "before_conclude"
"""A sensor, or another automation, was evaluated; its conclusion has not started."""
RUNS_OPENED = "runs_opened"
"""The conclusion has recorded tick, run keys, runs and jobs in its transaction, not the cursor."""
BEFORE_COMMIT = "before_commit"
"""The conclusion has recorded everything; its transaction is not committed."""
CONCLUDED = "concluded"
"""The conclusion is committed; nobody was notified yet."""

DIRECTORY = "FLOWSTONE_TEST_KILL_DIR"
"""Environment variable with the directory in which kills are armed."""


class KillPoints(Hook):
    """A hook that ends its own process with SIGKILL where a test armed it, once for each time.

    Pass it to the app that workers load (`FlowStone(..., hooks=[KillPoints()])`) and call `arm` from the test;
    without the environment variable it does nothing.

    Args:
        directory: where kills are armed; by default what the environment variable names, if it is set.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as directory:
        ...     points = KillPoints(Path(directory))
        ...     points.arm(AFTER_STORE, "numbers")
        ...     points.armed(AFTER_STORE, "numbers"), points.armed(AFTER_STORE, "others")
        (True, False)
    """

    def __init__(self, directory: Path | None = None) -> None:
        named = os.environ.get(DIRECTORY)
        self._directory = directory or (Path(named) if named else None)

    def arm(self, point: str, asset: str) -> None:
        """Have the next process that reaches this point with a step of this asset killed."""
        assert self._directory is not None, f"no directory was given, and {DIRECTORY} is not set"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file(self._directory, point, asset).touch()

    def armed(self, point: str, asset: str) -> bool:
        """Whether nobody has reached the point yet."""
        return self._directory is not None and self._file(self._directory, point, asset).exists()

    def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
        self.reach(BEFORE_RUN, context.asset.name)
        outcome = step(context)
        self.reach(AFTER_STORE, context.asset.name)
        return outcome

    def reach(self, point: str, asset: str) -> None:
        """Say that this process is at a point: it ends here if that was armed.

        Args:
            point: name of the point; parts of a test may have points of their own.
            asset: asset, or automation, for which it was armed.
        """
        if self._directory is None:
            return
        try:
            # removing the file is what makes it once, whoever else comes here at the same time
            self._file(self._directory, point, asset).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _file(directory: Path, point: str, asset: str) -> Path:
        return directory / f"{point}-{asset.encode().hex()}"


@dataclass(slots=True)
class _Failure:
    point: str
    asset: str
    error: BaseException | type[BaseException]
    partition: Partition
    left: int


class FailurePoints(Hook):
    """A hook that lets attempts fail at a point, in this process: what a flaky service or a full disk would do.

    The fixture `flowstone_faults` is one, and every app that the fixtures `flow` and `flow_postgres` make has it.

    Example:
        >>> from flowstone import FlowStone, RetryPolicy, asset
        >>> @asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0))
        ... def numbers():
        ...     return [1, 2, 3]
        >>> faults = FailurePoints()
        >>> flow = FlowStone.for_testing([numbers], hooks=[faults])
        >>> faults.fail(numbers, ConnectionError("reset"))
        >>> done = flow.materialize("numbers", executor_opts={"retry": True})
        >>> done.value, done.attempt, faults.left
        ([1, 2, 3], 2, 0)
    """

    def __init__(self) -> None:
        self._failures: list[_Failure] = []
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """How many failures nobody has met yet: 0 at the end of a test that meant them all."""
        with self._lock:
            return sum(one.left for one in self._failures)

    def fail(
        self,
        asset: Asset[..., Any] | str,
        error: BaseException | type[BaseException] = RuntimeError,
        *,
        at: str = BEFORE_RUN,
        partition: Partition = None,
        times: int = 1,
    ) -> None:
        """Let the next attempts of an asset fail.

        Args:
            asset: the asset or its name.
            error: what is raised.
            at: `BEFORE_RUN`, or `AFTER_STORE`: the value is written and will not be committed.
            partition: only attempts of this one, as verbs take it; None for whichever comes.
            times: how many attempts.

        Raises:
            OptionsError: there is no such point, or `error` is no exception.
        """
        if at not in (BEFORE_RUN, AFTER_STORE):
            raise OptionsError(f"at={at!r}: give {BEFORE_RUN!r} or {AFTER_STORE!r}.")
        kind = error if isinstance(error, type) else type(error)
        if not issubclass(kind, BaseException):
            raise OptionsError(f"error={error!r}: give an exception, such as ConnectionError('reset').")
        if type(times) is not int or times < 1:
            raise OptionsError(f"times={times!r}: give a whole number above 0.")
        name = asset if isinstance(asset, str) else asset.name
        with self._lock:
            self._failures.append(_Failure(at, name, error, partition, times))

    def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
        self._reach(BEFORE_RUN, context)
        outcome = step(context)
        self._reach(AFTER_STORE, context)
        return outcome

    def _reach(self, point: str, context: AssetContext) -> None:
        with self._lock:
            for one in self._failures:
                if not one.left or one.point != point or one.asset != context.asset.name:
                    continue
                if one.partition is None or target_of(context.asset, one.partition)[1] == context.key:
                    one.left -= 1
                    break
            else:
                return
        raise one.error
