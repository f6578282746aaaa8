"""What approvals must mean in every store: recorded, listed, announced, decided once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from tests.stores.conformance.case import HOSTILE_TEXTS, Scene, StoreCase, failed, snoozed, succeeded

from flowstone.core.approval import Approval, ApprovalState
from flowstone.core.audit import AuditFilter
from flowstone.core.outcome import AttemptOutcome, Suspended
from flowstone.core.output import JsonValue
from flowstone.core.state import State
from flowstone.core.step import AttemptResult, NewStep, PlacedStep
from flowstone.errors import ApprovalDecidedError, ApprovalNotFoundError
from flowstone.testing.marks import wait_until


def suspended(message: str = "Go on?", **fields: object) -> Suspended:
    """Return the end of an attempt that asks."""
    return Suspended(message, **fields)  # type: ignore[arg-type]


class ApprovalCase(StoreCase):
    """Gives tests the verbs of asking and deciding."""

    def ask(self, scene: Scene, placed: PlacedStep, **fields: object) -> Approval:
        """Start an attempt that asks; return the request."""
        committed = scene.end(scene.claim(placed.id), suspended(**fields))  # type: ignore[arg-type]
        assert (committed.accepted, committed.state) == (True, State.AWAITING_APPROVAL)
        return scene.store.approvals.of_step(placed.id)[-1]

    def expire(self, scene: Scene) -> None:
        """Wait until one request has expired."""
        assert wait_until(lambda: scene.store.approvals.expire_due() == 1, timeout_seconds=10)

    def late(self, scene: Scene, approval_id: int, *, approve: bool = True) -> ApprovalDecidedError:
        """Decide what is over already."""
        with pytest.raises(ApprovalDecidedError) as caught:
            scene.store.approvals.decide(approval_id, approve=approve, by="late")
        return caught.value


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
        log = [line for line in scene.store.audit.lines() if line.action.startswith("approval.")]
        assert [(line.action, line.subject) for line in log] == [
            ("approval.cancelled", f"approval:{other.id}"),
            ("approval.requested", f"approval:{other.id}"),
            ("approval.rejected", f"approval:{one.id}"),
            ("approval.requested", f"approval:{one.id}"),
        ]
        (decided_line, request) = scene.store.audit.lines(AuditFilter(subject=f"approval:{one.id}"))
        assert (decided_line.actor, decided_line.details) == ("ann", {"comment": "no"})
        assert (request.actor, request.details["message"]) == ("asset a", "Pay?")
        assert request.at <= decided_line.at
        assert len(scene.store.audit.lines(limit=2)) == 2

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


_SOON = 0.001


class ApprovalConformance(ApprovalRecordTests):
    """Tests of `flowstone.protocols.ApprovalStore`; make a subclass whose name starts with `Test`.

    Override `make_store`. Example:

        >>> from flowstone.stores.memory import MemoryStore
        >>> class TestMyApprovals(ApprovalConformance):
        ...     def make_store(self):
        ...         return MemoryStore()
    """

    def test_a_request_is_recorded_with_the_attempt_that_asks(self, scene: Scene) -> None:
        """What was asked is there; the attempt is released, and nothing can start the step."""
        placed = scene.one("a", "s:x", max_attempts=1)
        claim = scene.claim(placed.id)
        scene.end(claim, suspended("Pay?", gate="money", data='{"sum": 3}', resume="[1]", on_timeout="skip"))
        (one,) = scene.store.approvals.list(state=ApprovalState.PENDING)
        assert (one.step_id, one.run_id, one.asset, one.partition_key) == (placed.id, "run", "a", "s:x")
        assert (one.message, one.gate, one.data, one.resume) == ("Pay?", "money", {"sum": 3}, [1])
        assert (one.attempt, one.on_timeout, one.state) == (1, "skip", ApprovalState.PENDING)
        assert (one.expires_at - one.created_at).total_seconds() == pytest.approx(3600, abs=1)
        assert (one.decided_at, one.decided_by, one.comment) == (None, None, None)
        step = scene.step(placed.id)
        assert (step.state, step.attempt, step.finished_at) == (State.AWAITING_APPROVAL, 0, None)
        assert "Pay?" in (step.reason or "")
        assert scene.store.catalog.attempts(placed.id) == []
        assert not scene.claimable(placed.id, now=scene.later(99999))
        assert scene.run_state("run") is State.RUNNING
        assert scene.store.approvals.get(one.id) == one
        assert not scene.end(claim).accepted

    def test_approve_lets_the_step_go_on(self, scene: Scene) -> None:
        """It is pending at once; its next attempt has the same number, and gets the decision."""
        placed = scene.one()
        one = self.ask(scene, placed, resume='{"rows": 7}')
        decided = scene.store.approvals.decide(one.id, approve=True, by="ann", comment="fine")
        assert (decided.state, decided.approved, decided.decided_by) == (ApprovalState.APPROVED, True, "ann")
        assert scene.state(placed.id) is State.PENDING
        claim = scene.claim(placed.id)
        assert (claim.attempt, [one.gate for one in claim.approvals]) == (1, ["approval"])
        assert (claim.approvals[0].resume, claim.approvals[0].comment) == ({"rows": 7}, "fine")
        assert scene.end(claim).state is State.COMPLETED
        assert [one.attempt for one in scene.store.catalog.attempts(placed.id)] == [1]

    def test_reject_fails_the_step_and_all_below(self, scene: Scene) -> None:
        """For good, in the same moment, and says who and why."""
        a, b, c = scene.open(
            "run",
            [
                NewStep("a", "", max_attempts=5),
                NewStep("b", "", inputs=(0,)),
                NewStep("c", "", inputs=(1,)),
            ],
        )
        one = self.ask(scene, a)
        decided = scene.store.approvals.decide(one.id, approve=False, by="bob", comment="too much")
        assert (decided.rejected, decided.approved) == (True, False)
        assert scene.states([a, b, c]) == [State.FAILED, State.UPSTREAM_FAILED, State.UPSTREAM_FAILED]
        step = scene.step(a.id)
        assert step.error is not None
        assert all(part in step.error for part in ("bob", "too much", "Go on?"))
        assert (step.error_type, step.finished_at is not None) == ("ApprovalRejected", True)
        assert scene.run_state("run") is State.FAILED
        assert scene.one("a", run_id="next").id != a.id

    @pytest.mark.parametrize(
        ("on_timeout", "state", "below"),
        [
            ("reject", State.FAILED, State.UPSTREAM_FAILED),
            ("approve", State.PENDING, State.WAITING),
            ("skip", State.SKIPPED, State.SKIPPED),
        ],
    )
    def test_silence_means_what_was_said(self, scene: Scene, on_timeout: str, state: State, below: State) -> None:
        """Nobody decided in time."""
        a, b = scene.open("run", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        one = self.ask(scene, a, on_timeout=on_timeout, timeout_seconds=_SOON)
        self.expire(scene)
        assert scene.states([a, b]) == [state, below]
        found = scene.store.approvals.get(one.id)
        assert found is not None
        assert (found.state, found.decided_by) == (ApprovalState.EXPIRED, None)
        assert scene.store.approvals.expire_due() == 0
        assert "expired" in str(self.late(scene, one.id))
        if state is State.PENDING:
            claim = scene.claim(a.id)
            assert claim.approvals == (found,)
            assert scene.end(claim).state is State.COMPLETED

    def test_a_decision_after_the_time_is_too_late(self, scene: Scene) -> None:
        """Even when nobody has noted that the time is over."""
        placed = scene.one()
        one = self.ask(scene, placed, timeout_seconds=_SOON)
        assert wait_until(lambda: datetime.now(UTC) > one.expires_at, timeout_seconds=10)
        error = self.late(scene, one.id)
        assert error.state == "expired"
        assert scene.state(placed.id) is State.FAILED

    def test_the_first_decision_wins(self, scene: Scene) -> None:
        """The others learn who decided what and when."""
        placed = scene.one()
        one = self.ask(scene, placed)
        decided = scene.store.approvals.decide(one.id, approve=True, by="ann", comment="ok")
        for approve in (True, False):
            error = self.late(scene, one.id, approve=approve)
            assert (error.approval_id, error.state, error.decided_by) == (one.id, "approved", "ann")
            assert error.decided_at == decided.decided_at
            assert "approved by ann" in str(error)
        assert scene.store.approvals.get(one.id) == decided
        assert scene.state(placed.id) is State.PENDING

    def test_unknown_requests_are_errors(self, scene: Scene) -> None:
        """Nobody believes to have approved what does not exist."""
        with pytest.raises(ApprovalNotFoundError):
            scene.store.approvals.decide(987654, approve=True, by="ann")
        assert scene.store.approvals.get(987654) is None
        assert list(scene.store.approvals.of_step(987654)) == []

    @pytest.mark.parametrize("whole_run", [False, True])
    def test_cancel(self, scene: Scene, whole_run: bool) -> None:
        """A cancelled step asks nobody any more; the target is free."""
        a, b = scene.open("run", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        one = self.ask(scene, a)
        if whole_run:
            assert scene.store.ledger.cancel_run("run") == []
        else:
            assert scene.store.ledger.request_cancel(a.id) is State.CANCELLED
        below = State.CANCELLED if whole_run else State.UPSTREAM_FAILED
        assert scene.states([a, b]) == [State.CANCELLED, below]
        assert "approval" in (scene.step(a.id).reason or "")
        found = scene.store.approvals.get(one.id)
        assert found is not None
        assert found.state is ApprovalState.CANCELLED
        assert "cancelled" in str(self.late(scene, one.id))
        assert scene.store.approvals.expire_due() == 0
        assert scene.run_state("run") is not State.RUNNING
        assert scene.one("a", run_id="next").id != a.id

    def test_who_was_cancelled_while_running_asks_nobody(self, scene: Scene) -> None:
        """The attempt ends, and that is the end."""
        placed = scene.one()
        claim = scene.claim(placed.id)
        scene.store.ledger.request_cancel(placed.id)
        assert scene.end(claim, suspended()).state is State.CANCELLED
        assert list(scene.store.approvals.list()) == []
        assert [one.state for one in scene.store.catalog.attempts(placed.id)] == [State.CANCELLED]

    def test_a_superseded_attempt_asks_nobody(self, scene: Scene) -> None:
        """Only the newest attempt may stop the step."""
        placed = scene.one()
        old = scene.claim(placed.id)
        scene.store.ledger.release([old])
        new = scene.claim(placed.id)
        assert not scene.end(old, suspended("old")).accepted
        assert list(scene.store.approvals.list()) == []
        scene.end(new, suspended("new"))
        assert [one.message for one in scene.store.approvals.list()] == ["new"]

    @pytest.mark.parametrize("outcome", [failed(), snoozed(0)], ids=["failed", "snoozed"])
    def test_a_later_attempt_keeps_the_decision(self, scene: Scene, outcome: AttemptOutcome) -> None:
        """A failure after an approval asks nobody again."""
        placed = scene.one(max_attempts=3)
        one = self.ask(scene, placed)
        scene.store.approvals.decide(one.id, approve=True, by="ann")
        scene.end(scene.claim(placed.id), outcome, retry=0)
        again = scene.claim(placed.id, now=scene.later(60))
        assert [gate.decided_by for gate in again.approvals] == ["ann"]
        assert scene.end(again).accepted

    def test_several_gates(self, scene: Scene) -> None:
        """Each has its decision; all of them are announced, in order."""
        placed = scene.one(max_attempts=1)
        for number, gate in enumerate(("budget", "legal", "press"), 1):
            one = self.ask(scene, placed, gate=gate)
            scene.store.approvals.decide(one.id, approve=True, by=f"person {number}")
        claim = scene.claim(placed.id)
        assert [(one.gate, one.decided_by) for one in claim.approvals] == [
            ("budget", "person 1"),
            ("legal", "person 2"),
            ("press", "person 3"),
        ]
        assert [one.gate for one in scene.store.approvals.of_step(placed.id)] == ["budget", "legal", "press"]
        assert scene.end(claim).state is State.COMPLETED
        assert scene.step(placed.id).attempt == 1

    def test_a_waiting_step_is_joined(self, scene: Scene) -> None:
        """It is still the one active step of its target."""
        placed = scene.one("a", run_id="owner")
        one = self.ask(scene, placed)
        joined, below = scene.open("guest", [NewStep("a", ""), NewStep("b", "", inputs=(0,))])
        assert (joined.id, joined.deduplicated, joined.state) == (placed.id, True, State.AWAITING_APPROVAL)
        assert not scene.store.catalog.wait([placed.id], timeout_seconds=0.0)
        scene.store.approvals.decide(one.id, approve=True, by="ann")
        scene.end(scene.claim(placed.id))
        assert scene.state(below.id) is State.PENDING

    def test_a_group_with_requests(self, scene: Scene) -> None:
        """Ends of attempts are committed together, whatever they are."""
        placed = scene.open("run", [NewStep(name, "") for name in "abc"])
        claims = [scene.claim(one.id) for one in placed]
        outcomes: tuple[AttemptOutcome, ...] = (suspended("first"), succeeded(claims[1]), suspended("second"))
        pairs = zip(claims, outcomes, strict=True)
        ends = [AttemptResult(claim, outcome, (), scene.later(1)) for claim, outcome in pairs]
        assert [one.accepted for one in scene.store.ledger.commit(ends)] == [True] * 3
        assert [one.message for one in scene.store.approvals.list()] == ["second", "first"]
        assert scene.states(placed) == [State.AWAITING_APPROVAL, State.COMPLETED, State.AWAITING_APPROVAL]
