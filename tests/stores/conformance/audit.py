"""Who did what, in every store: each action writes its line, once, in its own transaction."""

from __future__ import annotations

from datetime import timedelta

from tests.stores.conformance.case import HOSTILE_TEXTS, Scene, StoreCase

from flowstone.core.actor import Actor, acting
from flowstone.core.audit import AuditFilter
from flowstone.core.automation.record import AutomationId, AutomationKind
from flowstone.core.partitions import PartitionKey
from flowstone.core.step import NewStep

NIGHTLY = AutomationId(AutomationKind.SENSOR, "inbox")


class AuditTests(StoreCase):
    """What the audit log says of actions."""

    def test_every_action_is_written_once_with_who_and_by_which_way(self, scene: Scene) -> None:
        store = scene.store
        store.automations.declare([NIGHTLY])
        first, second = scene.one("a", run_id="1"), scene.one("b", run_id="2")
        scene.make("c", "s:eu", run_id="3")
        with acting(Actor("ann", "cli")):
            store.ledger.request_cancel(first.id)
            store.ledger.cancel_run("2")
            store.ledger.invalidate([("c", PartitionKey("s:eu"))])
            store.partition_keys.add("customers", ["x", "y"], by="ann", reason="new")
            store.partition_keys.remove("customers", ["y"], by="ann")
            store.automations.set_paused(NIGHTLY, paused=True)
            store.automations.set_paused(NIGHTLY, paused=False)
            store.automations.set_cursor(NIGHTLY, "7")
            store.automations.request(NIGHTLY)
            store.retention.prune(older_than_seconds=-1, discard=lambda _: None)
        lines = store.audit.lines()[::-1]
        assert [(line.action, line.subject) for line in lines] == [
            ("step.cancelled", f"step:{first.id}"),
            ("run.cancelled", "run:2"),
            ("versions.invalidated", "asset:c"),
            ("partitions.added", "partitions:customers"),
            ("partitions.removed", "partitions:customers"),
            ("sensor.paused", "sensor:inbox"),
            ("sensor.resumed", "sensor:inbox"),
            ("sensor.cursor_set", "sensor:inbox"),
            ("sensor.requested", "sensor:inbox"),
            ("records.pruned", "records"),
        ]
        assert {(line.actor, line.via) for line in lines} == {("ann", "cli")}
        assert lines[1].details == {"steps": 1}
        assert lines[2].details == {"versions": 1, "partitions": ["s:eu"]}
        assert lines[3].details == {"number": 2, "keys": ["x", "y"], "reason": "new"}
        assert scene.store.catalog.step(second.id) is None

    def test_what_changes_nothing_is_not_written(self, scene: Scene) -> None:
        store = scene.store
        store.automations.declare([NIGHTLY])
        step = scene.make("a", run_id="1")
        store.ledger.request_cancel(step)
        store.ledger.cancel_run("1")
        store.ledger.invalidate([("nothing", PartitionKey(""))])
        store.partition_keys.remove("customers", ["x"])
        store.automations.set_paused(NIGHTLY, paused=False)
        assert store.audit.lines() == []

    def test_a_run_says_who_asked_for_it(self, scene: Scene) -> None:
        scene.open("1", [NewStep("a", "")], requested_by="ann", requested_via="web")
        scene.open("2", [NewStep("b", "")], requested_by="nightly", requested_via="automation")
        scene.one("c", run_id="3")
        found = {run.id: (run.requested_by, run.requested_via) for run in scene.store.catalog.runs()}
        assert found == {"1": ("ann", "web"), "2": ("nightly", "automation"), "3": (None, None)}
        # automations have ticks; what nobody put a name to is in the list of runs
        (line,) = scene.store.audit.lines()
        assert (line.actor, line.action, line.subject) == ("ann", "run.placed", "run:1")
        assert line.details == {"kind": "test", "selection": "test", "steps": 1}
        scene.open("1", [NewStep("a", "")], requested_by="bob", requested_via="web")
        assert len(scene.store.audit.lines()) == 1, "the same run again places nothing"

    def test_lines_are_filtered_and_paged(self, scene: Scene) -> None:
        audit = scene.store.audit
        for name in ("ann", "bob", "ann"):
            with acting(Actor(name, "web")):
                audit.note("session.opened", f"person:{name}")
        with acting(Actor("ann", "web")):
            audit.note("sessionless", "x")
            audit.note("queue.paused", "queue:reports", {"limit": None, "reason": "full"})
        newest, *_ = audit.lines()
        assert (newest.action, newest.details) == ("queue.paused", {"reason": "full"})
        assert [line.actor for line in audit.lines(AuditFilter(action="session"))] == ["ann", "bob", "ann"]
        assert len(audit.lines(AuditFilter(action="session.opened", actor="ann"))) == 2
        assert len(audit.lines(AuditFilter(subject="person:bob"))) == 1
        assert len(audit.lines(AuditFilter(since=newest.at))) == 1
        assert len(audit.lines(AuditFilter(until=newest.at))) == 4
        assert audit.lines(AuditFilter(since=newest.at + timedelta(seconds=1))) == []
        pages = [audit.lines(limit=2)]
        while pages[-1]:
            pages.append(audit.lines(before=pages[-1][-1].id, limit=2))
        assert [line.id for page in pages for line in page] == [line.id for line in audit.lines()]

    def test_any_text_is_a_name(self, scene: Scene) -> None:
        for text in HOSTILE_TEXTS:
            with acting(Actor(text, "web")):
                scene.store.audit.note("a.b", f"queue:{text}", {"text": text})
        found = scene.store.audit.lines()[::-1]
        assert [line.actor for line in found[:8]] == list(HOSTILE_TEXTS[:8])
        assert len(found[-1].actor) <= 250
