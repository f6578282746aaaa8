"""What a check may know about the value that it looks at."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from flowstone.core.asset import Asset
from flowstone.core.context import CancellationToken, Resources
from flowstone.core.output import JsonValue
from flowstone.core.partition import Partition


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckContext:
    """Passed to checks whose first parameter is `context`.

    Args:
        asset: declaration of the asset that is checked.
        check: name of the check.
        partition: partition value, None without partitions.
        key: encoded partition.
        run_id: run of the step that computed the value.
        step_id: that step.
        attempt: attempt of that step, from 1.
        resources: what the asset and the check require, opened.
        metadata: facts recorded with the output; for a blocking check, which runs before anything is stored,
            those that the asset's function noted.
        cancellation: signals when to stop.
    """

    asset: Asset
    check: str
    partition: Partition
    key: str
    run_id: str
    step_id: int
    attempt: int
    resources: Resources
    metadata: Mapping[str, JsonValue]
    cancellation: CancellationToken

    @property
    def logger(self) -> logging.Logger:
        """Logger of this check; its records carry run, asset, partition and attempt."""
        return logging.getLogger(f"flowstone.check.{self.asset.name}.{self.check}")
