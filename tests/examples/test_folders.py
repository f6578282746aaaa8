"""The examples that are folders: each has a README, tests and one command, which prints what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDERS = sorted(path.parent.name for path in EXAMPLES.glob("*/__init__.py"))

PRINTED = {
    "churn_model": (
        r"not trained: .*CheckFailedError: .*better_than_guessing.*\n"
        r"Ann is asked: Release a model that is right for \d\d\.\d% of customers\?\n"
        r"at risk: \[[\d, ]+\]\nreleased by: Ann\n"
    ),
    "dbt_shop": r"Dear Bob, thank you for 30 euros\.\n(revenue_by_customer: \w+ passed\n){3}",
    "elt_duckdb": r"(notified: .+\n){2}\[\('Bob', 3000\), \('Ann', 2000\), \('Cem', 500\)\]\n",
    "fastapi_orders": (
        r"ordered: 201 \{'order': 1, 'job': 1\}\nrefused: 422 An order costs something\.\n"
        r"before a worker came: 202\ninvoice: \{'number': 'R-000001', .*\}\nruns: 1\n"
    ),
}
SLOW = {"dbt_shop", "fastapi_orders"}


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one in SLOW else ()) for one in sorted(PRINTED)]
)
def test_the_command_of_an_example_prints_what_it_should(name: str, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FLOWSTONE_")}
    done = subprocess.run(
        [sys.executable, "-m", name],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(EXAMPLES), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(PRINTED[name], done.stdout), done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_an_example_has_what_people_expect_of_it(name: str) -> None:
    readme = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert f"python -m {name}" in readme
    assert (EXAMPLES / name / "__main__.py").exists()
    assert f"]({name}/README.md)" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
    own = list((EXAMPLES / name).glob("test_*.py")) or list(
        (EXAMPLES.parent / "tests" / "examples" / name).glob("*")
    )
    assert own
    for file in re.findall(r"^\| `([\w.]+)`", readme, re.MULTILINE):
        assert (EXAMPLES / name / file).exists()


def test_the_command_of_the_git_history_is_tested_elsewhere() -> None:
    assert set(FOLDERS) - set(PRINTED) == {"git_history"}, "it serves until it is stopped"
