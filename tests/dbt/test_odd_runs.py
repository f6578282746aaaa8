"""A dbt that prints and leaves behind what dbt does not: each is an error in words, or makes no difference."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from flowstone import FlowStone, RetryPolicy
from flowstone.dbt import DbtError, dbt_assets

MODEL = {"resource_type": "model", "name": "orders", "fqn": ["shop", "orders"]}
MANIFEST = {"metadata": {"project_name": "shop"}, "nodes": {"model.shop.orders": MODEL}}
RESULT = {"unique_id": "model.shop.orders", "status": "success", "adapter_response": {"rows_affected": 3}}
RESULTS = json.dumps({"results": [RESULT]}).encode()

DBT = """#!{python}
import os, sys
target = sys.argv[sys.argv.index("--target-path") + 1]
with open(os.path.join(target, "run_results.json"), "wb") as file:
    file.write({results!r})
printed = {printed!r}
while printed:
    printed = printed[os.write(1, printed[:{piece}]) :]
{end}
"""


def build(
    directory: Path, printed: bytes = b"", results: bytes = RESULTS, *, piece: int = 4096, end: str = ""
) -> Any:
    """Build the model with a dbt that prints and writes this, and return its metadata."""
    dbt = directory / "dbt"
    dbt.write_text(DBT.format(python=sys.executable, printed=printed, results=results, piece=piece, end=end))
    dbt.chmod(0o755)
    shop = dbt_assets(MANIFEST, project_dir=directory, dbt_executable=dbt, retry=RetryPolicy(max_attempts=1))
    with FlowStone.for_testing(shop) as flow:
        return flow.materialize("orders", executor="sync").value.metadata


@pytest.mark.parametrize(
    "printed",
    [
        b"\xe4\xf6\xfc\n",
        b"\x00\n",
        b"[" * 50_000 + b"\n",
        b"x" * 500_000,
        b'{"info": {"level": "info", "msg": null}}\n',
        b'{"info": {"level": {}, "msg": ["a"]}}\n',
        b'{"info": [1]}\n',
        b'{"info": {"level": "error", "msg": "\\ud800"}}\n',
        b'{"info": {"level": "info", "msg": ' + b"1" * 5_000 + b"}}\n",
    ],
    ids=["latin-1", "nul", "nested", "long", "no text", "no level", "list", "half a character", "digits"],
)
def test_lines_that_are_no_events(tmp_path: Path, printed: bytes) -> None:
    assert build(tmp_path, printed)["rows"] == 3


def test_a_line_in_pieces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    event = json.dumps({"info": {"level": "info", "msg": "Gr\u00fc\u00dfe"}}, ensure_ascii=False).encode()
    build(tmp_path, event + b"\n", piece=1)
    assert "Gr\u00fc\u00dfe" in caplog.messages


@pytest.mark.parametrize("results", [b"", b'{"results": [{"unique', b"[" * 50_000, b"\xff\xfe\x00"])
def test_one_that_is_killed_while_it_writes(tmp_path: Path, results: bytes) -> None:
    with pytest.raises(DbtError, match=r"failed \(exit code 137\):\nworking"):
        build(tmp_path, b"working\n", results, end="os.kill(os.getpid(), 9)")


@pytest.mark.parametrize(
    "results", [[], 5, {}, {"results": None}, {"results": "x"}, {"results": {"a": 1}}, {"results": [1, None, {}]}]
)
def test_results_that_are_none(tmp_path: Path, results: object) -> None:
    with pytest.raises(DbtError, match=r"dbt ran and did not build model\.shop\.orders"):
        build(tmp_path, results=json.dumps(results).encode())


@pytest.mark.parametrize(
    "odd",
    [
        {"execution_time": "x"},
        {"execution_time": float("nan")},
        {"adapter_response": {"rows_affected": 3}, "message": {"a": 1}},
        {"relation_name": 5},
        {"relation_name": "a\0b"},
        {"compiled_code": []},
        {"failures": "x"},
    ],
    ids=["time", "nan", "message", "relation", "nul", "code", "failures"],
)
def test_results_with_odd_values(tmp_path: Path, odd: dict[str, object]) -> None:
    found = build(tmp_path, results=json.dumps({"results": [{**RESULT, **odd}]}).encode())
    assert found["dbt"] == "model.shop.orders"
    assert found["rows"] == 3


@pytest.mark.parametrize("response", [5, "x", [1], {"rows_affected": "x"}, {"rows_affected": -1}], ids=str)
def test_a_response_of_the_database_that_says_no_number(tmp_path: Path, response: object) -> None:
    assert "rows" not in build(
        tmp_path, results=json.dumps({"results": [{**RESULT, "adapter_response": response}]}).encode()
    )
