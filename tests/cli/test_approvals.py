"""Approvals from the command line, which is another process than the one that asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cli.conftest import CommandLine
from tests.stores.conformance.case import Scene

from flowstone.core.outcome import Suspended
from flowstone.core.partitions import encode_partition
from flowstone.core.state import State
from flowstone.core.step import NewStep
from flowstone.stores.postgres.store import PostgresStore


@pytest.fixture
def scene(shop: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A step of the shop that asks."""
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    monkeypatch.setenv("LOGNAME", "ann")
    store = PostgresStore.connect(database_url, directory=shop.parent)
    yield Scene(store)
    store.close()


def ask(scene: Scene, day: int = 2, **fields: object) -> int:
    key = encode_partition(datetime(2024, 1, day, tzinfo=UTC).date())
    (step,) = scene.open(f"run-{day}", [NewStep("orders", key)])
    requested = Suspended("Pay \x1b[31m3\x1b[0m\ninvoices?", data='{"sum": [1, 2]}', **fields)  # type: ignore[arg-type]
    scene.end(scene.claim(step.id), requested)
    return scene.store.approvals.of_step(step.id)[0].id


def test_list_show_approve(cli: CommandLine, scene: Scene) -> None:
    assert cli("approvals", "--json").json == {"approvals": []}
    number = str(ask(scene))
    (listed,) = cli("approvals", "--json").json["approvals"]
    assert (listed["id"], listed["asset"], listed["partition"]) == (int(number), "orders", "2024-01-02")
    assert (listed["state"], listed["data"], listed["on_timeout"]) == ("pending", {"sum": [1, 2]}, "reject")
    until = datetime.fromisoformat(listed["expires_at"]) - datetime.fromisoformat(listed["created_at"])
    assert abs(until - timedelta(hours=1)) < timedelta(seconds=1)
    table = cli("approvals").out
    assert "Pay 3\\ninvoices?" in table
    shown = cli("approvals", "show", number)
    assert '{"sum": [1, 2]}' in shown.out
    assert f"flowstone approve {number}" in shown.err
    assert cli("approvals", "show", number, "--json").json == listed
    assert f"flowstone approve {number}" in cli("why", "orders", "--partition", "2024-01-02").out
    answer = cli("approve", number, "--comment", "fine [bold]")
    assert answer.code == 0
    assert "approved by ann" in answer.out
    assert "fine [bold]" in answer.out
    assert cli("approvals", "--json").json == {"approvals": []}
    (decided,) = cli("approvals", "--all", "--json").json["approvals"]
    assert (decided["state"], decided["decided_by"], decided["comment"]) == ("approved", "ann", "fine [bold]")


def test_reject_and_audit(cli: CommandLine, scene: Scene) -> None:
    number = ask(scene)
    rejected = cli("reject", str(number), "--by", "bob", "--comment", "too much", "--json").json
    assert (rejected["state"], rejected["decided_by"]) == ("rejected", "bob")
    step = scene.step(rejected["step_id"])
    assert (step.state, "too much" in (step.error or "")) == (State.FAILED, True)
    message, requested = cli("audit", "--json").json["audit"]
    assert (message["actor"], message["action"], message["subject"]) == (
        "bob",
        "approval.rejected",
        f"approval:{number}",
    )
    assert (requested["actor"], requested["action"]) == ("asset orders", "approval.requested")
    assert "comment: too much" in cli("audit", f"approval:{number}").out
    assert cli("audit", "approval:999", "--json").json == {"audit": []}


def test_too_late_and_unknown(cli: CommandLine, scene: Scene) -> None:
    number = str(ask(scene))
    assert cli("approve", number).code == 0
    again = cli("reject", number)
    assert (again.code, "approved by ann" in again.err) == (1, True)
    for unknown in ("987654", "x", "-1", "9" * 30, "\u0661"):
        answer = cli("approve", "--", unknown)
        assert (answer.code, "flowstone approvals --all" in answer.err) == (2, True), answer
    assert cli("approve", number, "--by", " ").code == 2
    assert cli("approvals", "frobnicate").code == 2
    assert cli("approvals", "show").code == 2
    assert cli("approve").code == 2
