"""Ends of attempts as parameters of the statement that records them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from flowstone.core.outcome import AttemptOutcome, Failed, Skipped, Snoozed, Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.route import ROUTE_KEY
from flowstone.core.step import Attempt, AttemptResult, InputVersion
from flowstone.stores.postgres.rows import EndedRows, to_ids, to_json

AT = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
STORED = StoredOutput("postgres", "inline:7-1", "json", 2, "ab", "größe.Typ", {"rows": 3, "share": 1e-7}, b"[]")


def ended(outcome: AttemptOutcome, **options: object) -> AttemptResult:
    attempt = Attempt(7, "run", "orders", PartitionKey("d:2024-01-01"), 1, 3, 11, AT)
    inputs = (InputVersion("raw", "raw", PartitionKey(""), 5),)
    return AttemptResult(attempt, outcome, inputs, AT, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("orjson", [True, False])
@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (ended(Succeeded(STORED, None)), {"state": "completed", "output": STORED.to_json(), "releases": False}),
        (
            ended(Failed("it broke", "builtins.ValueError", retryable=True), retry_in_seconds=1.5),
            {"state": "retrying", "error": "it broke", "error_type": "builtins.ValueError", "delay_seconds": 1.5},
        ),
        (ended(Snoozed(2.0, "waits", for_inputs=True)), {"state": "waiting", "releases": True}),
        (ended(Skipped("nothing \x7f to do")), {"state": "skipped", "reason": "nothing \x7f to do"}),
    ],
)
def test_rows_say_the_same_whoever_writes_them(
    monkeypatch: pytest.MonkeyPatch, completion: AttemptResult, expected: dict[str, object], orjson: bool
) -> None:
    if not orjson:
        monkeypatch.setattr("flowstone.stores.postgres.rows._orjson", None)
    rows = EndedRows.of([completion])
    (row,) = json.loads(str(rows.parameters()["rows"]))
    assert row == json.loads(to_json(rows.rows))[0]
    assert expected.items() <= row.items()
    assert (row["id"], row["token"], row["finished_at"]) == (7, 11, AT.isoformat())
    assert row["inputs"] == [{"parameter": "raw", "step_id": 5}]


def test_what_orjson_cannot_write_is_left_to_json() -> None:
    rows = EndedRows([{"id": 1 << 70, "reason": "lone \ud800"}])
    assert json.loads(str(rows.parameters()["rows"])) == rows.rows


def test_small_values_and_decisions_are_apart() -> None:
    routed = StoredOutput("files", "a/b", metadata={ROUTE_KEY: {}})
    rows = EndedRows.of([ended(Succeeded(STORED, None)), ended(Succeeded(routed, None))])
    assert (rows.versions, rows.payloads, rows.deciding) == (["7-1"], [b"[]"], {7})
    assert rows.parameters()["payload_steps"] == to_ids([7]) == "{7}"
