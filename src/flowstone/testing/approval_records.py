"""Conformance of approvals: what is recorded, listed, logged and announced."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from flowstone.core.approval import ApprovalState
from flowstone.core.output import JsonValue
from flowstone.testing.approval_case import ApprovalCase
from flowstone.testing.store_case import HOSTILE_TEXTS
from flowstone.testing.store_scene import Scene

_ODD_JSON: Sequence[JsonValue] = ({"a": [1, 2.5, None, True]}, [], "", 0, "nul \x00", "\ud800", {"": "x" * 5000})


class ApprovalRecordTests(ApprovalCase):
    """What remains of requests and decisions."""

    @pytest.mark.parametrize("value", _ODD_JSON, ids=repr)
    def test_json_comes_back(self, scene: Scene, value: JsonValue) -> None:
        """Exactly as it was given."""
        text = json.dumps(value)
        one = self.ask(scene, scene.one(), data=text, resume=text)
        assert (one.data, one.resume) == (value, value)

    @pytest.mark.parametrize("text", HOSTILE_TEXTS)
    def test_texts_come_back(self, scene: Scene, text: str) -> None:
        """Whatever people and assets write."""
        one = self.ask(scene, scene.one(), message=text, gate=text[:200])
        decided = scene.store.approvals.decide(one.id, approve=True, by="ann", comment=text)
        assert (decided.message, decided.gate, decided.comment) == (text, text[:200], text)
        assert scene.store.approvals.get(one.id) == decided

    def test_lists(self, scene: Scene) -> None:
        """Pending ones by the end of their time; all of them newest first."""
        late = self.ask(scene, scene.one("a", run_id="1"), timeout_seconds=900.0)
        soon = self.ask(scene, scene.one("b", run_id="2"), timeout_seconds=90.0)
        done = self.ask(scene, scene.one("c", run_id="3"))
        scene.store.approvals.decide(done.id, approve=True, by="ann")
        store = scene.store.approvals
        assert [one.id for one in store.list(state=ApprovalState.PENDING)] == [soon.id, late.id]
        assert [one.id for one in store.list(state=ApprovalState.APPROVED)] == [done.id]
        assert [one.id for one in store.list()] == [done.id, soon.id, late.id]
        assert [one.id for one in store.list(limit=1)] == [done.id]

    def test_the_audit_log(self, scene: Scene) -> None:
        """Says who did what; newest first."""
        one = self.ask(scene, scene.one("a", run_id="1"), message="Pay?")
        scene.store.approvals.decide(one.id, approve=False, by="ann", comment="no")
        other = self.ask(scene, scene.one("b", run_id="2"))
        scene.store.ledger.request_cancel(other.step_id)
        log = scene.store.approvals.audit()
        assert [(line.action, line.subject) for line in log] == [
            ("approval.cancelled", f"approval:{other.id}"),
            ("approval.requested", f"approval:{other.id}"),
            ("approval.rejected", f"approval:{one.id}"),
            ("approval.requested", f"approval:{one.id}"),
        ]
        (decided_line, request) = scene.store.approvals.audit(subject=f"approval:{one.id}")
        assert (decided_line.actor, decided_line.details) == ("ann", {"comment": "no"})
        assert (request.actor, request.details["message"]) == ("asset a", "Pay?")
        assert request.at <= decided_line.at
        assert len(scene.store.approvals.audit(limit=2)) == 2

    def test_each_state_learns_once(self, scene: Scene) -> None:
        """Under a lease; again when that did not work, and anew when it was decided."""
        one = self.ask(scene, scene.one())
        store = scene.store.approvals
        (taken,) = store.claim_notifications(lease_seconds=60)
        assert (taken.id, taken.state) == (one.id, ApprovalState.PENDING)
        assert list(store.claim_notifications(lease_seconds=60)) == []
        store.release_notification(taken, retry_in_seconds=0.0)
        (again,) = store.claim_notifications(lease_seconds=60)
        store.acknowledge_notification(again)
        store.release_notification(again, retry_in_seconds=0.0)
        assert list(store.claim_notifications(lease_seconds=60)) == []
        store.decide(one.id, approve=True, by="ann")
        (decided,) = store.claim_notifications(lease_seconds=0.0)
        assert decided.state is ApprovalState.APPROVED
        store.acknowledge_notification(taken)  # the news of the request comes late and changes nothing
        assert [one.state for one in store.claim_notifications(lease_seconds=60)] == [ApprovalState.APPROVED]
        store.acknowledge_notification(decided)
        assert list(store.claim_notifications(lease_seconds=0.0)) == []
