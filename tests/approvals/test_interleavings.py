"""Whatever happens in whatever order: each request has one end, and the step follows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.stores.conformance.case import failed, succeeded

from flowstone.core.approval import ON_TIMEOUT, ApprovalState
from flowstone.core.audit import AuditFilter
from flowstone.core.outcome import Suspended
from flowstone.core.state import State, can_move
from flowstone.core.step import Attempt, AttemptResult, NewRun, NewStep
from flowstone.errors import ApprovalDecidedError
from flowstone.stores.memory import MemoryStore

NAMES = ("a", "b", "c")


class Approvals(RuleBasedStateMachine):
    """Steps that ask, are answered, time out, are cancelled, fail, come back and ask again."""

    @initialize()
    def begin(self) -> None:
        self.now = datetime.now(UTC)
        self.store = MemoryStore(now=lambda: self.now)
        run = NewRun(id="run", kind="test", selection="", executor="sync", created_at=self.now)
        steps = [NewStep(name, "", max_attempts=9, inputs=(0,) if name == "c" else ()) for name in NAMES]
        self.steps = [one.id for one in self.store.ledger.open_run(run, steps)]
        self.claims: dict[int, Attempt] = {}
        self.states = {step_id: self._state(step_id) for step_id in self.steps}
        self.ends: dict[int, ApprovalState] = {}

    def _state(self, step_id: int) -> State:
        record = self.store.catalog.step(step_id)
        assert record is not None
        return record.state

    @rule(index=st.integers(0, 2))
    def claim(self, index: int) -> None:
        for claim in self.store.ledger.claim([self.steps[index]], now=self.now):
            self.claims[claim.step_id] = claim
            decided = [one for one in self.store.approvals.of_step(claim.step_id) if one.approved]
            assert list(claim.approvals) == decided
            assert claim.attempt == len(self.store.catalog.attempts(claim.step_id)) + 1

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), seconds=st.sampled_from([1.0, 60.0]), meaning=st.sampled_from(ON_TIMEOUT))
    def ask(self, data: st.DataObject, seconds: float, meaning: str) -> None:
        claim = self._end(data)
        outcome = Suspended("?", f"gate {self.now}", seconds, meaning)  # type: ignore[arg-type]
        self.store.ledger.commit([AttemptResult(claim, outcome, (), self.now)])

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        claim = self._end(data)
        outcome = failed() if fails else succeeded(claim)
        self.store.ledger.commit([AttemptResult(claim, outcome, (), self.now, 0.0 if fails else None)])

    def _end(self, data: st.DataObject) -> Attempt:
        return self.claims.pop(data.draw(st.sampled_from(sorted(self.claims))))

    @precondition(lambda self: self.store.approvals.list())
    @rule(data=st.data(), approve=st.booleans())
    def decide(self, data: st.DataObject, approve: bool) -> None:
        one = data.draw(st.sampled_from(sorted(self.store.approvals.list(), key=lambda one: one.id)))
        over = one.state.is_decided or one.expires_at <= self.now
        if over:
            with pytest.raises(ApprovalDecidedError) as reported:
                self.store.approvals.decide(one.id, approve=approve, by="ann")
            assert reported.value.state == (one.state if one.state.is_decided else "expired")
            return
        decided = self.store.approvals.decide(one.id, approve=approve, by="ann")
        assert decided.approved == approve
        assert self._state(one.step_id) is (State.PENDING if approve else State.FAILED)

    @rule(seconds=st.sampled_from([0.5, 30.0, 90.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def expire(self) -> None:
        due = [one for one in self.store.approvals.list(state=ApprovalState.PENDING) if one.expires_at <= self.now]
        assert self.store.approvals.expire_due() == len(due)

    @rule(index=st.integers(0, 2))
    def cancel(self, index: int) -> None:
        self.store.ledger.request_cancel(self.steps[index])

    @rule()
    def cancel_run(self) -> None:
        self.store.ledger.cancel_run("run")

    @invariant()
    def states_move_only_as_allowed(self) -> None:
        for step_id, before in self.states.items():
            after = self._state(step_id)
            assert after is before or can_move(before, after), (before, after)
            self.states[step_id] = after

    @invariant()
    def a_step_waits_as_long_as_its_request_is_open(self) -> None:
        for step_id in self.steps:
            pending = [one for one in self.store.approvals.of_step(step_id) if not one.state.is_decided]
            assert len(pending) == (self._state(step_id) is State.AWAITING_APPROVAL)

    @invariant()
    def an_end_is_an_end(self) -> None:
        for one in self.store.approvals.list(limit=10_000):
            log = self.store.audit.lines(AuditFilter(subject=f"approval:{one.id}"))
            message = [line.action for line in log if line.action != "approval.requested"]
            assert message == ([f"approval.{one.state}"] if one.state.is_decided else [])
            if one.state.is_decided:
                assert self.ends.setdefault(one.id, one.state) is one.state


Approvals.TestCase.settings = settings(stateful_step_count=30)
TestApprovals = Approvals.TestCase
