"""For tests of assets, of whole apps, and of parts of your own; names load on first use.

With pytest installed, the fixtures of `flowstone.testing.plugin` are there without an import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowstone.testing.building import build_context
    from flowstone.testing.clock import FrozenClock
    from flowstone.testing.injection import FailurePoints, KillPoints
    from flowstone.testing.workers import run_to_completion, worker

__all__ = ["FailurePoints", "FrozenClock", "KillPoints", "build_context", "run_to_completion", "worker"]

_MODULES = {
    "FailurePoints": "flowstone.testing.injection",
    "FrozenClock": "flowstone.testing.clock",
    "KillPoints": "flowstone.testing.injection",
    "build_context": "flowstone.testing.building",
    "run_to_completion": "flowstone.testing.workers",
    "worker": "flowstone.testing.workers",
}

if not TYPE_CHECKING:  # whose checkers would then take every name for one that is there

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES[name]), name)
        return value
