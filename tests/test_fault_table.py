"""The table of faults names, for each of them, tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/.]+\.py)::(test_\w+)`")
FAULTS = 32
ROWS = ROW.findall((ROOT / "tests" / "faults" / "README.md").read_text(encoding="utf-8"))


def test_every_fault_has_its_row() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, FAULTS + 1))


@pytest.mark.parametrize(("number", "fault", "proof"), ROWS)
def test_a_fault_is_proven_by_tests_that_exist(number: str, fault: str, proof: str) -> None:
    named = NAMED.findall(proof)
    assert named or re.match(r"not yet: \w+", proof), f"row {number} ({fault}) names neither a test nor a reason"
    for path, test in named:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(async )?def {test}\(", source, re.MULTILINE), f"there is no {path}::{test}"
