"""What the author of an app declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowstone.core.asset import Asset
from flowstone.core.check import Check
from flowstone.engine.approvals import Notifier
from flowstone.protocols import Executor, Hook, IOManager

type ExecutorLike = Executor | Callable[[], Executor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """Everything that was passed to `FlowStone(...)`, under the same names."""

    assets: Iterable[Asset]
    checks: Iterable[Check] = ()
    io: Mapping[str, IOManager] = field(default_factory=dict)
    default_io: str | None = None
    resources: Mapping[str, Any] = field(default_factory=dict)
    hooks: Sequence[Hook | Mapping[str, Hook]] | Mapping[str, Hook] = ()
    executors: Mapping[str, ExecutorLike] = field(default_factory=dict)
    notifiers: Sequence[Notifier] = ()
