"""`ValuePublisher`: what cannot be published holds nothing else up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flowstone.core.output import Publication, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.step import Target
from flowstone.engine.publishing import ValuePublisher
from flowstone.errors import StorageError


class Tables:
    """An IO manager that publishes after the commit, unless its storage is away."""

    in_transaction = False

    def __init__(self) -> None:
        self.visible: list[int] = []
        self.tried = 0
        self.problem: Exception | None = None

    def publish(self, publication: Publication, connection: object | None) -> bool:
        self.tried += 1
        if self.problem is not None:
            raise self.problem
        self.visible.append(publication.token)
        return True


class Noted:
    """What is committed and not yet visible, in a list."""

    def __init__(self) -> None:
        self.left: list[Publication] = []

    def note(self, io: str, *tokens: int) -> None:
        self.left += [
            Publication("orders", PartitionKey(f"i:{token}"), token, "here", StoredOutput(io, f"t@{token}"))
            for token in tokens
        ]

    def issuer(self) -> str:
        return "here"

    def pending(
        self, targets: Sequence[Target] | None = None, *, limit: int = 100, after: int = 0
    ) -> list[Publication]:
        return sorted((one for one in self.left if one.token > after), key=lambda one: one.token)[:limit]

    def done(self, publication: Publication) -> None:
        self.left.remove(publication)


@pytest.fixture
def noted() -> Noted:
    return Noted()


def test_what_no_app_declares_holds_nothing_up(noted: Noted) -> None:
    """Those behind a page of publications that are never done waited for good."""
    noted.note("gone", *range(1, 251))
    noted.note("tables", 251, 252)
    tables = Tables()
    assert ValuePublisher({"tables": tables}, noted).catch_up() == 2
    assert tables.visible == [251, 252]
    assert {one.stored.io for one in noted.left} == {"gone"}


def test_a_storage_that_is_away_is_tried_once_and_others_go_on(noted: Noted) -> None:
    away, here = Tables(), Tables()
    away.problem = StorageError("publish", "orders", "", "no answer", kind="unavailable", remedy="Wait.")
    noted.note("away", *range(1, 300))
    noted.note("here", 300)
    publisher = ValuePublisher({"away": away, "here": here}, noted)
    assert publisher.catch_up() == 1
    assert (away.tried, here.visible) == (1, [300])
    away.problem = None
    assert publisher.catch_up() == 299
    assert noted.left == []


def test_one_that_fails_by_itself_holds_nothing_up(noted: Noted) -> None:
    class Picky(Tables):
        def publish(self, publication: Publication, connection: object | None) -> bool:
            if publication.token % 2:
                raise StorageError("publish", "orders", "", "its rows are gone", kind="missing", remedy="Repeat.")
            return super().publish(publication, connection)

    noted.note("tables", *range(1, 300))
    assert ValuePublisher({"tables": Picky()}, noted).catch_up() == 149
    assert len(noted.left) == 150
