from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from tests.stores.conformance.automations import SensorConformance

from flowstone import FlowStone, asset, sensor
from flowstone.config import Settings
from flowstone.core.automation.record import TickState
from flowstone.core.automation.sensor import SensorContext, SensorResult
from flowstone.protocols import Store
from flowstone.stores.postgres.store import CheckedDatabase, PostgresStore


@pytest.mark.both_servers
class TestPostgresSensors(SensorConformance):
    @pytest.fixture(autouse=True)
    def _database(self, reused_database_url: str) -> None:
        self.url = reused_database_url

    def make_store(self, now: Callable[[], datetime]) -> Store:
        return PostgresStore(CheckedDatabase(self.url), now=now)


@asset
def plain() -> int:
    return 1


@sensor(selection="plain")
def inbox(context: SensorContext) -> SensorResult:
    return SensorResult(requests=[context.request(run_key="\x7f\U0001f4c1 'a' %s")], cursor='{"é": "\\u0000"}')


def test_a_run_key_runs_once_even_if_the_keys_were_lost(database_url: str) -> None:
    with FlowStone([plain], sensors=[inbox], settings=Settings(database_url=database_url)) as flow:
        first = flow.sensors.evaluate("inbox")
        assert first.state is TickState.REQUESTED
        assert flow.sensors.get("inbox").record.cursor == '{"é": "\\u0000"}'  # type: ignore[union-attr]
        store = flow.parts.store
        assert isinstance(store, PostgresStore)
        with store.database.transaction() as connection:
            connection.execute("DELETE FROM flowstone.run_keys")
        flow.sensors.evaluate("inbox")
        assert [run.id for run in flow.runs.latest()] == list(first.run_ids)
        assert flow.runs.get(first.run_ids[0]).total == 1
        assert flow.sensors.run_now("inbox") is None
        assert flow.runs.cancel(first.run_ids[0]).state == "cancelled"
