from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.stores.conformance.case import Scene, failed, succeeded

from flowstone.core.outcome import Succeeded
from flowstone.core.step import Attempt, AttemptResult, NewStep
from flowstone.stores.postgres.recent import RecentVersions
from flowstone.stores.postgres.store import PostgresStore

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def result(number: int, payload: bytes | None = None, **metadata: str) -> AttemptResult:
    attempt = Attempt(number, "run", f"asset{number}", "", 1, 1, number, NOW, forced=False)
    stored = succeeded(attempt).stored
    return AttemptResult(attempt, Succeeded(replace(stored, payload=payload, metadata=metadata), None), (), NOW)


def is_kept(recent: RecentVersions, number: int) -> bool:
    found = recent.find(("run", f"asset{number}", ""))
    assert found is None or found.step_id == number
    return found is not None


def test_the_oldest_versions_go_first() -> None:
    recent = RecentVersions(max_versions=2, max_bytes=100)
    recent.add([result(1), result(2), result(3)])
    assert [is_kept(recent, number) for number in (1, 2, 3)] == [False, True, True]


def test_small_values_are_kept_up_to_a_number_of_bytes() -> None:
    recent = RecentVersions(max_versions=10, max_bytes=100)
    recent.add([result(1, b"x" * 60), result(2, b"x" * 40)])
    assert is_kept(recent, 1)
    recent.add([result(1, b"x" * 60)])  # again: its bytes count once
    assert is_kept(recent, 2)
    recent.add([result(3, b"x")])
    assert [is_kept(recent, number) for number in (1, 2, 3)] == [True, False, True]
    recent.add([result(4, b"x" * 101)])
    assert not any(is_kept(recent, number) for number in (1, 2, 3, 4))


def test_what_has_metadata_or_no_value_is_read_from_the_database() -> None:
    recent = RecentVersions()
    lost = result(2)
    lost.outcome = failed()
    recent.add([result(1, rows="3"), lost])
    assert not is_kept(recent, 1)
    assert not is_kept(recent, 2)


class TestOfAStore:
    @pytest.fixture(autouse=True)
    def _stores(self, database_url: str, tmp_path: Path) -> Iterator[None]:
        store, other = (PostgresStore.connect(database_url, directory=tmp_path) for _ in range(2))
        self.scene, self.other = Scene(store), Scene(other)
        yield
        store.close()
        other.close()

    def commit(self, asset: str = "a") -> int:
        (placed,) = self.scene.open("run", [NewStep(asset, "")])
        claim = self.scene.claim(placed.id)
        stored = replace(succeeded(claim).stored, location="inline:v", payload=b"[1]", metadata={})
        self.scene.end(claim, Succeeded(stored, None))
        return placed.id

    def test_a_process_need_not_read_what_it_committed(self) -> None:
        """The same as any process reads; that it is not read again shows when the bytes are gone."""
        self.commit()
        (mine,) = self.scene.store.catalog.resolve([("run", "a", "")])
        (theirs,) = self.other.store.catalog.resolve([("run", "a", "")])
        assert mine == theirs
        assert mine is not None
        assert (mine.stored.payload, mine.own) == (b"[1]", True)
        with self.scene.store.database.connection() as connection:
            connection.execute("DELETE FROM flowstone.output_payloads")
        (mine,) = self.scene.store.catalog.resolve([("run", "a", "")])
        (theirs,) = self.other.store.catalog.resolve([("run", "a", "")])
        assert mine is not None
        assert theirs is not None
        assert (mine.stored.payload, theirs.stored.payload) == (b"[1]", None)

    def test_another_process_may_erase_it(self) -> None:
        """Nothing is served that was erased, and what lies between known targets is found all the same."""
        step_id = self.commit()
        elsewhere = self.other.make("b", run_id="other")
        requested = [("run", "a", ""), ("other", "b", ""), ("run", "a", "")]
        found = self.scene.store.catalog.resolve(requested)
        assert [one and one.step_id for one in found] == [step_id, elsewhere, step_id]
        with self.other.store.database.connection() as connection:
            connection.execute("UPDATE flowstone.steps SET erased_at = now() WHERE id = %s", (step_id,))
        found = self.scene.store.catalog.resolve(requested)
        assert [one and one.step_id for one in found] == [None, elsewhere, None]
