"""What is published when which version is in use changes; the same on every store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tests.stores.conformance.case import StoreCase

from flowstone.core.outcome import Failed, Succeeded
from flowstone.core.output import Publication, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.state import State
from flowstone.core.step import Attempt, Target
from flowstone.core.version import RestoreVersion
from flowstone.errors import TargetActiveError


class FakePublisher:
    """Publishes values of the IO manager `tables` after the commit, and those of `own` within it."""

    def __init__(self) -> None:
        self.within_commit: list[Publication] = []
        self.called_after: list[Target] = []
        self.problem: Exception | None = None

    def concerns(self, stored: StoredOutput) -> bool:
        return stored.io in ("tables", "own")

    def within(self, publications: Sequence[Publication], connection: object) -> list[Publication]:
        if self.problem is not None:
            raise self.problem
        self.within_commit += [one for one in publications if one.stored.io == "own"]
        return [one for one in publications if one.stored.io != "own"]

    def after(self, targets: Sequence[Target]) -> None:
        self.called_after += targets


class PublicationTests(StoreCase):
    """`Store.publish_with` and `Store.publications`."""

    @pytest.fixture(autouse=True)
    def _publisher(self, scene: Any) -> None:
        self.publisher = FakePublisher()
        scene.store.publish_with(self.publisher)

    def commit(self, scene: Any, run_id: str, *, io: str = "tables", asset: str = "a") -> int:
        """Commit a version; return its step."""
        claim = scene.claim(scene.one(asset, run_id=run_id, forced=True).id)
        scene.end(claim, succeeded(claim, io))
        return claim.step_id

    def locations(self, scene: Any) -> list[tuple[str, bool]]:
        return [(one.stored.location, one.in_use) for one in scene.store.publications.pending()]

    def test_a_commit_is_noted_until_it_is_published(self, scene: Any) -> None:
        first = self.commit(scene, "one")
        (noted,) = scene.store.publications.pending()
        assert noted.noted_at is not None
        assert scene.store.publications.pending(after=noted.token - 1) == [noted]
        assert scene.store.publications.pending(after=noted.token) == []
        assert (noted.asset, noted.partition_key, noted.stored.location) == ("a", "", f"t@{first}")
        assert self.publisher.called_after == [("a", "")]
        second = self.commit(scene, "two")
        assert self.locations(scene) == [(f"t@{second}", True)]
        scene.store.publications.done(noted)  # a newer one was noted meanwhile
        (newer,) = scene.store.publications.pending([("a", PartitionKey(""))])
        assert newer.token > noted.token
        assert newer.issuer == noted.issuer != ""
        assert scene.store.publications.pending([("b", PartitionKey(""))]) == []
        scene.store.publications.done(newer)
        assert self.locations(scene) == []

    def test_what_does_not_publish_is_not_noted(self, scene: Any) -> None:
        self.commit(scene, "one", io="filesystem")
        assert self.locations(scene) == []

    def test_a_refused_attempt_publishes_nothing(self, scene: Any) -> None:
        placed = scene.one(max_attempts=2)
        lost = scene.claim(placed.id)
        scene.store.ledger.release([lost])
        newer = scene.claim(placed.id)
        assert not scene.end(lost, succeeded(lost, "tables")).accepted
        assert self.locations(scene) == []
        assert scene.end(newer, succeeded(newer, "tables")).accepted
        assert len(self.locations(scene)) == 1
        failing = scene.claim(scene.one(run_id="two", forced=True).id)
        scene.end(failing, Failed("no", "x.Y", retryable=False))
        assert len(self.locations(scene)) == 1

    def test_restored_versions_are_published_and_none_where_that_is_so(self, scene: Any) -> None:
        first, second = self.commit(scene, "one"), self.commit(scene, "two")
        versions = scene.store.versions
        versions.restore([RestoreVersion(("a", PartitionKey("")), first)])
        assert self.locations(scene) == [(f"t@{first}", True)]
        versions.restore([RestoreVersion(("a", PartitionKey("")), first)])
        versions.restore([RestoreVersion(("a", PartitionKey("")), None)])
        assert self.locations(scene) == [(f"t@{first}", False)]
        versions.restore([RestoreVersion(("a", PartitionKey("")), second)])
        assert self.locations(scene) == [(f"t@{second}", True)]
        scene.store.ledger.invalidate([("a", PartitionKey("")), ("b", PartitionKey(""))])
        assert self.locations(scene) == [(f"t@{second}", False)]

    def test_a_refused_restore_publishes_nothing(self, scene: Any) -> None:
        first, second = self.commit(scene, "one"), self.commit(scene, "two")
        scene.claim(scene.one(run_id="three", forced=True).id)
        with pytest.raises(TargetActiveError):
            scene.store.versions.restore([RestoreVersion(("a", PartitionKey("")), first)])
        assert self.locations(scene) == [(f"t@{second}", True)]

    def test_tokens_follow_the_order_of_the_changes(self, scene: Any) -> None:
        """A restore while a step is under way has the smaller token, although the attempt began before it."""
        first = self.commit(scene, "one")
        self.commit(scene, "two")
        claim = scene.claim(scene.one(run_id="three", forced=True).id)
        scene.store.versions.restore([RestoreVersion(("a", PartitionKey("")), first)], force=True)
        (restored,) = scene.store.publications.pending()
        scene.end(claim, succeeded(claim, "tables"))
        (committed,) = scene.store.publications.pending()
        assert committed.token > restored.token > claim.token


class TransactionalPublicationTests(PublicationTests):
    """Stores whose commit is a transaction that others can be part of."""

    def test_what_lies_in_the_database_is_published_by_the_commit(self, scene: Any) -> None:
        step = self.commit(scene, "one", io="own")
        assert [one.stored.location for one in self.publisher.within_commit] == [f"t@{step}"]
        assert self.locations(scene) == []

    def test_what_cannot_be_published_is_not_committed(self, scene: Any) -> None:
        self.publisher.problem = RuntimeError("the rows are gone")
        step = self.commit(scene, "one", io="own")
        record = scene.step(step)
        assert record.state is State.FAILED
        assert "the rows are gone" in record.error
        assert scene.store.catalog.current([("a", PartitionKey(""))]) == {}


def succeeded(claim: Attempt, io: str) -> Succeeded:
    return Succeeded(StoredOutput(io, f"t@{claim.step_id}"), None)
