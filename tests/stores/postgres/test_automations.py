from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from tests.stores.conformance.automations import INBOX, NIGHTLY, AutomationConformance

from flowstone.protocols import Store
from flowstone.stores.postgres.store import CheckedDatabase, PostgresStore


@pytest.mark.both_servers
class TestPostgresAutomations(AutomationConformance):
    @pytest.fixture(autouse=True)
    def _database(self, reused_database_url: str) -> None:
        self.url = reused_database_url

    def make_store(self, now: Callable[[], datetime]) -> Store:
        return PostgresStore(CheckedDatabase(self.url), now=now)


def test_a_paused_queue_of_sensors_holds_up_sensors(database_url: str) -> None:
    store = PostgresStore(CheckedDatabase(database_url))
    store.automations.declare([NIGHTLY, INBOX])
    store.control.set_queue("sensors", paused=True)
    taken = store.automations.take([NIGHTLY, INBOX], lease_seconds=60, limit=9)
    assert [one.record.id for one in taken] == [NIGHTLY]
    store.control.set_queue("sensors", paused=False)
    taken = store.automations.take([NIGHTLY, INBOX], lease_seconds=60, limit=9)
    assert [one.record.id for one in taken] == [INBOX]
    store.close()


def test_the_database_clock_decides_unless_reported_otherwise(database_url: str) -> None:
    store = PostgresStore(CheckedDatabase(database_url))
    store.automations.declare([NIGHTLY])
    (taken,) = store.automations.take([NIGHTLY], lease_seconds=60)
    with store.connection() as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    assert taken.record.since <= taken.now <= row[0]
    store.close()
