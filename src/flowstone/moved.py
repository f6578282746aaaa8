"""Modules that version 0.1 had elsewhere: what is imported from there, or pickled, is found for one version more.

Loaded by the package when a module of ours is imported that is not there.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "app.approvals": "app.admin",
    "app.checks": "app.admin",
    "app.executors": "app.admin",
    "app.queues": "app.admin",
    "app.retention": "app.admin",
    "app.run_handle": "app.results",
    "app.schedules": "app.automation",
    "app.sensors": "app.automation",
    "core.automation.cron": "core.cron",
    "core.automation.decision": "core.automation.condition",
    "core.automation.leaves": "core.automation.conditions",
    "core.automation.request": "core.automation.sensor",
    "core.automation.sensing": "core.automation.sensor",
    "core.automation.ticking": "core.automation.conditions",
    "core.calendar": "core.partitions_by_time",
    "core.check_context": "core.check",
    "core.check_record": "core.step",
    "core.dimensions": "core.partitions_by_key",
    "core.dynamic": "core.partitions_by_key",
    "core.hourly": "core.partitions_by_time",
    "core.known_keys": "core.partitions",
    "core.mapping_contract": "core.mapping",
    "core.partition": "core.partitions",
    "core.same_key": "core.mappings",
    "core.timeline": "core.partitions_by_time",
    "engine.gathered": "engine.scatter",
    "errors.approvals": "errors",
    "errors.checks": "errors",
    "errors.database": "errors",
    "errors.lookups": "errors",
    "errors.placing": "errors",
    "errors.routing": "errors",
    "errors.scattering": "errors",
    "errors.sensing": "errors",
    "errors.values": "errors",
    "executors.concurrent": "executors.inline",
    "executors.serial": "executors.inline",
    "executors.sync": "executors.inline",
    "io.arrays": "io.serializers",
    "io.json_serializer": "io.json",
    "io.raw_serializers": "io.serializers",
    "io.sources.new_files": "io.sources.files",
    "io.sources.new_rows": "io.sources.rows",
    "protocols.approvals": "protocols",
    "protocols.checks": "protocols",
    "protocols.partition_keys": "protocols",
    "protocols.scattering": "protocols",
}
"""Where the names of a module are now, both below `flowstone`."""


class _Loader(Loader):
    """Makes a module that takes every name from where it is now."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        place = f"flowstone.{MOVED[module.__name__.removeprefix('flowstone.')]}"
        warnings.warn(
            f"{module.__name__} is now {place}; the old path goes with the next version.",
            DeprecationWarning,
            stacklevel=2,
        )
        present = import_module(place)
        vars(module)["__getattr__"] = lambda name: getattr(present, name)


def find(name: str) -> ModuleSpec | None:
    """Return how to import a module under its old path; None when it never was there.

    Example:
        >>> find("flowstone.core.partition").name
        'flowstone.core.partition'
    """
    return ModuleSpec(name, _Loader()) if name.removeprefix("flowstone.") in MOVED else None
