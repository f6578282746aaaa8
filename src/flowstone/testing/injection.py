"""Killing a process at a chosen point of a step or of a conclusion, to prove that nothing is lost there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from flowstone.core.context import AssetContext
from flowstone.core.outcome import AttemptOutcome
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
