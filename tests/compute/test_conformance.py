"""The conformance suite of computes, on what needs no server."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from flowstone.compute import CommandCompute
from flowstone.protocols import Compute
from flowstone.testing.compute_conformance import ComputeConformance


class TestIsolatedProcesses(ComputeConformance):
    """The isolated processes of a worker."""

    def create(self) -> Compute:
        raise NotImplementedError

    @property
    def declared(self) -> Mapping[str, Any]:
        return {"isolation": "process"}

    def computes(self) -> dict[str, Compute]:
        return {}


class TestCommands(ComputeConformance):
    """A plain process, as a container or a job of Slurm is one."""

    def create(self) -> Compute:
        return CommandCompute([sys.executable, "-m", "flowstone.remote", "{call}", "{answer}", "--lifeline"])
