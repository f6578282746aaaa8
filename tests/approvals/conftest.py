from __future__ import annotations

from tests.approvals.crew import Askers
from tests.crews import crew_of, pytest_runtest_makereport, whole

__all__ = ["crew", "pytest_runtest_makereport", "whole"]

crew = crew_of(Askers)
