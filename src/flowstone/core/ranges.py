"""Targets of a large backfill that are placed as a whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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
    """

    asset: str
    partitions: Iterable[str]
    queue: str
    priority: int
    max_attempts: int
    forced: bool
    code_version: str | None
