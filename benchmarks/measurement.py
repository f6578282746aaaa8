"""Running measurements in turn, in the environments of their peers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.environments import HERE, python_of

_LIMIT_SECONDS = 300


@dataclass(slots=True)
class Series:
    """What one contestant took, round by round.

    Args:
        name: of the contestant.
        items: what the seconds are divided by: assets, partitions or jobs.
        rounds: seconds of each repetition, by round.
        extra: further figures that it answered, by name, one a round.
    """

    name: str
    items: int
    rounds: list[list[float]] = field(default_factory=list)
    extra: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def seconds(self) -> list[float]:
        """All repetitions."""
        return [one for seconds in self.rounds for one in seconds]

    @property
    def median(self) -> float:
        """Median seconds of all repetitions."""
        return statistics.median(self.seconds)

    def ratios(self, other: Series) -> list[float]:
        """Return, round by round, how many times longer the other took: for one item, by medians."""
        return [
            (statistics.median(theirs) / other.items) / (statistics.median(ours) / self.items)
            for ours, theirs in zip(self.rounds, other.rounds, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Contestant:
    """One line of a table: a measurement and its options.

    Args:
        name: shown.
        environment: where it runs.
        module: of `benchmarks.peers`.
        items: see `Series`.
        options: given to it as JSON.
        database: whether it needs one of its own, freshly made for each round.
    """

    name: str
    environment: str
    module: str
    items: int
    options: Mapping[str, Any]
    database: bool = False


def compete(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    before_each: Callable[[], None],
    run: Callable[[Contestant], dict[str, Any]],
) -> list[Series]:
    """Measure contestants in turn, the order reversed every other round.

    Args:
        contestants: who takes part.
        rounds: how often each of them.
        before_each: measures the machine's noise.
        run: measures one of them once.

    Returns:
        What each took, in the order of the contestants.
    """
    series = {one.name: Series(one.name, one.items) for one in contestants}
    for number in range(rounds):
        for one in contestants if number % 2 == 0 else reversed(contestants):
            before_each()
            print(f"  round {number + 1}/{rounds}: {one.name}", file=sys.stderr, flush=True)
            figures = run(one)
            series[one.name].rounds.append(figures.pop("seconds"))
            for name, value in figures.items():
                series[one.name].extra.setdefault(name, []).append(value)
    return list(series.values())


def run_measurement(contestant: Contestant, dsn: str | None = None) -> dict[str, Any]:
    """Run one measurement in its environment and return its figures.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    options = dict(contestant.options) | ({"dsn": dsn} if dsn else {})
    command = [
        python_of(contestant.environment),
        "-m",
        f"benchmarks.peers.{contestant.module}",
        json.dumps(options),
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWSTONE_", "OBAN_"))}
    clean.pop("PYTHONDONTWRITEBYTECODE", None)  # a user's modules are compiled once
    clean |= {"DAGSTER_DISABLE_TELEMETRY": "1", "HAMILTON_TELEMETRY_ENABLED": "false"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=HERE.parent, env=clean, timeout=_LIMIT_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{contestant.name} failed ({contestant.module}):\n{done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
