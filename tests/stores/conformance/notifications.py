"""What notifications must mean in every store: decided with what happens, claimed by one, sent at least once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.stores.conformance.approvals import suspended
from tests.stores.conformance.case import HOSTILE_TEXTS, Scene, StoreCase, failed, skipped, stopped
from tests.stores.conformance.catalog import end, found

from flowstone.core.audit import AuditFilter
from flowstone.core.automation.record import AutomationId, AutomationKind, Conclusion, NewTick, TickState
from flowstone.core.notification import (
    MAX_NOTICES,
    UNDECLARED,
    Notice,
    Notification,
    NotificationState,
    NotifyEvent,
    NotifyRule,
)
from flowstone.core.step import NewStep, Severity
from flowstone.testing.marks import wait_until

EVERY = frozenset(NotifyEvent)


def rule(*events: str, name: str = "ops", assets: Sequence[str] | None = None, **more: Any) -> NotifyRule:
    """Return a rule about some events, or about all."""
    chosen = frozenset(NotifyEvent(one) for one in events) or EVERY
    return NotifyRule(name=name, events=chosen, assets=None if assets is None else frozenset(assets), **more)


class NotificationCase(StoreCase):
    """Gives tests the verbs of deciding and claiming."""

    def claim(self, scene: Scene, name: str = "ops") -> list[Notification]:
        """Claim what is due for a rule."""
        return scene.store.notifications.claim([name], lease_seconds=60, limit=100)

    def fail(self, scene: Scene, asset: str = "a", *, run_id: str = "run", partition: str = "") -> None:
        """Have a step of a run of its own fail for good."""
        scene.end(scene.claim(scene.one(asset, partition, run_id=run_id, forced=True).id), failed("boom"))

    def events(self, notifications: Sequence[Notification]) -> list[tuple[str, str]]:
        """Return event and subject of each notice."""
        return [(one.event.value, one.subject) for each in notifications for one in each.notices]

    def conclude(self, scene: Scene, name: str, *ticks: NewTick) -> None:
        """Conclude an evaluation of a sensor that is declared and due."""
        store, sensor = scene.store.automations, AutomationId(AutomationKind.SENSOR, name)
        store.declare([sensor])
        (taken,) = store.take([sensor], lease_seconds=60)
        failures = sum(one.state is TickState.FAILED for one in ticks)
        due_at = taken.now - timedelta(seconds=1)
        assert store.conclude(
            taken, Conclusion(ticks=ticks, cursor=None, due_at=due_at, failures=failures)
        ).accepted


class NotificationTests(NotificationCase):
    """Decided, claimed, sent."""

    def test_nothing_is_decided_without_rules(self, scene: Scene) -> None:
        """Whatever happens."""
        self.fail(scene)
        assert scene.store.notifications.newest() == []
        assert not scene.store.notifications.has_pending

    def test_once_after_the_last_attempt(self, scene: Scene) -> None:
        """Not for those that are tried again: airflow#12612."""
        scene.store.notifications.watch([rule("failed")])
        step = scene.one(max_attempts=2)
        scene.end(scene.claim(step.id), failed("first"), retry=0.0)
        assert scene.store.notifications.newest() == []
        again = scene.claim(step.id, now=scene.later(2))
        scene.end(again, failed("Traceback (most recent call last):\n  File ...\nValueError: second"))
        (one,) = self.claim(scene)
        (notice,) = one.notices
        assert (one.run_id, one.key, one.counts) == ("run", "run:run", {"failed": 1})
        assert (notice.subject, notice.step_id, notice.event) == ("a", step.id, NotifyEvent.FAILED)
        assert notice.text == "ValueError: second"

    def test_one_message_for_a_run(self, scene: Scene) -> None:
        """However much of it fails, and what is not computed because of that: airflow's callbacks say nothing."""
        scene.store.notifications.watch([rule("failed")])
        placed = scene.open(
            "run",
            [NewStep("a", f"i:{number}") for number in range(30)] + [NewStep("b", "", inputs=(0,))],
        )
        for one in placed[:29]:
            scene.end(scene.claim(one.id), failed("boom"))
        assert self.claim(scene) == []  # it goes on
        scene.end(scene.claim(placed[29].id), failed("boom"))
        (one,) = self.claim(scene)
        assert one.counts == {"failed": 30, "upstream_failed": 1}
        assert len(one.notices) == MAX_NOTICES
        assert one.total == 31

    def test_a_run_that_goes_on_is_reported_in_between(self, scene: Scene) -> None:
        """Once when the rule has waited, and once more at its end."""
        scene.store.notifications.watch([rule("failed", wait_seconds=0.0)])
        first, second, third = scene.open("run", [NewStep("a", f"i:{number}") for number in range(3)])
        scene.end(scene.claim(first.id), failed("boom"))
        (early,) = self.claim(scene)
        scene.store.notifications.acknowledge(early)
        scene.end(scene.claim(second.id), failed("boom"))
        assert self.claim(scene) == []
        scene.end(scene.claim(third.id), failed("boom"))
        (late,) = self.claim(scene)
        assert (early.counts, late.counts) == ({"failed": 1}, {"failed": 2})
        assert early.id != late.id

    def test_only_what_a_rule_selects(self, scene: Scene) -> None:
        """By asset and by event; a reader of what failed is reported by its own rule."""
        rules = [rule("failed", name="a", assets=["a"]), rule("failed", name="b", assets=["b"])]
        scene.store.notifications.watch([*rules, rule("late", name="c"), rule("upstream_failed", name="d")])
        first, _ = scene.open("run", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        scene.end(scene.claim(first.id), failed("boom"))
        claimed = {name: self.events(self.claim(scene, name)) for name in "abcd"}
        assert claimed == {
            "a": [("failed", "a")],
            "b": [("upstream_failed", "b")],
            "c": [],
            "d": [("upstream_failed", "b")],
        }

    def test_what_people_cancel_is_no_failure(self, scene: Scene) -> None:
        """Nor is what was skipped: dagster#26722."""
        scene.store.notifications.watch([rule()])
        scene.end(scene.claim(scene.one("a", run_id="1").id), skipped())
        scene.end(scene.claim(scene.one("b", run_id="2").id), stopped())
        scene.one("c", run_id="3")
        scene.store.ledger.cancel_run("3")
        assert self.events(self.claim(scene)) in ([], [("completed", "1")])

    def test_claimed_by_one_and_acknowledged(self, scene: Scene) -> None:
        """What is claimed is claimed by nobody else; what was sent is not sent again."""
        store = scene.store.notifications
        store.watch([rule("failed")])
        self.fail(scene)
        (one,) = self.claim(scene)
        assert self.claim(scene) == []
        assert store.pending(["ops"]) == 1
        store.acknowledge(one)
        sent = store.get(one.id)
        assert sent is not None
        assert (sent.state, sent.attempts, sent.error) == (NotificationState.SENT, 1, None)
        assert sent.sent_at is not None
        assert (store.pending(["ops"]), store.counts()) == (0, {NotificationState.SENT: 1})
        assert store.retry([one.id]) == []

    def test_what_is_due_is_known_without_claiming(self, scene: Scene) -> None:
        """So that who has nothing to send writes nothing."""
        store = scene.store.notifications
        store.watch([rule("failed", name=name) for name in ("a", "b")])
        self.fail(scene)
        assert sorted(store.due(["a", "b", "c"])) == ["a", "b"]
        assert len(self.claim(scene, "a")) == 1
        assert store.due(["a", "b", "c"]) == ["b"]
        assert store.due([]) == []

    def test_what_nobody_can_send_is_given_up(self, scene: Scene) -> None:
        """Its rule is declared no more; a person may have it sent should the rule come back."""
        store = scene.store.notifications
        store.watch([rule("failed", name=name, wait_seconds=0.0) for name in ("gone", "ops")])
        self.fail(scene)
        store.watch([rule("failed", wait_seconds=0.0)])
        assert store.keep_rules(for_seconds=3600.0) == []
        (one,) = store.keep_rules(for_seconds=0.0)
        assert (one.rule, one.state, one.error) == ("gone", NotificationState.GIVEN_UP, UNDECLARED)
        assert store.get(one.id) == one
        assert store.keep_rules(for_seconds=0.0) == []
        (line,) = scene.store.audit.lines(AuditFilter(subject=f"notification:{one.id}"), limit=10)
        assert (line.action, line.details["rule"]) == ("notification.given_up", "gone")
        assert [each.rule for each in self.claim(scene)] == ["ops"]
        store.retry([one.id])
        assert len(self.claim(scene, "gone")) == 1

    def test_what_is_erased_is_quoted_no_more(self, scene: Scene) -> None:
        """Whatever the state of the message; what it says of others stays."""
        store = scene.store.notifications
        store.watch([rule("failed", "recovered", "approval"), rule("failed", name="other")])
        placed = scene.open("run", [NewStep("a", f"s:{name}") for name in ("ann", "bob")])
        for one, name in zip(placed, ("ann", "bob"), strict=True):
            scene.end(scene.claim(one.id), failed(f"ValueError: {name} owes 5"))
        (sent,) = self.claim(scene)
        store.acknowledge(sent)
        again = scene.one("a", "s:ann", run_id="again", forced=True)
        scene.end(scene.claim(again.id), suspended("Pay s:ann?"))
        scene.store.ledger.cancel_run("again")
        scene.store.versions.erase([("a", "s:ann")])
        texts = [notice.text for one in store.newest() for notice in one.notices]
        assert sorted(texts) == ["ValueError: bob owes 5"] * 2 + ["erased"] * 3
        assert {one.state for one in store.newest()} == {NotificationState.SENT, NotificationState.PENDING}

    def test_a_lease_that_ends_is_claimed_again(self, scene: Scene) -> None:
        """Whoever had it cannot say any more how it ended."""
        store = scene.store.notifications
        store.watch([rule("failed")])
        self.fail(scene)
        (lost,) = store.claim(["ops"], lease_seconds=0.0)
        assert wait_until(lambda: store.pending(["ops"]) == 1, timeout_seconds=5)
        (taken,) = store.claim(["ops"], lease_seconds=60.0)
        assert (taken.id, taken.attempts) == (lost.id, 2)
        store.give_up(lost, error="late")
        store.acknowledge(taken)
        assert [one.state for one in store.newest()] == [NotificationState.SENT]

    def test_released_and_given_up(self, scene: Scene) -> None:
        """A try later; and when it is given up, the audit log says so and a person may have it sent."""
        store = scene.store.notifications
        store.watch([rule("failed")])
        self.fail(scene)
        (one,) = self.claim(scene)
        store.release(one, error="refused password=hunter2hunter2", retry_in_seconds=0.0)
        (one,) = self.claim(scene)
        assert one.error == "refused password=***"
        store.release(one, error="refused", retry_in_seconds=600.0)
        assert self.claim(scene) == []
        assert store.retry([one.id]) == [one.id]
        (one,) = self.claim(scene)
        assert one.attempts == 1
        store.give_up(one, error="refused")
        assert store.newest(state=NotificationState.GIVEN_UP)[0].error == "refused"
        assert self.claim(scene) == []
        lines = scene.store.audit.lines(AuditFilter(subject=f"notification:{one.id}"), limit=10)
        assert [line.action for line in lines] == ["notification.given_up", "notification.retried"]
        assert store.retry([one.id, 10**9]) == [one.id]
        assert len(self.claim(scene)) == 1

    def test_what_recovered(self, scene: Scene) -> None:
        """Once, and only what had failed."""
        scene.store.notifications.watch([rule("failed", "recovered")])
        scene.make("a", run_id="1")
        self.fail(scene, run_id="2")
        self.fail(scene, run_id="3")
        self.claim(scene)
        scene.make("a", run_id="4")
        scene.make("a", run_id="5")
        assert self.events(self.claim(scene)) == [("recovered", "a")]

    def test_partitions_recover_by_themselves(self, scene: Scene) -> None:
        """One partition says nothing of another."""
        scene.store.notifications.watch([rule("recovered")])
        self.fail(scene, run_id="1", partition="i:1")
        scene.make("a", "i:2", run_id="2")
        assert self.claim(scene) == []
        scene.make("a", "i:1", run_id="3")
        assert [one.notices[0].partition_key for one in self.claim(scene)] == ["i:1"]

    def test_runs_that_completed(self, scene: Scene) -> None:
        """Each once, when all of it is well."""
        scene.store.notifications.watch([rule("completed")])
        first, second = scene.open("run", [NewStep("a", ""), NewStep("b", "")], assets=("a", "b"))
        scene.end(scene.claim(first.id))
        assert self.claim(scene) == []
        scene.end(scene.claim(second.id))
        self.fail(scene, "c", run_id="other")
        assert self.events(self.claim(scene)) == [("completed", "run")]

    def test_checks(self, scene: Scene) -> None:
        """By severity, and that they pass again; those of an attempt that is tried again say nothing."""
        scene.store.notifications.watch([rule("check_failed", "check_warned", "recovered")])
        claim = scene.claim(scene.one(run_id="1", max_attempts=2).id)
        end(scene, claim, found(scene, claim, passed=False), outcome=failed("check"), retry=0.0)
        assert scene.store.notifications.newest() == []
        claim = scene.claim(claim.step_id, now=scene.later(2))
        warning = found(scene, claim, "small", passed=False, severity=Severity.WARNING)
        bad = found(scene, claim, passed=False, description="3 rows")
        end(scene, claim, bad, warning, found(scene, claim, "x"))
        (one,) = self.claim(scene)
        assert sorted((each.event.value, each.check, each.text) for each in one.notices) == [
            ("check_failed", "not_empty", "3 rows"),
            ("check_warned", "small", ""),
        ]
        claim = scene.claim(scene.one(run_id="2", forced=True).id)
        end(scene, claim, found(scene, claim), found(scene, claim, "x"))
        assert [(each.event.value, each.check) for each in self.claim(scene)[0].notices] == [
            ("recovered", "not_empty")
        ]

    def test_approvals(self, scene: Scene) -> None:
        """At once, also while the run goes on."""
        scene.store.notifications.watch([rule("approval")])
        first, _ = scene.open("run", [NewStep("a", ""), NewStep("b", "")])
        scene.end(scene.claim(first.id), suspended("Pay 2 invoices?"))
        (one,) = self.claim(scene)
        assert one.key == f"approval:{scene.store.approvals.of_step(first.id)[0].id}"
        assert one.notices[0].text == "Pay 2 invoices?"

    def test_automations_that_begin_to_fail(self, scene: Scene) -> None:
        """Once until they are well, however often they fail: dagster#29625."""
        scene.store.notifications.watch([rule("automation_failed", "recovered")])
        at = scene.now
        bad = [NewTick(at=at + timedelta(seconds=n), state=TickState.FAILED, error="E: away") for n in range(4)]
        well = NewTick(at=at + timedelta(seconds=9), state=TickState.SKIPPED, reason="nothing")
        self.conclude(scene, "inbox", bad[0])
        self.conclude(scene, "inbox", bad[1], bad[2])
        (one,) = self.claim(scene)
        assert (self.events([one]), one.notices[0].text) == ([("automation_failed", "sensor:inbox")], "E: away")
        self.conclude(scene, "inbox", well)
        self.conclude(scene, "inbox", replace(well, at=at + timedelta(seconds=10), reason="still nothing"))
        self.conclude(scene, "inbox", bad[3])
        assert self.events(self.claim(scene)) == [
            ("recovered", "sensor:inbox"),
            ("automation_failed", "sensor:inbox"),
        ]

    def test_runs_that_take_too_long(self, scene: Scene) -> None:
        """Once each; those that are over, or not yet late, are none."""
        store = scene.store.notifications
        store.watch([rule("deadline", deadline_seconds=3600.0, assets=["a"])])
        early = scene.now - timedelta(hours=2)
        scene.open("late", [NewStep("a", "")], created_at=early, assets=("a",))
        scene.open("new", [NewStep("a", "i:1")], assets=("a",))
        scene.open("other", [NewStep("b", "")], created_at=early, assets=("b",))
        (done,) = scene.open("done", [NewStep("a", "i:2")], created_at=early, assets=("a",))
        scene.end(scene.claim(done.id))
        assert (store.overdue(), store.overdue()) == (1, 0)
        (one,) = self.claim(scene)
        assert (self.events([one]), one.run_id) == ([("deadline", "late")], "late")
        store.acknowledge(one)
        assert store.overdue() == 0

    def test_late_data(self, scene: Scene) -> None:
        """Once when they become late, and once when they are not any more; all together in one message."""
        store = scene.store.notifications
        store.watch([rule("late", "recovered")])
        assert store.set_late({}, {"a": "", "b": ""}) == []
        assert store.set_late({"a": "2 days old", "b": "old"}, {}) == ["a", "b"]
        assert store.set_late({"a": "3 days old"}, {}) == []
        (one,) = self.claim(scene)
        assert self.events([one]) == [("late", "a"), ("late", "b")]
        store.set_late({"b": "old"}, {"a": "fresh"})
        assert self.events(self.claim(scene)) == [("recovered", "a")]

    def test_when_data_were_committed(self, scene: Scene) -> None:
        """The newest of each asset; and since when those without any are known."""
        store = scene.store.notifications
        scene.make("a", "i:1", run_id="1")
        first = store.newest_commits(["a", "b"])
        scene.make("a", "i:2", run_id="2")
        second = store.newest_commits(["a", "b"])
        assert first.keys() == second.keys() == {"a"}
        assert first["a"] <= second["a"]
        seen = store.seen_since(["b"])
        assert store.seen_since(["b", "c"])["b"] == seen["b"]

    def test_hostile_names_and_errors(self, scene: Scene) -> None:
        """They come back as they are, errors in a shorter form."""
        for number, text in enumerate(HOSTILE_TEXTS):
            scene.store.notifications.watch([rule("failed", name=text[:90])])
            placed = scene.one(text, text, run_id=f"run {number}")
            scene.end(scene.claim(placed.id), failed(f"E: {text}"))
            (one,) = self.claim(scene, text[:90])
            assert (one.notices[0].subject, one.notices[0].partition_key, one.rule) == (text, text, text[:90])
            assert one.notices[0] == Notice.from_json(one.notices[0].to_json())

    def test_old_ones_are_forgotten(self, scene: Scene) -> None:
        """Those that are over; never what is not sent."""
        store = scene.store.notifications
        store.watch([rule("failed")])
        self.fail(scene, run_id="1")
        (sent,) = self.claim(scene)
        store.acknowledge(sent)
        self.fail(scene, run_id="2")
        assert store.prune(older_than_seconds=3600) == 0
        assert wait_until(lambda: store.prune(older_than_seconds=0.0) == 1, timeout_seconds=5)
        assert [one.state for one in store.newest()] == [NotificationState.PENDING]
