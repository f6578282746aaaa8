from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowstone import FlowStone, asset
from flowstone.app.reading import Reading
from flowstone.errors import DatabaseError, QuestionTooSlowError
from flowstone.stores.postgres.reading import ReadingDatabase
from flowstone.stores.postgres.store import CheckedDatabase


@pytest.fixture
def reading(database_url: str) -> Iterator[ReadingDatabase]:
    with CheckedDatabase(database_url) as database, ReadingDatabase(database) as found:
        yield found


def test_it_writes_nothing_and_goes_on_after_errors(reading: ReadingDatabase) -> None:
    with reading.snapshot():
        with pytest.raises(DatabaseError, match="only reads"), reading.connection() as connection:
            connection.execute("INSERT INTO flowstone.queues (name) VALUES ('q')")
        with reading.connection() as connection:
            assert connection.execute("SELECT count(*) FROM flowstone.queues").fetchone() == (0,)
    with pytest.raises(DatabaseError, match="only reads"), reading.transaction() as connection:
        connection.execute("DELETE FROM flowstone.queues")


def test_a_slow_question_is_stopped_and_the_rest_stands(reading: ReadingDatabase) -> None:
    with reading.snapshot():
        with reading.connection() as connection:
            connection.execute("SET LOCAL statement_timeout = '20ms'")
        with pytest.raises(QuestionTooSlowError, match="Narrow the filter"), reading.connection() as connection:
            connection.execute("SELECT pg_catalog.pg_sleep(10)")
        with reading.connection() as connection:
            assert connection.execute("SHOW statement_timeout").fetchone() == ("3s",)
            assert connection.execute("SHOW transaction_read_only").fetchone() == ("on",)


def test_a_snapshot_sees_one_state_and_takes_one_connection(reading: ReadingDatabase, database_url: str) -> None:
    with CheckedDatabase(database_url) as other, reading.snapshot():
        with reading.connection() as connection:
            before = connection.execute("SELECT count(*) FROM flowstone.queues").fetchone()
            backend = connection.info.backend_pid
        with other.connection() as writing:
            writing.execute("INSERT INTO flowstone.queues (name) VALUES ('q')")
        with reading.connection() as connection:
            assert connection.execute("SELECT count(*) FROM flowstone.queues").fetchone() == before
            assert connection.info.backend_pid == backend
    with reading.connection() as connection:
        assert connection.execute("SELECT count(*) FROM flowstone.queues").fetchone() == (1,)


def test_the_app_closes_what_reads(database_url: str) -> None:
    @asset
    def one() -> int:
        return 1

    with FlowStone([one], database_url=database_url) as flow:
        reading: Reading = flow.reading()
        flow.materialize("one", executor="sync")
        with reading.snapshot() as insights:
            (worker,) = insights.workers().items
            assert (worker.kind, worker.state) == ("inline", "alive")
            assert reading.parts.store.catalog.runs()[0].selection == "one"
            with pytest.raises(DatabaseError, match="only reads"):
                reading.parts.store.ledger.invalidate([("one", "")])
    with pytest.raises(DatabaseError, match="closed"):
        reading.insights.workers()
