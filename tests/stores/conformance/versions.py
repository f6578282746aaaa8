"""Versions in every store: listed, which one was when, restored, erased."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from tests.stores.conformance.case import HOSTILE_TEXTS, Scene, StoreCase, failed, succeeded

from flowstone.core.actor import Actor, acting
from flowstone.core.audit import AuditFilter
from flowstone.core.logs import LogBatch
from flowstone.core.outcome import Suspended
from flowstone.core.output import StoredOutput
from flowstone.core.step import AttemptResult, CheckRecord, NewStep, Target
from flowstone.core.version import ChangeKind, PublishedVersion, RestoreVersion
from flowstone.errors import RestoreRefusedError, TargetActiveError, ValueErasedError

A: Target = ("a", "")
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def current(scene: Scene, target: Target = A) -> int | None:
    return scene.store.catalog.current([target]).get(target)


class VersionTests(StoreCase):
    """What a store means by versions."""

    def test_versions_are_listed_newest_first(self, scene: Scene) -> None:
        """With who made them; failures and what was reused are none."""
        first = scene.make("a", "s:x", run_id="1")
        scene.make("a", "s:y", run_id="other")
        scene.end(scene.claim(scene.one("a", "s:x", run_id="2", forced=True).id), failed())
        second = scene.make("a", "s:x", run_id="3")
        scene.open("4", [NewStep("a", "s:x", reuse=second)])
        versions, target = scene.store.versions, ("a", "s:x")
        found = versions.page(target)
        assert [(one.step_id, one.run_id, one.is_current) for one in found] == [
            (second, "3", True),
            (first, "1", False),
        ]
        assert [one.step_id for one in versions.page(target, limit=1)] == [second]
        assert [one.step_id for one in versions.page(target, before=second)] == [first]
        assert (versions.count(target, limit=10), versions.count(target, limit=1)) == (2, 1)
        assert found[0].stored == scene.step(second).stored
        assert (found[0].kind, found[0].attempt) == ("test", 1)
        assert [one.step_id for one in versions.get([second, 987654321, first])] == [first, second]
        assert versions.page(("nope", "")) == versions.get([]) == []

    def test_what_was_in_use_when(self, scene: Scene) -> None:
        """Commits, restores and invalidations together say which version was in use at any time."""
        scene.now -= timedelta(hours=1)  # of clocks that differ from the store's, elsewhere
        first, second = scene.make(run_id="1"), scene.make(run_id="2")
        versions = scene.store.versions
        between = scene.step(first).finished_at
        assert between is not None
        assert versions.at([A], LONG_AGO)[A].step_id is None
        assert versions.at([A], between)[A].step_id == first
        versions.restore([RestoreVersion(A, first)], by="ann")
        scene.store.ledger.invalidate([A])
        restored, invalidated = versions.changes([A])
        assert (restored.kind, restored.before, restored.step_id) == (ChangeKind.RESTORED, second, first)
        assert restored.actor == "ann"
        assert (invalidated.kind, invalidated.before, invalidated.step_id) == (ChangeKind.INVALIDATED, first, None)
        moments = [restored.at - timedelta(microseconds=1), restored.at, invalidated.at]
        assert [versions.at([A], at)[A].step_id for at in moments] == [second, first, None]
        assert versions.at([A], invalidated.at)[A].change == invalidated
        third = scene.make(run_id="3")
        assert versions.at([A], datetime.now(UTC) + timedelta(days=1))[A].step_id == third

    def test_a_restore_moves_the_pointer_and_names_who_did_it(self, scene: Scene) -> None:
        """What is read, what conditions see, and the audit log agree; doing it again changes nothing."""
        first, second = scene.make(run_id="1"), scene.make(run_id="2")
        versions = scene.store.versions
        with acting(Actor("ann", "web")):
            (done,) = versions.restore([RestoreVersion(A, first)], reason="bad rates")
        assert (done.before, done.step_id, done.changed) == (second, first, True)
        assert current(scene) == first
        resolved = scene.store.catalog.resolve([("", *A)])[0]
        assert resolved is not None
        assert resolved.step_id == first
        committed = scene.store.target_statuses.status([A])[A].committed
        assert committed is not None
        assert committed.restored is not None
        assert (committed.data.step_id, committed.restored.by) == (first, "ann")
        assert committed.committed_at == committed.restored.at == versions.page(A)[1].since
        lines = scene.store.audit.lines(AuditFilter(action="versions.restored"))
        assert [(line.actor, line.via, line.subject) for line in lines] == [("ann", "web", "asset:a")]
        assert lines[0].details == {"before": second, "version": first, "reason": "bad rates"}
        (again,) = versions.restore([RestoreVersion(A, first)], by="bob")
        assert not again.changed
        assert len(versions.changes([A])) == len(scene.store.audit.lines(AuditFilter(action="versions"))) == 1

    def test_a_restored_version_is_valid_again(self, scene: Scene) -> None:
        """What was invalidated can be put in use again, and is not called invalidated then."""
        first = scene.make(run_id="1")
        scene.store.ledger.invalidate([A])
        scene.store.versions.restore([RestoreVersion(A, first)])
        assert current(scene) == first
        assert scene.step(first).invalidated_at is None
        assert [one.kind for one in scene.store.versions.changes([A])] == ["invalidated", "restored"]

    def test_what_cannot_be_restored_changes_nothing(self, scene: Scene) -> None:
        """All or none: unknown versions, those of others, failures, and what moved meanwhile."""
        first, second = scene.make(run_id="1"), scene.make(run_id="2")
        other = scene.make("b", run_id="3")
        broken = scene.one("c", run_id="4")
        scene.end(scene.claim(broken.id), failed())
        restore = scene.store.versions.restore
        fine = RestoreVersion(A, first)
        for wrong in (
            RestoreVersion(("b", ""), 987654321),
            RestoreVersion(("b", ""), second),
            RestoreVersion(("c", ""), broken.id),
            RestoreVersion(("b", ""), other, expect=first),
            RestoreVersion(("c", ""), None, expect=first),
        ):
            with pytest.raises(RestoreRefusedError):
                restore([fine, wrong])
        assert current(scene) == second
        assert scene.store.versions.changes([A]) == []

    def test_a_restore_waits_for_no_step(self, scene: Scene) -> None:
        """While a step is under way it is refused, or forced: then what commits later wins."""
        first, second = scene.make(run_id="1"), scene.make(run_id="2")
        third = scene.one(run_id="3", forced=True)
        with pytest.raises(TargetActiveError) as caught:
            scene.store.versions.restore([RestoreVersion(A, first)])
        assert caught.value.runs == ("3",)
        claim = scene.claim(third.id)
        with pytest.raises(TargetActiveError, match="a is being computed, by 3"):
            scene.store.versions.restore([RestoreVersion(A, first)])
        assert current(scene) == second
        scene.store.versions.restore([RestoreVersion(A, first)], force=True)
        assert current(scene) == first
        scene.end(claim)
        assert current(scene) == third.id
        assert scene.store.target_statuses.status([A])[A].committed.restored is None  # type: ignore[union-attr]

    def test_two_people_at_once(self, scene: Scene) -> None:
        """Of two restores with the same version in view one is refused, and the log names the other."""
        first, second = scene.make(run_id="1"), scene.make(run_id="2")
        third = scene.make(run_id="3")
        start, answers = threading.Barrier(2), []

        def restore(who: str, version: int) -> None:
            start.wait()
            try:
                scene.store.versions.restore([RestoreVersion(A, version, expect=third)], by=who)
                answers.append(who)
            except RestoreRefusedError:
                pass

        people = [
            threading.Thread(target=restore, args=("ann", first)),
            threading.Thread(target=restore, args=("bob", second)),
        ]
        for person in people:
            person.start()
        for person in people:
            person.join()
        assert len(answers) == 1
        assert current(scene) == (first if answers == ["ann"] else second)
        (change,) = scene.store.versions.changes([A])
        assert change.actor == answers[0]

    def test_what_a_run_published_can_be_undone(self, scene: Scene) -> None:
        """What was in use before it is known, also after restores, and where nothing was."""
        old = scene.make("a", "s:x", run_id="1")
        steps = [NewStep("a", "s:x", forced=True), NewStep("a", "s:y"), NewStep("a", "s:z")]
        x, y, z = scene.open("bad", steps)
        for one in (x, y, z):
            scene.end(scene.claim(one.id))
        newer = scene.make("a", "s:z", run_id="2")
        versions = scene.store.versions
        published = versions.published("bad")
        assert published == [PublishedVersion("a", "s:x", x.id), PublishedVersion("a", "s:y", y.id)]
        assert versions.published("bad", limit=1) == published[:1]
        assert versions.published("bad", after=x.id) == published[1:]
        assert versions.published("nope") == []
        before = versions.before(published)
        assert {target: one.step_id for target, one in before.items()} == {("a", "s:x"): old, ("a", "s:y"): None}
        earlier = [
            RestoreVersion(("a", one.partition_key), before["a", one.partition_key].step_id) for one in published
        ]
        versions.restore(earlier, run_id="bad", by="ann")
        assert current(scene, ("a", "s:x")) == old
        assert current(scene, ("a", "s:y")) is None
        assert current(scene, ("a", "s:z")) == newer
        assert scene.step(y.id).invalidated_at is not None
        (line,) = scene.store.audit.lines(AuditFilter(subject="run:bad", action="run.undone"))
        assert (line.actor, line.details["targets"]) == ("ann", 2)
        # a person puts it back: to undo the run again leads to the same
        versions.restore([RestoreVersion(("a", "s:x"), x.id)])
        assert versions.before(versions.published("bad"))["a", "s:x"].step_id == old

    def test_of_a_run(self, scene: Scene) -> None:
        """What it produced, reused or joined; nothing of what it had no step for."""
        made = scene.make(run_id="1")
        scene.open("2", [NewStep("a", "", reuse=made)])
        scene.make(run_id="3")
        versions = scene.store.versions
        assert [versions.of_run(A, run) and versions.of_run(A, run).version for run in ("1", "2")] == [made, made]  # type: ignore[union-attr]
        assert versions.of_run(A, "nope") is versions.of_run(("b", ""), "1") is None
        owner = scene.one("b", run_id="owner")
        scene.one("b", run_id="guest")
        found = versions.of_run(("b", ""), "guest")
        assert found is not None
        assert (found.step_id, found.state, found.version) == (owner.id, "pending", None)

    def test_what_was_pruned_is_unknown_not_wrong(self, scene: Scene) -> None:
        """An earlier version that is kept is not taken for the one that was pruned."""
        scene.now -= timedelta(hours=1)
        first = scene.make(run_id="1")
        scene.make("b", run_id="reader", inputs=[first])
        second = scene.make(run_id="2")
        at = scene.step(second).finished_at
        assert at is not None
        third = scene.make(run_id="3")
        assert scene.store.versions.at([A], at)[A].step_id == second
        scene.store.retention.prune(older_than_seconds=-60, discard=lambda _: None)
        assert scene.store.catalog.step(second) is None
        found = scene.store.versions.at([A], at)[A]
        assert found.is_unknown
        now = scene.store.versions.at([A], datetime.now(UTC) + timedelta(days=1))[A]
        assert (now.step_id, now.is_unknown) == (third, False)
        with pytest.raises(RestoreRefusedError, match="pruned"):
            scene.store.versions.restore([RestoreVersion(A, second)])

    def test_partitions_of_which_something_is_recorded(self, scene: Scene) -> None:
        """Each once, in order, hostile ones included."""
        keys = sorted({f"s:{text}" for text in HOSTILE_TEXTS if "\x00" not in text}, key=str.encode)
        for number, key in enumerate(keys):
            scene.make("a", key, run_id=f"{number}")
            scene.make("a", key, run_id=f"{number} again")
        versions = scene.store.versions
        assert set(versions.partitions("a")) == set(keys)
        assert len(versions.partitions("a", limit=2)) == 2
        first, *rest = versions.partitions("a")
        assert versions.partitions("a", after=first) == rest
        assert versions.partitions("nope") == []
        for key in keys:
            target: Target = ("a", key)
            newest, oldest = versions.page(target)
            versions.restore([RestoreVersion(target, oldest.step_id)], by=key[2:100])
            assert current(scene, target) == oldest.step_id
            assert newest.step_id > oldest.step_id


class EraseTests(StoreCase):
    """What a store means by erasing."""

    def test_nothing_of_the_data_is_left(self, scene: Scene) -> None:
        """Texts, metadata, results of checks, what people were asked; rows stay as the fact."""
        secret = "Ann Smith, 1 High Street"
        target: Target = ("a", "s:ann")
        request = Suspended(
            gate="default",
            message=secret,
            data=f'{{"who": "{secret}"}}',
            resume="null",
            timeout_seconds=60.0,
            on_timeout="reject",
        )
        decided = scene.one(*target, run_id="asked")
        scene.end(scene.claim(decided.id), request)
        (approval,) = scene.store.approvals.of_step(decided.id)
        scene.store.approvals.decide(approval.id, approve=True, by="bob", comment=secret)
        claim = scene.claim(decided.id)
        stored = StoredOutput("memory", "1-1", size_bytes=7, content_hash="ab" * 32, metadata={"name": secret})
        check = CheckRecord(
            check="c",
            asset="a",
            partition_key=target[1],
            step_id=claim.step_id,
            attempt=1,
            passed=False,
            started_at=scene.now,
            description=secret,
            error=secret,
            metadata={"name": secret},
        )
        ended = AttemptResult(claim, succeeded(claim), (), scene.later(1), checks=(check,))
        ended.outcome = type(succeeded(claim))(stored, None)
        scene.store.ledger.commit([ended])
        broken = scene.one(*target, run_id="broken", forced=True)
        scene.end(scene.claim(broken.id), failed(secret))
        reader = scene.make("b", run_id="reader", inputs=[decided.id])
        line = LogBatch(decided.id, 1, claim.token, 1, 1, "asked", secret)
        scene.store.logs.append([line], [])
        versions = scene.store.versions
        counts = versions.erase_counts([target])
        assert (counts.steps, counts.values, counts.size_bytes) == (2, 1, 7)
        assert (counts.checks, counts.approvals, counts.logs, counts.erased) == (1, 1, 1, 0)
        assert current(scene, target) == decided.id
        erased = versions.erase([target], by="ann", reason="a request of 3 May")
        assert erased == [decided.id, broken.id]
        everything = [
            *scene.store.catalog.history(*target),
            *scene.store.catalog.attempts(decided.id),
            *scene.store.catalog.attempts(broken.id),
            *versions.page(target),
            *scene.store.checks.results("a"),
            *scene.store.checks.of_steps([decided.id])[decided.id],
            *scene.store.approvals.of_step(decided.id),
            *scene.store.audit.lines(),
            *versions.changes([target]),
            *scene.store.logs.read(decided.id, 1),
        ]
        assert secret not in repr(everything)
        assert "ab" * 32 not in repr(everything)
        assert current(scene, target) is None
        assert scene.store.catalog.resolve([("", *target), ("asked", *target)]) == [None, None]
        assert all(step.erased_at is not None for step in scene.store.catalog.history(*target))
        assert scene.store.catalog.readers([decided.id]) == {decided.id: (reader,)}
        (line,) = scene.store.audit.lines(AuditFilter(action="versions.erased"))
        assert (line.actor, line.subject) == ("ann", "asset:a")
        assert line.details["steps"] == 2

    def test_values_are_found_until_they_are_deleted(self, scene: Scene) -> None:
        """A death after the first transaction leaves enough for the next attempt; a second one changes nothing."""
        target: Target = ("a", "s:x")
        first, second = scene.make(*target, run_id="1"), scene.make(*target, run_id="2")
        scene.open("3", [NewStep("a", "s:x", reuse=second)])
        versions = scene.store.versions
        assert versions.erased_values([target]) == []
        versions.erase([target])
        assert versions.erase([target]) == []
        values = versions.erased_values([target])
        assert [(one.step_id, one.versions) for one in values[:2]] == [
            (first, [f"{first}-1"]),
            (second, [f"{second}-1"]),
        ]
        assert all(one.stored is not None and one.stored.location for one in values)
        assert versions.forget_values([one.step_id for one in values]) == 3
        assert [one.stored for one in versions.erased_values([target])] == [None] * 3
        assert versions.forget_values([first, 987654321]) == 0
        assert versions.erase_counts([target]).erased == 3
        assert len(versions.changes([target])) == 1
        with pytest.raises(ValueErasedError):
            versions.restore([RestoreVersion(target, first)])
        # it may be computed again; that is another version
        again = scene.make(*target, run_id="4")
        assert current(scene, target) == again
        assert versions.erase([target]) == [again]

    def test_what_is_under_way_is_not_erased(self, scene: Scene) -> None:
        """Its value would be there afterwards."""
        scene.make(run_id="1")
        scene.one(run_id="2", forced=True)
        with pytest.raises(TargetActiveError, match="Nothing was erased"):
            scene.store.versions.erase([A])
        assert current(scene) is not None

    def test_others_keep_theirs(self, scene: Scene) -> None:
        """Of other partitions, and of other steps of the same run, nothing goes."""
        x, y = scene.open("run", [NewStep("a", "s:x"), NewStep("a", "s:y")])
        for one in (x, y):
            scene.end(scene.claim(one.id))
        scene.store.versions.erase([("a", "s:x")])
        record = scene.step(y.id)
        assert (record.erased_at, record.stored is not None) == (None, True)
        assert current(scene, ("a", "s:y")) == y.id
