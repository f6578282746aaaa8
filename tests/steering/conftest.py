from __future__ import annotations

from tests.crews import crew_of, pytest_runtest_makereport, whole
from tests.steering.crew import Crew

__all__ = ["crew", "pytest_runtest_makereport", "whole"]

crew = crew_of(Crew)
