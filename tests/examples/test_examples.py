"""The single-file examples run as a stranger would run them, and print what the documentation says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

EXPECTED = {
    "quickstart.py": r"\[2, 4, 6\]\nnumbers: completed\ndoubled: completed\nagain: reused\n",
    "approvals.py": (
        r"adding up\nasked: Pay 2 invoices\? \{'total': 100\}\n100 paid, approved by ann\n"
        r"bob reads: approved by ann\napproval:1 approval\.requested - asset payment\n"
        r"approval:1 approval\.approved - ann\n"
    ),
    "fastapi_dashboard.py": r"",  # tests/web/test_mounted.py serves them
    "starlette_dashboard.py": r"",
    "custom_executor.py": r"5 of 5 days\nnot faster than the limit: True\n1\.08\n",
    "dynamic_partitions.py": (
        r"\['globex', 'acme'\]\nnew: initech\n\['globex', 'acme', 'initech'\]\n\['globex', 'initech'\]\n"
        r"acme had 200\n"
        r"'acme' is not a partition\. It was removed from DynamicPartitions\(name='customers'\)\n"
        r"removed by bob\nadded by ann\n"
    ),
    "schedules.py": (
        r"2024-03-31T03:00:00\+02:00 means 2024-03-30\n2024-04-01T02:30:00\+02:00 means 2024-03-31\n"
        r"requested by hand: True\nvisits completed\nreport completed\n"
    ),
    "sensors.py": (
        r"runs: 1\nlines: 2\nagain: nothing new\nnext: \['ada', 'bo'\]\ngreeted: 3\n"
        r"replayed: everything it asked for had run before\n"
    ),
    "conditions.py": (
        r"first: \['cheap', 'poster'\]\ntea: \['cheap'\]\nposter: False \{\}\n"
        r"input prices changed\nsale: \['cheap', 'poster'\]\nMILK, TEA\n"
        r"code version 1 → 2\n"
    ),
    "checks.py": (
        r"mean price: 7\.75\nrefused: 'no_negative_price' \(1 negative prices; ids=\[3\]\)\n"
        r"still there: 2 prices\nstep 3: no_negative_price failed\nstep 1: unique_ids passed\n"
        r"step 1: no_negative_price passed\nagain: \[True, True\]\n"
    ),
    "serial_debugging.py": (
        r"1\. readings \.\.\.\n   completed: \[20\.5, 21\.0, -273\.9, 20\.8\]\n"
        r"2\. valid \.\.\.\n   completed: \[20\.5, 21\.0, 20\.8\]\n"
        r"3\. mean \.\.\.\n   completed: 20\.76\d+\n3 steps, mean 20\.77\n"
    ),
    "routing.py": (
        r"changes: completed\ndelta_load: failed\nfull_load: skipped \(not chosen by changes: 12 rows changed\)\n"
        r"table: upstream_failed \(input delta_load ended as failed\)\n"
        r"after the retry: 12 rows added\ncalled: changes, delta_load, delta_load\n"
    ),
    "scatter.py": (
        r"discovering\nfailed - flowstone\.errors\.ScatterFailedError: "
        r"Asset 'letters' was not gathered: 1 of 4 items failed, 1 cancelled, and 0 may fail \n"
        r"\{'cancelled': 1, 'completed': 2, 'failed': 1\}\n"
        r"completed \['ann: 12 pages', 'bob: 7 pages', 'cem: -1 pages', 'dora: 3 pages'\]\n"
        r"\{'completed': 2, 'reused': 2\}\n"
    ),
    "transactional.py": (
        r"before the commit: not_found\nafter the commit: pending \{'item': 'tea'\}\n"
        r"rolled back: an order of nothing\nruns: 1\n"
    ),
    "retries.py": (
        r"attempt 1: failed \(builtins\.ConnectionError\), next one after 0\.02 s\n"
        r"attempt 2: failed \(builtins\.ConnectionError\), next one after 0\.06 s\n"
        r"attempt 3: completed\nvalue: 1\.08\n"
    ),
}


def run_example(name: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLOWSTONE_")}
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_runs_alone_and_prints_what_it_should(name: str, tmp_path: Path) -> None:
    done = run_example(name, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(EXPECTED[name], done.stdout), done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_every_single_file_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 60
