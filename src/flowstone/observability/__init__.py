"""What leaves the process about the work in it: traces, metrics, lineage, logs as JSON; docs/observability.md.

Nothing here is imported unless a program uses it, and nothing here may delay a step: what sends over a network has
a queue and a thread of its own (`background`).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowstone.observability.json_logs import JsonFormatter
    from flowstone.observability.openlineage import OpenLineage
    from flowstone.observability.tracing import OpenTelemetry

_HOMES = {"JsonFormatter": "json_logs", "OpenLineage": "openlineage", "OpenTelemetry": "tracing"}

__all__ = ["JsonFormatter", "OpenLineage", "OpenTelemetry"]


def __getattr__(name: str) -> object:
    """Load a name on its first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    setattr(sys.modules[__name__], name, value)
    return value
