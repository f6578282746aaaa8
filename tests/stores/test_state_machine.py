"""Random interleavings of everything that can happen to steps keep what the store promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.stores.conformance.case import failed, skipped, snoozed, stopped, succeeded

from flowstone.core.outcome import AttemptOutcome
from flowstone.core.state import State, can_move
from flowstone.core.step import Attempt, AttemptResult, InputVersion, NewRun, NewStep
from flowstone.stores.memory import MemoryStore

NAMES = ["a", "b", "c", "d", "e"]
READS = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d", "a"]}
OUTCOMES = {
    "succeeded": succeeded,
    "failed": lambda _: failed(),
    "skipped": lambda _: skipped(),
    "snoozed": lambda _: snoozed(30),
    "snoozed at once": lambda _: snoozed(0),
    "stopped": lambda _: stopped(),
}


class StepMachine(RuleBasedStateMachine):
    """Opens runs over one small graph, claims, commits, cancels and releases, also with stale claims."""

    def make_store(self) -> Any:
        """Return what the machine drives; its catalog is that of a store in memory."""
        return MemoryStore()

    @initialize()
    def begin(self) -> None:
        self.store = self.make_store()
        self.now = datetime.now(UTC)
        self.claims: list[Attempt] = []
        self.states: dict[int, State] = {}
        self.children: dict[int, set[int]] = {}
        self.runs = 0
        self.completed: dict[tuple[str, str], int] = {}

    # --- what happens ---------------------------------------------------------------------------------------

    @rule(
        requested=st.sets(st.sampled_from(NAMES), min_size=1),
        attempts=st.integers(1, 3),
        later=st.booleans(),
        reuse=st.booleans(),
        forced=st.booleans(),
        again=st.booleans(),
    )
    def open_run(
        self, requested: set[str], attempts: int, later: bool, reuse: bool, forced: bool, again: bool
    ) -> None:
        self.runs += not again or not self.runs
        names = [name for name in NAMES if name in requested]
        position = {name: index for index, name in enumerate(names)}
        steps = [
            NewStep(
                name,
                "",
                inputs=tuple(position[read] for read in READS[name] if read in position),
                reuse=self.completed.get((name, "")) if reuse else None,
                max_attempts=attempts,
                priority=len(requested),
                forced=forced,
                scheduled_at=self.now + timedelta(minutes=1) if later else None,
            )
            for name in names
        ]
        run = NewRun(id=f"run-{self.runs}", kind="test", selection="", executor="sync", created_at=self.now)
        active = {target for target, step in self._active().items() if step}
        placed = self.store.ledger.open_run(run, steps)
        for new, one in zip(steps, placed, strict=True):
            serves = new.reuse is not None or (not forced and (new.asset, "") in self.completed)
            if (new.asset, "") in active and not serves:
                # with an input that is lost already there is nothing to wait for
                assert one.deduplicated or one.state in (State.UPSTREAM_FAILED, State.SKIPPED)
            if not one.deduplicated:
                self.states[one.id] = one.state
                parents = [placed[index].id for index in new.inputs]
                for parent in parents:
                    self.children.setdefault(parent, set()).add(one.id)

    @precondition(lambda self: self.states)
    @rule(data=st.data(), minutes=st.sampled_from([0, 2, 60]))
    def claim(self, data: st.DataObject, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        ids = data.draw(st.lists(st.sampled_from(sorted(self.states)), max_size=4))
        claims = self.store.ledger.claim(ids, now=self.now)
        assert len({claim.step_id for claim in claims}) == len(claims)
        for claim in claims:
            before = self.states[claim.step_id]
            assert before in (State.PENDING, State.SCHEDULED, State.RETRYING)
            parents = [parent for parent, children in self.children.items() if claim.step_id in children]
            assert all(self._state(parent).is_success for parent in parents)
            assert all(claim.token > old.token for old in self.claims if old.step_id == claim.step_id)
            assert 1 <= claim.attempt <= claim.max_attempts
        self.claims += claims

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.claims), min_size=1, max_size=3, unique_by=id))
        completions = [self._completion(claim, data.draw(st.sampled_from(sorted(OUTCOMES)))) for claim in chosen]
        current = {claim.step_id for claim in chosen if self._is_current(claim)}
        committed = self.store.ledger.commit(completions)
        for completion, one in zip(completions, committed, strict=True):
            assert one.step_id == completion.attempt.step_id
            # of two claims of one step at most the newer one is current
            assert one.accepted == (completion.attempt in self._newest(chosen) and one.step_id in current)
            if one.accepted and one.state is State.COMPLETED:
                self.completed[completion.attempt.asset, ""] = one.step_id
            for released in one.released:
                assert self._state(released) in (State.PENDING, State.SCHEDULED)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), delay=st.sampled_from([0.0, 90.0]))
    def release(self, data: st.DataObject, delay: float) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        current = self._is_current(claim)
        assert self.store.ledger.release([claim], delay_seconds=delay) == ([claim.step_id] if current else [])

    @precondition(lambda self: self.states)
    @rule(data=st.data())
    def cancel_step(self, data: st.DataObject) -> None:
        step_id = data.draw(st.sampled_from(sorted(self.states)))
        before = self._state(step_id)
        after = self.store.ledger.request_cancel(step_id)
        assert after is self._state(step_id)
        assert after.is_terminal or after is State.CANCELLING
        if before.is_terminal:
            assert after is before

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def cancel_run(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.runs))
        running = self.store.ledger.cancel_run(f"run-{number}")
        assert all(self._state(step_id) is State.CANCELLING for step_id in running)
        own = [one for one in self.store.catalog.steps(f"run-{number}") if one.run_id == f"run-{number}"]
        assert all(one.state.is_terminal or one.id in running for one in own)

    # --- what always holds ----------------------------------------------------------------------------------

    @invariant()
    def states_move_only_as_allowed(self) -> None:
        for step_id, before in self.states.items():
            after = self._state(step_id)
            if after is not before:
                assert can_move(before, after), (before, after)
                self.states[step_id] = after

    @invariant()
    def a_target_has_one_active_step_at_max(self) -> None:
        for steps in self._active().values():
            assert len(steps) <= 1

    @invariant()
    def runs_count_their_open_steps(self) -> None:
        tables = self.store.catalog._tables
        for run_id, row in tables.runs.items():
            own = [step for step in self.store.catalog.steps(run_id) if step.run_id == run_id]
            assert row.open == sum(not step.state.is_terminal for step in own)
            record = self.store.catalog.run(run_id)
            assert record is not None
            going_on = (State.RUNNING, State.CANCELLING)  # the latter when all that is left is being cancelled
            assert (record.state in going_on) == (record.done < record.total)
            assert (record.finished_at is None) == (record.state in going_on)

    @invariant()
    def waiting_steps_wait_for_another(self) -> None:
        for step_id in self.states:
            state = self._state(step_id)
            parents = [parent for parent, children in self.children.items() if step_id in children]
            unfinished = [parent for parent in parents if not self._state(parent).is_terminal]
            if state is State.WAITING:
                record = self.store.catalog.step(step_id)
                assert record is not None
                assert record.waiting_on == len(unfinished) > 0
            elif not state.is_terminal:
                assert not unfinished

    @invariant()
    def pointers_name_the_newest_success(self) -> None:
        current = self.store.catalog.current([(name, "") for name in NAMES])
        assert current == self.completed
        assert all(self._state(step_id) is State.COMPLETED for step_id in current.values())

    @invariant()
    def ends_are_recorded(self) -> None:
        for step_id in self.states:
            record = self.store.catalog.step(step_id)
            assert record is not None
            assert (record.finished_at is not None) == record.state.is_terminal
            assert (record.output_step is not None) == record.state.is_success
            assert 0 <= record.attempt <= record.max_attempts
            numbers = [one.attempt for one in self.store.catalog.attempts(step_id)]
            assert numbers == list(range(1, len(numbers) + 1))

    # --- how to look ----------------------------------------------------------------------------------------

    def _state(self, step_id: int) -> State:
        record = self.store.catalog.step(step_id)
        assert record is not None
        return record.state

    def _active(self) -> dict[tuple[str, str], list[int]]:
        active: dict[tuple[str, str], list[int]] = {}
        for name in NAMES:
            history = self.store.catalog.history(name, None, limit=1000)
            active[name, ""] = [one.id for one in history if not one.state.is_terminal]
        return active

    def _is_current(self, claim: Attempt) -> bool:
        row = self.store.catalog._tables.steps[claim.step_id]
        return row.token == claim.token and row.state in (State.RUNNING, State.CANCELLING)

    def _newest(self, claims: list[Attempt]) -> list[Attempt]:
        newest = {claim.step_id: claim for claim in sorted(claims, key=lambda claim: claim.token)}
        return list(newest.values())

    def _completion(self, claim: Attempt, outcome: str) -> AttemptResult:
        made: AttemptOutcome = OUTCOMES[outcome](claim)
        reads = tuple(
            InputVersion(name, name, "", self.completed[name, ""])
            for name in READS[claim.asset]
            if (name, "") in self.completed
        )
        retry = 20.0 if claim.attempt < claim.max_attempts else None
        return AttemptResult(claim, made, reads, self.now + timedelta(seconds=1), retry)


StepMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStepMachine = StepMachine.TestCase
