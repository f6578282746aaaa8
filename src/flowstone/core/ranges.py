"""Targets of a large backfill that are placed as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flowstone.errors import command


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRange:
    """Partitions of one asset to be computed, independent of each other.

    Their steps are made when a worker begins them.

    Args:
        asset: asset name.
        partitions: encoded partitions, each once; read once, while they are placed.
        queue: queue of the steps.
        priority: 0 (first) to 9.
        max_attempts: attempts of each step in all.
        forced: compute what is committed as well.
        code_version: version of the asset's code, when declared.
        config_hash: see `NewStep`.
        same_config: see `NewStep`.
        tags: tags of the asset, for the tools of the queue.
        unique_seconds: see `flowstone.core.step.NewRun`.
    """

    asset: str
    partitions: Iterable[str]
    queue: str
    priority: int
    max_attempts: int
    forced: bool
    code_version: str | None
    config_hash: str | None = None
    same_config: bool = False
    tags: tuple[str, ...] = ()
    unique_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class UnstartedTarget:
    """A target that waits in a range for a worker to begin it.

    Args:
        run_id: the backfill.
        paused: whether that run is paused.
        queue: queue on which it is served.
        before: partitions of the run that come before it.
    """

    run_id: str
    paused: bool
    queue: str
    before: int

    def explain(self) -> str:
        """Return what holds it up.

        Example:
            >>> UnstartedTarget("r1", False, "backfill", 2).explain()
            "2 partitions of the backfill r1 come before it in the queue 'backfill'"
        """
        if self.paused:
            return f"its run {self.run_id} is paused: `{command('resume', self.run_id)}`"
        come = "1 partition" if self.before == 1 else f"{self.before} partitions"
        verb = "comes" if self.before == 1 else "come"
        return f"{come} of the backfill {self.run_id} {verb} before it in the queue {self.queue!r}"
